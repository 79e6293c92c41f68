"""Dress a posed body: clothes stand off the skin, skirts and long hair follow the bones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numba as nb
import numpy as np

from glnet_rt.body_model import BodyModel, BodyOutput, forward_kinematics
from glnet_rt.contracts import Array
from glnet_rt.errors import ArtifactError
from glnet_rt.out.raster import vertex_normals
from glnet_rt.skeleton import NUM_JOINTS
from train.synthetic.appearance import Landmarks, Outfit
from train.synthetic.materials import HAIR, SKIRT, Cuts, material_at
from train.synthetic.noise import value_noise
from train.synthetic.shading import Mesh
from train.synthetic.view import bounds

GARMENTS_PATH = Path(__file__).parent / "garments.npz"
_INFLUENCES = 4


@dataclass(frozen=True, eq=False)
class Person:
    """A dressed body.

    Attributes:
        vertices: [V, 3] float32, camera orientation, relative to the pelvis, m. The body's own come
            first, then those of the extra meshes that are worn.
        mesh: what the shading needs; `faces` are drawn from both sides where cloth is thin.
    """

    vertices: Array
    mesh: Mesh


@dataclass(frozen=True, eq=False)
class _Extra:
    """A garment mesh with weights and shape directions of its own, in the body's rest pose."""

    template: Array  # [V, 3] float32
    shapedirs: Array  # [V, 3, 10] float32
    joints: Array  # [V, 4] int64
    weights: Array  # [V, 4] float32
    faces: Array  # [F, 3] int32
    material: int

    @classmethod
    def load(cls, arrays: dict[str, Array], name: str, material: int) -> _Extra:
        weights = arrays[f"{name}_weights"].astype(np.float32)
        joints = np.argsort(-weights, axis=1, kind="stable")[:, :_INFLUENCES]
        kept = np.take_along_axis(weights, joints, axis=1)
        return cls(
            arrays[f"{name}_v"].astype(np.float32),
            arrays[f"{name}_shapedirs"].astype(np.float32),
            np.ascontiguousarray(joints),
            kept / kept.sum(1, keepdims=True),
            arrays[f"{name}_faces"].astype(np.int32),
            material,
        )

    def cut_below(self, height: float) -> _Extra:
        """The same garment with a hem at rest height `height`, m."""
        kept = (self.template[self.faces, 1] > height).any(1)
        template = self.template.copy()
        template[:, 1] = np.maximum(template[:, 1], height)
        return replace(self, template=template, faces=np.ascontiguousarray(self.faces[kept]))

    def posed(self, betas: Array, maps: Array) -> Array:
        """[V, 3] float32 for betas [10] and joint maps [24, 3, 4]."""
        shaped: Array = self.template + self.shapedirs @ betas[: self.shapedirs.shape[2]]
        return _skin(shaped, self.joints, self.weights, maps)


