"""Bodies as GLB files: still meshes, or skinned meshes that move.

A GLB is a JSON description and one block of binary arrays (glTF 2.0). What is written here is right
handed, in metres and y up, as glTF asks; see `scene.py` for how the camera frame becomes that.

A moving body is its rest shape, a skeleton and one rotation per joint and frame. glTF skins blend
linearly and know no pose blendshapes, so a viewer shows the body without them: the joints are
exact, the flesh around strongly bent ones is not. Vertices follow their four strongest joints.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt._version import __version__
from glnet_rt.contracts import Array, Result, check_array
from glnet_rt.errors import ContractError
from glnet_rt.out.raster import vertex_normals
from glnet_rt.out.scene import YUP_FROM_CAMERA, color_rgb, place_yup, shared_depth_shift
from glnet_rt.rotation import rotmat_to_unitquat
from glnet_rt.skeleton import NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS

Json = dict[str, Any]

_MAGIC, _CHUNK_JSON, _CHUNK_BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_COMPONENT = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
_SHAPE = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
_INFLUENCES = 4


@dataclass(frozen=True, eq=False)
class BodyMotion:
    """One person over T frames, ready to be written.

    Attributes:
        rest_vertices: [V, 3] float32, m, the person's shape in the rest pose, body frame (y up).
        rest_joints: [24, 3] float32, m, likewise.
        lbs_weights: [V, 24] float32.
        global_orient: [T, 3, 3] float32, camera from body.
        body_pose: [T, 23, 3, 3] float32, relative to the parent.
        pelvis: [T, 3] float32, m, camera frame.
    """

    rest_vertices: Array
    rest_joints: Array
    lbs_weights: Array
    global_orient: Array
    body_pose: Array
    pelvis: Array

    def __post_init__(self) -> None:
        count, frames = len(self.rest_vertices), len(self.pelvis)
        joints = NUM_JOINTS
        shapes = {
            "rest_vertices": (count, 3),
            "rest_joints": (joints, 3),
            "lbs_weights": (count, joints),
            "global_orient": (frames, 3, 3),
            "body_pose": (frames, joints - 1, 3, 3),
            "pelvis": (frames, 3),
        }
        for name, shape in shapes.items():
            check_array(f"motion.{name}", getattr(self, name), shape, np.float32, finite=True)


def write_glb(result: Result, path: str | Path) -> Path:
    """Write the bodies of one frame as still meshes, with all their pose detail.

    Raises:
        ContractError: nobody is in the result: glTF cannot hold an empty scene.
    """
    if not result.people:
        raise ContractError(
            "there is nobody to write",
            got=f"a result without people, frame {result.frame_id}",
            expected="at least one person",
            fix="write a result whose `people` is not empty",
        )
    glb = _Glb()
    faces = glb.add_faces(result.faces, len(result.people[0].vertices))
    shifts = shared_depth_shift(result.people)
    for index, (person, shift) in enumerate(zip(result.people, shifts, strict=True)):
        vertices = place_yup(person, float(shift))
        attributes = glb.add_surface(vertices, result.faces)
        mesh = glb.add_mesh(f"person_{index}", attributes, faces, index)
        glb.add_root({"name": f"person_{index}", "mesh": mesh})
    return glb.write(Path(path))


def write_animated_glb(
    motions: Sequence[BodyMotion], faces: Array, times_s: Array, path: str | Path
) -> Path:
    """Write people who move, each one skinned mesh, all in one animation.

    Args:
        motions: one per person, all T frames long.
        faces: [F, 3] int32, shared by all.
        times_s: [T] float64, s, growing.
        path: where to write.

    Raises:
        ContractError: nobody, no frames, lengths that differ, or times that do not grow.
    """
    if not motions or not len(times_s) or any(len(m.pelvis) != len(times_s) for m in motions):
        raise ContractError(
            "a motion needs people, frames, and one time per frame",
            got=f"{len(times_s)} times, people with {[len(m.pelvis) for m in motions]} frames",
            expected="the same number of frames, at least 1, for at least 1 person",
            fix="leave out the frames in which somebody is missing",
        )
    if (np.diff(times_s) <= 0).any():
        raise ContractError(
            "the times of a motion do not grow",
            got=f"{int((np.diff(times_s) <= 0).sum())} steps of zero or less",
            expected="times_s[t + 1] > times_s[t]",
            fix="sort the frames by time and drop repeated ones",
        )
    glb = _Glb()
    indices = glb.add_faces(faces, len(motions[0].rest_vertices))
    keyframes = (np.asarray(times_s) - times_s[0]).astype(np.float32)
    times = glb.add(keyframes, bounds=True)
    for index, motion in enumerate(motions):
        _add_skinned_person(glb, motion, faces, indices, times, index)
    return glb.write(Path(path))


def _add_skinned_person(
    glb: _Glb, motion: BodyMotion, faces: Array, indices: int, times: int, index: int
) -> None:
    root = YUP_FROM_CAMERA @ motion.global_orient
    rotations = np.concatenate([root[:, None], motion.body_pose], axis=1)
    quaternions = _continuous_xyzw(rotations)
    positions = motion.pelvis @ YUP_FROM_CAMERA.T

    first = glb.add_skeleton(motion.rest_joints, quaternions[0], positions[0], f"person_{index}")
    bind = np.tile(np.eye(4, dtype=np.float32), (NUM_JOINTS, 1, 1))
    bind[:, :3, 3] = -motion.rest_joints
    skin = glb.append(
        "skins",
        {
            "inverseBindMatrices": glb.add(bind.transpose(0, 2, 1)),  # glTF: column after column
            "joints": list(range(first, first + NUM_JOINTS)),
            "skeleton": first,
        },
    )
    joints, weights = strongest_weights(motion.lbs_weights)
    attributes = glb.add_surface(motion.rest_vertices, faces)
    attributes["JOINTS_0"] = glb.add(joints, _ARRAY_BUFFER)
    attributes["WEIGHTS_0"] = glb.add(weights, _ARRAY_BUFFER)
    mesh = glb.add_mesh(f"person_{index}", attributes, indices, index)
    glb.add_root({"name": f"person_{index}_body", "mesh": mesh, "skin": skin})

    glb.animate(times, first, "translation", glb.add(positions.astype(np.float32)))
    for joint in range(NUM_JOINTS):
        glb.animate(times, first + joint, "rotation", glb.add(quaternions[:, joint]))


def strongest_weights(lbs_weights: Array) -> tuple[Array, Array]:
    """Each vertex's four strongest joints [V, 4] uint8 and their weights [V, 4], sum 1, float32."""
    joints = np.argsort(-lbs_weights, axis=1, kind="stable")[:, :_INFLUENCES]
    weights = np.take_along_axis(lbs_weights, joints, axis=1).astype(np.float32)
    weights /= weights.sum(1, keepdims=True)
    joints[weights == 0] = 0  # glTF: an unused slot names joint 0
    return joints.astype(np.uint8), weights


