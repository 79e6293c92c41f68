"""Pose blendshapes: what linear skinning lacks, learned from a better skinning.

MakeHuman's artists made the A-pose. The wanted surface of a pose is that A-pose taken there
directly, half-way between linear and dual-quaternion skinning; the ridge regression finds what to
add to the T-pose so that plain linear skinning comes close to it. Going from the A-pose matters at
the shoulders: arms at rest or lifted are both near it, and neither pinches nor bulges.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.skeleton import FLIP_JOINTS, NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS
from train.body.rest_pose import DUAL_SHARE
from train.body.skinning import chain, joint_maps, skin, sparse_weights

NUM_FEATURES = 9 * (NUM_JOINTS - 1)
RIDGE = 2.0
MAX_OFFSET_M = 0.06
_PARENTS = np.array(SMPL_PARENTS)

# Mean and standard deviation, degrees, of each left joint's rotation vector in the poses learned
# from; middle joints have no mean about y and z. Right joints are drawn as mirrored left ones.
_POSES = {
    "hip": ((-35, 0, 10), (40, 15, 20)), "knee": ((50, 0, 0), (40, 6, 4)),
    "ankle": ((0, 0, 0), (20, 8, 8)), "foot": ((-8, 0, 0), (12, 3, 3)),
    "collar": ((0, 0, 5), (6, 10, 12)), "shoulder": ((0, -15, -15), (30, 40, 55)),
    "elbow": ((0, -60, 0), (30, 45, 10)), "wrist": ((0, 0, 0), (25, 12, 30)),
    "hand": ((0, 0, -15), (8, 8, 20)), "pelvis": ((0, 0, 0), (0, 0, 0)),
    "spine1": ((10, 0, 0), (14, 10, 10)), "spine2": ((10, 0, 0), (12, 10, 10)),
    "spine3": ((5, 0, 0), (10, 10, 8)), "neck": ((5, 0, 0), (15, 22, 12)),
    "head": ((0, 0, 0), (15, 20, 10)),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Figure:
    """One body in both poses.

    Attributes:
        a_vertices: [V, 3], a_joints: [24, 3]: as MakeHuman made it, m.
        t_vertices: [V, 3], t_joints: [24, 3]: in the T-pose, m.
        t_rotmats: [24, 3, 3] world rotations that took it from the A-pose to the T-pose.
    """

    a_vertices: Array
    a_joints: Array
    t_vertices: Array
    t_joints: Array
    t_rotmats: Array


@dataclass(frozen=True)
class PoseBlendReport:
    """Distance to the wanted surface where linear skinning misses it by > 3 mm; held-out poses."""

    before_mm: float
    after_mm: float


def sample_poses(count: int, rng: np.random.Generator) -> Array:
    """[count, 24, 3, 3] float64 local rotations, wide but within what people can do."""
    rotvecs = np.zeros((count, NUM_JOINTS, 3))
    for i, name in enumerate(SMPL_JOINTS):
        side, _, part = name.rpartition("_")
        mean, std = (np.radians(x) for x in _POSES[part])
        rotvec = mean + std * rng.standard_normal((count, 3))
        rotvecs[:, i] = rotvec * [1, -1, -1] if side == "right" else rotvec
    angle = np.linalg.norm(rotvecs, axis=-1, keepdims=True)
    rotvecs *= np.minimum(1.0, np.radians(150) / np.maximum(angle, 1e-9))
    return np.asarray(rotvec_to_rotmat(rotvecs))


def wanted_offsets(figure: Figure, lbs_weights: Array, poses: Array) -> Array:
    """[n, V, 3] float32, m: what to add to the T-pose so that linear skinning hits the aim."""
    influences = sparse_weights(lbs_weights)
    out = np.empty((len(poses), *figure.t_vertices.shape), np.float32)
    for offset, local in zip(out, poses, strict=True):
        world = local.copy()
        for j in range(1, NUM_JOINTS):
            world[j] = world[_PARENTS[j]] @ local[j]
        posed = chain(world, figure.t_joints, _PARENTS)
        from_a = world @ figure.t_rotmats
        aim = skin(
            figure.a_vertices,
            influences,
            from_a,
            joint_maps(from_a, figure.a_joints, posed),
            DUAL_SHARE,
        )
        linear = skin(
            figure.t_vertices, influences, world, joint_maps(world, figure.t_joints, posed), 0.0
        )
        blend = np.einsum("vj,jab->vab", lbs_weights, world)
        back = np.linalg.solve(blend + 1e-3 * np.eye(3), (aim - linear)[..., None])[..., 0]
        length = np.linalg.norm(back, axis=1, keepdims=True)
        offset[:] = back * np.minimum(1.0, MAX_OFFSET_M / np.maximum(length, 1e-9))
    return out


def fit_posedirs(
    figure: Figure, lbs_weights: Array, count: int, rng: np.random.Generator
) -> tuple[Array, PoseBlendReport]:
    """Ridge regression of the offsets on R - I, each vertex on the joints between its own.

    Returns:
        ([V, 3, 207] float64, m; its report).
    """
    poses = sample_poses(count, rng)
    features = (poses[:, 1:] - np.eye(3)).reshape(count, NUM_FEATURES)
    offsets = wanted_offsets(figure, lbs_weights, poses)
    learn, check = np.arange(count) % 10 != 0, np.arange(count) % 10 == 0
    posedirs = np.zeros((*figure.t_vertices.shape, NUM_FEATURES))
    for joints, rows in _vertices_by_joints(lbs_weights).items():
        columns = np.concatenate([np.arange(9) + 9 * (j - 1) for j in joints])
        X = features[learn][:, columns]
        Y = offsets[learn][:, rows].reshape(len(X), -1)
        solution = np.linalg.solve(X.T @ X + RIDGE * np.eye(len(columns)), X.T @ Y)
        block = solution.T.reshape(len(rows), 3, len(columns))
        posedirs[np.ix_(rows, [0, 1, 2], columns.tolist())] = block
    left = offsets[check] - (features[check] @ posedirs.reshape(-1, NUM_FEATURES).T).reshape(
        -1, *figure.t_vertices.shape
    )
    miss = np.linalg.norm(offsets[check], axis=-1)
    where = miss > 0.003
    report = PoseBlendReport(
        1000 * float(miss[where].mean()), 1000 * float(np.linalg.norm(left, axis=-1)[where].mean())
    )
    return posedirs, report


def mirror_posedirs(posedirs: Array, mirror: Array) -> Array:
    """Posedirs of the mirrored body: [V, 3, 207], rows, axes and features turned left for right."""
    sign = np.array([-1.0, 1.0, 1.0])
    blocks = posedirs.reshape(len(posedirs), 3, NUM_JOINTS - 1, 3, 3)
    flip = np.array(FLIP_JOINTS[1:]) - 1
    turned = blocks[mirror][:, :, flip] * np.einsum("c,a,b->cab", sign, sign, sign)[:, None]
    return np.asarray(turned.reshape(posedirs.shape))


def _vertices_by_joints(lbs_weights: Array) -> dict[tuple[int, ...], list[int]]:
    """Group vertices by the joints that bend them: those between the ones they hang on."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for v, row in enumerate(lbs_weights > 1e-3):
        joints = _between(tuple(np.flatnonzero(row).tolist()))
        if joints:
            groups[joints].append(v)
    return groups


def _between(joints: tuple[int, ...]) -> tuple[int, ...]:
    """Joints on the tree paths that connect `joints`, their common ancestor left out."""
    paths = [_path_to_root(j) for j in joints]
    shared = set.intersection(*(set(path) for path in paths))
    return tuple(sorted(set().union(*paths) - shared))


def _path_to_root(j: int) -> list[int]:
    path = [j]
    while path[-1] > 0:
        path.append(SMPL_PARENTS[path[-1]])
    return path