class Wardrobe:
    """A body and what can be put on it.

    Args:
        body: with `coco_regressor`, whose betas the garments share.
        garments: path of the `.npz` with the skirt and the long hair.
    """

    def __init__(self, body: BodyModel, garments: Path = GARMENTS_PATH) -> None:
        self.body = body
        if not garments.is_file():
            raise ArtifactError(
                "the garment file is missing", got=garments.name,
                expected="train/synthetic/garments.npz",
                fix="build it together with the body: python -m train.body",
            )  # fmt: skip
        with np.load(garments, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        self._skirt = _Extra.load(arrays, "skirt", SKIRT)
        self._hair = _Extra.load(arrays, "hair", HAIR)
        rest_pose = np.broadcast_to(np.eye(3, dtype=np.float32), (1, NUM_JOINTS, 3, 3))
        rest = body(np.zeros((1, 0), np.float32), np.ascontiguousarray(rest_pose))
        self.landmarks = Landmarks.from_keypoints(body.keypoints(rest)[0])

    def dress(self, output: BodyOutput, betas: Array, rotmats: Array, outfit: Outfit) -> Person:
        """Clothe one posed body (`output` of batch 1, betas [10], rotmats [24, 3, 3])."""
        skin = output.vertices[0] - output.joints[0, 0]
        rest = self.body.v_template
        dressed = np.empty_like(skin)
        _stand_off(
            skin,
            vertex_normals(skin, self.body.faces),
            rest,
            outfit.cuts,
            outfit.thickness,
            dressed,
        )
        extras = self._worn(outfit)
        if not extras:
            layer = np.full(len(self.body.faces), -1, np.int8)
            normals = vertex_normals(dressed, self.body.faces)
            return Person(dressed, Mesh(self.body.faces, layer, normals, rest))
        maps = self._joint_maps(betas, rotmats)
        posed = [extra.posed(betas, maps) for extra in extras]
        return _join(dressed, self.body.faces, rest, extras, posed)

    def _worn(self, outfit: Outfit) -> list[_Extra]:
        worn = []
        if outfit.skirt:
            low, high = bounds(self._skirt.template)
            worn.append(self._skirt.cut_below(high[1] - outfit.skirt_length * (high[1] - low[1])))
        if outfit.long_hair:
            worn.append(self._hair)
        return worn

    def _joint_maps(self, betas: Array, rotmats: Array) -> Array:
        """[24, 3, 4] float32: shaped rest point -> root-relative posed point, per joint."""
        rest = self.body.rest_skeleton(betas[None])[:, :NUM_JOINTS]
        world, joints = forward_kinematics(rotmats[None], rest)
        maps = np.empty((NUM_JOINTS, 3, 4), np.float32)
        maps[:, :, :3] = world[0]
        maps[:, :, 3] = joints[0] - joints[0, 0] - np.einsum("jab,jb->ja", world[0], rest[0])
        return maps


def _join(
    dressed: Array, faces: Array, rest: Array, extras: list[_Extra], posed: list[Array]
) -> Person:
    """One mesh of the body and thin two-sided extras."""
    all_vertices, all_rest, one_sided, drawn = [dressed], [rest], [faces], [faces]
    layers = [np.full(len(faces), -1, np.int8)]
    first = len(dressed)
    for extra, vertices in zip(extras, posed, strict=True):
        shifted = extra.faces + np.int32(first)
        one_sided.append(shifted)
        drawn += [shifted, shifted[:, ::-1]]
        layers.append(np.full(2 * len(shifted), extra.material, np.int8))
        all_vertices.append(vertices)
        all_rest.append(extra.template)
        first += len(vertices)
    vertices = np.concatenate(all_vertices)
    normals = vertex_normals(vertices, np.concatenate(one_sided))
    mesh = Mesh(np.concatenate(drawn), np.concatenate(layers), normals, np.concatenate(all_rest))
    return Person(vertices, mesh)


@nb.njit(cache=True, nogil=True)
def _stand_off(
    skin: Array, normals: Array, rest: Array, cuts: Cuts, thickness: Array, out: Array
) -> None:
    """Push each vertex [V, 3] out along its normal by its material's thickness [M], unevenly."""
    for v in range(skin.shape[0]):
        x, y, z = rest[v, 0], rest[v, 1], rest[v, 2]
        away = thickness[material_at(x, y, z, cuts)]
        if away > 0.0:
            away *= 0.6 + 0.8 * value_noise(x * 14, y * 9, z * 14, cuts.seed)
            if y > cuts.eye_y - 0.33:  # cloth rests on the shoulders
                beside = (abs(x) - cuts.shoulder_x) / 0.10
                away *= 1.0 - 0.75 * math.exp(-beside * beside)
        for k in range(3):
            out[v, k] = skin[v, k] + away * normals[v, k]


@nb.njit(cache=True, nogil=True)
def _skin(shaped: Array, joints: Array, weights: Array, maps: Array) -> Array:
    """[V, 3] shaped rest points, [V, 4] joints and weights, [24, 3, 4] maps -> [V, 3] posed."""
    out = np.zeros(shaped.shape, np.float32)
    for v in range(shaped.shape[0]):
        for i in range(joints.shape[1]):
            w, m = weights[v, i], maps[joints[v, i]]
            for k in range(3):
                out[v, k] += w * (
                    m[k, 0] * shaped[v, 0]
                    + m[k, 1] * shaped[v, 1]
                    + m[k, 2] * shaped[v, 2]
                    + m[k, 3]
                )
    return out