def _continuous_xyzw(rotations: Array) -> Array:
    """[T, 24, 3, 3] -> [T, 24, 4] float32 (x, y, z, w), each the neighbour of the one before.

    q and -q are one rotation, but a viewer that interpolates between them turns the long way round.
    """
    wxyz = rotmat_to_unitquat(rotations.astype(np.float64))
    dots = (wxyz[1:] * wxyz[:-1]).sum(-1)
    signs = np.cumprod(np.where(dots < 0, -1.0, 1.0), axis=0)
    wxyz[1:] *= signs[..., None]
    return np.ascontiguousarray(wxyz[..., [1, 2, 3, 0]], dtype=np.float32)


class _Glb:
    """A GLB under construction: the JSON tree and the binary block."""

    def __init__(self) -> None:
        self._binary = bytearray()
        self._roots: list[int] = []
        self._tree: Json = {
            "asset": {"version": "2.0", "generator": f"glnet-rt {__version__}"},
            "scene": 0,
            "scenes": [{"nodes": self._roots}],
        }

    def append(self, kind: str, item: Json) -> int:
        """Add to one of glTF's top-level lists; returns the new index."""
        items: list[Json] = self._tree.setdefault(kind, [])
        items.append(item)
        return len(items) - 1

    def add(self, array: Array, target: int | None = None, *, bounds: bool = False) -> int:
        """Store an array [N, ...] and return its accessor."""
        self._binary.extend(bytes(-len(self._binary) % 4))
        data = np.ascontiguousarray(array).tobytes()
        view: Json = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self._binary.extend(data)
        accessor: Json = {
            "bufferView": self.append("bufferViews", view),
            "componentType": _COMPONENT[array.dtype.name],
            "count": len(array),
            "type": _SHAPE[array.shape[1:]],
        }
        if bounds:
            accessor["min"] = np.atleast_1d(array.min(0)).tolist()
            accessor["max"] = np.atleast_1d(array.max(0)).tolist()
        return self.append("accessors", accessor)

    def add_faces(self, faces: Array, num_vertices: int) -> int:
        dtype = np.uint16 if num_vertices < 65535 else np.uint32  # 65535 is reserved
        return self.add(faces.astype(dtype).reshape(-1), _ELEMENT_ARRAY_BUFFER)

    def add_surface(self, vertices: Array, faces: Array) -> dict[str, int]:
        normals = vertex_normals(np.ascontiguousarray(vertices), faces)
        return {
            "POSITION": self.add(vertices, _ARRAY_BUFFER, bounds=True),
            "NORMAL": self.add(normals, _ARRAY_BUFFER),
        }

    def add_mesh(self, name: str, attributes: Mapping[str, int], faces: int, index: int) -> int:
        linear = [round((c / 255) ** 2.2, 4) for c in color_rgb(index)]
        surface = {"baseColorFactor": [*linear, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.8}
        material = self.append("materials", {"pbrMetallicRoughness": surface})
        primitive = {"attributes": dict(attributes), "indices": faces, "material": material}
        return self.append("meshes", {"name": name, "primitives": [primitive]})

    def add_root(self, node: Json) -> int:
        index = self.append("nodes", node)
        self._roots.append(index)
        return index

    def add_skeleton(self, rest: Array, quaternions: Array, pelvis: Array, name: str) -> int:
        """24 joint nodes in SMPL's tree, standing as in the first frame; returns the pelvis'."""
        first = len(self._tree.get("nodes", []))
        for joint, label in enumerate(SMPL_JOINTS):
            parent = SMPL_PARENTS[joint]
            offset = pelvis if parent < 0 else rest[joint] - rest[parent]
            children = [first + c for c, p in enumerate(SMPL_PARENTS) if p == joint]
            node: Json = {
                "name": f"{name}_{label}",
                "translation": [float(v) for v in offset],
                "rotation": [float(v) for v in quaternions[joint]],
            }
            if children:
                node["children"] = children
            if parent < 0:
                self.add_root(node)
            else:
                self.append("nodes", node)
        return first

    def animate(self, times: int, node: int, path: str, values: int) -> None:
        """Move one node's `translation` or `rotation`, linearly from keyframe to keyframe."""
        if "animations" not in self._tree:
            self.append("animations", {"name": "motion", "samplers": [], "channels": []})
        animation = self._tree["animations"][0]
        animation["samplers"].append({"input": times, "output": values, "interpolation": "LINEAR"})
        sampler = len(animation["samplers"]) - 1
        animation["channels"].append({"sampler": sampler, "target": {"node": node, "path": path}})

    def write(self, path: Path) -> Path:
        self._binary.extend(bytes(-len(self._binary) % 4))
        self._tree["buffers"] = [{"byteLength": len(self._binary)}]
        text = json.dumps(self._tree, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + 8 + len(self._binary)
        with open(path, "wb") as file:
            file.write(struct.pack("<3I", _MAGIC, 2, length))
            file.write(struct.pack("<2I", len(text), _CHUNK_JSON) + text)
            file.write(struct.pack("<2I", len(self._binary), _CHUNK_BIN) + self._binary)
        return path
