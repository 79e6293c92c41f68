"""Read and check body files: our own `body.npz`, and SMPL's `.npz` and `.pkl`.

Letters: V vertices, F faces, J = 24 joints. All lengths are metres.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt import _restricted_pickle
from glnet_rt.contracts import Array
from glnet_rt.errors import ArtifactError
from glnet_rt.skeleton import COCO_ONLY, H36M_17, LEAVES, NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS

NUM_POSE_FEATURES = 9 * (NUM_JOINTS - 1)
REQUIRED = (
    "v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f",
)  # fmt: skip
OPTIONAL = ("leaf_vertices", "J_regressor_h36m", "coco_regressor", "part_labels", "body_id")

# SMPL's own mesh: fixed vertices for what its files do not name.
SMPL_VERTICES = 6890
SMPL_LEAVES = (411, 2445, 5905, 3216, 6617)  # order of LEAVES
SMPL_FACE = {"nose": 332, "left_eye": 2800, "right_eye": 6260, "left_ear": 583, "right_ear": 4071}
# COCO's hips against the joints: annotators click further out and lower.
COCO_HIP_WIDER = 0.12  # of the distance between the hips
COCO_HIP_LOWER = 0.06  # of the thigh


@dataclass(frozen=True, eq=False)
class BodyFile:
    """A body file's checked contents.

    Attributes:
        v_template: [V, 3] float32, m.
        shapedirs: [V, 3, num_betas] float32, m per unit of beta.
        posedirs: [V, 3, 207] float32, m per unit of R - I, joints 1..23, row by row.
        J_regressor: [24, V] float32.
        lbs_weights: [V, 24] float32.
        faces: [F, 3] int32, outward by the right-hand rule.
        leaf_vertices: [5] int64, order of `skeleton.LEAVES`.
        J_regressor_h36m: [17, V] float32, order of `skeleton.H36M_17`, or None.
        coco_regressor: [7, V] float32, order of `skeleton.COCO_ONLY`, or None.
        part_labels: [V] uint8, index in `skeleton.PARTS` of the part of the joint with the largest
            weight, or None.
        body_id: name of the body; betas of one body mean nothing to another.
        sha256: of the file, hex.
    """

    v_template: Array
    shapedirs: Array
    posedirs: Array
    J_regressor: Array
    lbs_weights: Array
    faces: Array
    leaf_vertices: Array
    J_regressor_h36m: Array | None
    coco_regressor: Array | None
    part_labels: Array | None
    body_id: str
    sha256: str


def read_body(path: str | Path) -> BodyFile:
    """Read one body file.

    Raises:
        ArtifactError: missing, damaged, of another format, or not an SMPL-format body.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".pkl"):
        raise ArtifactError(
            "this is no body file by its name", got=path.name, expected="a .npz or .pkl file"
        )
    if not path.is_file():
        raise ArtifactError(
            "the body file does not exist",
            got=path,
            fix="give the path of an SMPL .npz or .pkl, or leave it out for the shipped body",
        )
    return parse_body(path.read_bytes(), path.name)


def parse_body(data: bytes, name: str) -> BodyFile:
    """Read a body file's content, such as a member of an artifact; `.npz` or `.pkl` by its name.

    Raises:
        ArtifactError: damaged, of another format, or not an SMPL-format body.
    """
    raw = _read_npz(data, name) if name.endswith(".npz") else _restricted_pickle.load(data, name)
    return _check(raw, name, hashlib.sha256(data).hexdigest())


