"""A body as the tables that the kernels read: the twin of `kernels/skin.h` and `decode.h`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array
from glnet_rt.skeleton import NUM_JOINTS

SLICE = 32  # vertices; `SLICE` in skin.h
BODY_TABLES = np.dtype(
    [
        *((name, np.uint64) for name in (
            "v_template", "shapedirs", "weights", "influencers",
            "slice_first", "bend_joints", "bends",
        )),
        ("vertices", np.int32),
        ("padded", np.int32),
        ("num_betas", np.int32),
        ("influences", np.int32),
    ]
)  # fmt: skip
DECODE_SETUP = np.dtype(
    [
        ("rest_template", np.uint64),
        ("rest_dirs", np.uint64),
        ("num_betas", np.int32),
        ("depth_range_m", np.float32),
        ("stiffness", np.float32),
        ("unused", np.int32),
    ]
)


@dataclass(frozen=True)
class KernelBody:
    """A body in the kernels' layout; n betas, V vertices, `padded` is V up to whole slices.

    Attributes:
        tables: name -> array, as BODY_TABLES and DECODE_SETUP name them.
        vertices, padded, num_betas, influences: sizes.
    """

    tables: dict[str, Array]
    vertices: int
    padded: int
    num_betas: int
    influences: int


def lay_out(body: BodyModel, num_betas: int) -> KernelBody:
    """Bring a body into the kernels' layout.

    Args:
        body: any SMPL-format body.
        num_betas: as many as the network predicts.
    """
    vertices = len(body.v_template)
    padded = -(-vertices // SLICE) * SLICE
    weights, influencers = _strongest(body.lbs_weights)
    slice_first, bend_joints, bends = _slice_bends(body.posedirs, padded)
    tables = {
        "v_template": _last_axis(body.v_template.T, padded),
        "shapedirs": _last_axis(body.shapedirs[:, :, :num_betas].transpose(2, 1, 0), padded),
        "weights": _last_axis(weights.T, padded),
        "influencers": _last_axis(influencers.T, padded),
        "slice_first": slice_first,
        "bend_joints": bend_joints,
        "bends": bends,
        "rest_template": body.rest_template.astype(np.float32),
        "rest_dirs": np.ascontiguousarray(body.rest_dirs[:, :, :num_betas], np.float32),
    }
    return KernelBody(tables, vertices, padded, num_betas, weights.shape[1])


def _last_axis(values: Array, padded: int) -> Array:
    """[..., V] -> contiguous [..., padded], zeros behind."""
    behind = [(0, 0)] * (values.ndim - 1) + [(0, padded - values.shape[-1])]
    return np.ascontiguousarray(np.pad(values, behind))


def _strongest(lbs_weights: Array) -> tuple[Array, Array]:
    """[V, 24] -> weights [V, k] and joints [V, k] uint8; k is what the busiest vertex needs."""
    count = max(1, int((lbs_weights != 0).sum(1).max()))
    joints = np.argsort(-np.abs(lbs_weights), axis=1, kind="stable")[:, :count]
    return np.take_along_axis(lbs_weights, joints, 1), joints.astype(np.uint8)


def _slice_bends(posedirs: Array, padded: int) -> tuple[Array, Array, Array]:
    """[V, 3, 207] -> where each slice begins, and per place 32 joints and [3, 9, 32] directions."""
    vertices = len(posedirs)
    per_joint = np.zeros((padded, 3, NUM_JOINTS - 1, 9), np.float32)
    per_joint[:vertices] = posedirs.reshape(vertices, 3, NUM_JOINTS - 1, 9)
    used = per_joint.any(axis=(1, 3))
    depth = used.sum(1).reshape(-1, SLICE).max(1)
    first = np.concatenate([[0], np.cumsum(depth)]).astype(np.int32)
    order = np.argsort(~used, axis=1, kind="stable").astype(np.uint8)  # a vertex's joints in front
    joints = np.zeros((int(first[-1]), SLICE), np.uint8)
    bends = np.zeros((int(first[-1]), 3, 9, SLICE), np.float32)
    for i, start in enumerate(first[:-1]):
        lanes = np.arange(SLICE * i, SLICE * (i + 1))
        for k in range(depth[i]):
            joints[start + k] = order[lanes, k]
            # Where a vertex has fewer joints than its slice, the next one's zeros do no harm.
            bends[start + k] = per_joint[lanes, :, order[lanes, k]].transpose(1, 2, 0)
    return first, joints, bends