def _read_npz(data: bytes, name: str) -> dict[str, Any]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {key: archive[key] for key in (*REQUIRED, *OPTIONAL) if key in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ArtifactError(
            f"{name} cannot be read",
            got=f"{type(error).__name__}: {error}",
            expected="a .npz archive of plain arrays",
            fix="fetch the file again; it may be cut short or damaged",
        ) from error


def _check(raw: Mapping[str, Any], name: str, sha256: str) -> BodyFile:
    missing = [key for key in REQUIRED if key not in raw]
    if missing:
        raise ArtifactError(
            f"{name} lacks {', '.join(missing)}",
            got=sorted(raw),
            expected=", ".join(REQUIRED),
            fix="is this a body model? Pose files and SMPL-X models have other keys",
        )
    _check_tree(np.asarray(raw["kintree_table"]), name)
    template = _floats(raw, "v_template", (None, 3), name)
    count = len(template)
    is_smpl = count == SMPL_VERTICES
    J_regressor = _floats(raw, "J_regressor", (NUM_JOINTS, count), name)
    coco = _optional(raw, "coco_regressor", (len(COCO_ONLY), count), name)
    if coco is None and is_smpl:
        coco = _smpl_coco_regressor(J_regressor)
    leaves = raw.get("leaf_vertices", SMPL_LEAVES if is_smpl else None)
    if leaves is None:
        raise ArtifactError(
            f"{name} names no leaf vertices, and it is not SMPL's own mesh",
            got=f"{count} vertices",
            expected=f"the key leaf_vertices, or {SMPL_VERTICES} vertices",
            fix=f"add leaf_vertices: the vertices of {', '.join(LEAVES)}",
        )
    labels = raw.get("part_labels")
    return BodyFile(
        v_template=template,
        shapedirs=_floats(raw, "shapedirs", (count, 3, None), name),
        posedirs=_floats(raw, "posedirs", (count, 3, NUM_POSE_FEATURES), name),
        J_regressor=J_regressor,
        lbs_weights=_floats(raw, "weights", (count, NUM_JOINTS), name),
        faces=_indices(raw["f"], "f", (None, 3), count, name).astype(np.int32),
        leaf_vertices=_indices(leaves, "leaf_vertices", (len(LEAVES),), count, name),
        J_regressor_h36m=_optional(raw, "J_regressor_h36m", (len(H36M_17), count), name),
        coco_regressor=coco,
        part_labels=None
        if labels is None
        else _indices(labels, "part_labels", (count,), 256, name).astype(np.uint8),
        body_id=str(raw["body_id"]) if "body_id" in raw else f"smpl-{sha256[:12]}",
        sha256=sha256,
    )


def _check_tree(table: Array, name: str) -> None:
    if (
        table.dtype.kind not in "iuf"
        or table.ndim != 2
        or len(table) != 2
        or table.shape[1] != NUM_JOINTS
    ):
        raise ArtifactError(
            f"{name} has the wrong number of joints",
            got=f"kintree_table {list(table.shape)} {table.dtype}",
            expected=f"[2, {NUM_JOINTS}] integers",
            fix="use an SMPL body; SMPL-H and SMPL-X have 52 and 55 joints",
        )
    parents = (-1, *(int(p) for p in table[0, 1:]))
    if parents != SMPL_PARENTS:
        raise ArtifactError(
            f"{name} has another kinematic tree than SMPL", got=parents, expected=SMPL_PARENTS
        )


def _floats(raw: Mapping[str, Any], key: str, shape: tuple[int | None, ...], name: str) -> Array:
    """`raw[key]` as contiguous float32, finite and of `shape` (None: any length)."""
    value = np.asarray(raw[key])
    _check_shape(value, key, shape, name)
    if value.dtype.kind not in "fiu":
        raise ArtifactError(f"{name}: {key} holds no numbers", got=value.dtype, expected="floats")
    floats = np.ascontiguousarray(value, dtype=np.float32)
    if not np.isfinite(floats).all():
        raise ArtifactError(
            f"{name}: {key} holds NaN or infinity",
            got=f"{int((~np.isfinite(floats)).sum())} values not finite",
            expected="finite numbers",
            fix="fetch or build the file again",
        )
    return floats


def _optional(
    raw: Mapping[str, Any], key: str, shape: tuple[int | None, ...], name: str
) -> Array | None:
    return _floats(raw, key, shape, name) if key in raw else None


def _indices(
    value: object, key: str, shape: tuple[int | None, ...], limit: int, name: str
) -> Array:
    """Whole numbers in [0, limit) as int64."""
    array = np.asarray(value)
    _check_shape(array, key, shape, name)
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= limit:
        raise ArtifactError(
            f"{name}: {key} points outside",
            got=f"{array.dtype}, {array.min()} to {array.max()}",
            expected=f"integers in [0, {limit})",
        )
    return array.astype(np.int64)


def _check_shape(value: Array, key: str, shape: tuple[int | None, ...], name: str) -> None:
    fits = value.ndim == len(shape) and all(
        n is None or n == m for n, m in zip(shape, value.shape, strict=True)
    )
    if not fits or value.size == 0:
        wanted = "[" + ", ".join("*" if n is None else str(n) for n in shape) + "]"
        raise ArtifactError(
            f"{name}: {key} has the wrong shape", got=list(value.shape), expected=wanted
        )


def _smpl_coco_regressor(J_regressor: Array) -> Array:
    """[7, 6890] float32: SMPL's well-known face vertices, and COCO's hips made from the joints."""
    rows = np.zeros((len(COCO_ONLY), J_regressor.shape[1]), np.float32)
    for row, keypoint in zip(rows, COCO_ONLY, strict=True):
        if keypoint in SMPL_FACE:
            row[SMPL_FACE[keypoint]] = 1.0
        else:
            row[:] = coco_hip_row(J_regressor, keypoint.split("_")[0])
    return rows


def coco_hip_row(J_regressor: Array, side: str) -> Array:
    """[V] weights of COCO's `side` hip: the hip joint, moved outward and towards the knee."""
    other = "right" if side == "left" else "left"
    hip = J_regressor[SMPL_JOINTS.index(f"{side}_hip")]
    opposite = J_regressor[SMPL_JOINTS.index(f"{other}_hip")]
    knee = J_regressor[SMPL_JOINTS.index(f"{side}_knee")]
    return np.asarray(hip + COCO_HIP_WIDER * (hip - opposite) + COCO_HIP_LOWER * (knee - hip))
