"""Dress a posed body: clothes stand off the skin, skirts and long hair follow the bones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numba as nb
import numpy as np

from glnet_rt.body_model import BodyModel, BodyOutput, forward_kinematics
from glnet_rt.contracts import Array
from glnet_rt.errors import ArtifactError
from glnet_rt.out.raster import vertex_normals
from glnet_rt.skeleton import NUM_JOINTS, SMPL_JOINTS
from train.synthetic.accessories import ACCESSORY_NAMES, accessory
from train.synthetic.appearance import Landmarks, Outfit
from train.synthetic.materials import HAIR, JACKET, SHIRT, SKIRT, TROUSERS, Cuts, material_at
from train.synthetic.noise import value_noise
from train.synthetic.shading import Mesh
from train.synthetic.things import Thing
from train.synthetic.view import bounds

GARMENTS_PATH = Path(__file__).parent / "garments.npz"
_INFLUENCES = 4


@dataclass(frozen=True, eq=False)
class Person:
    """A dressed body.

    Attributes:
        vertices: [V, 3] float32, camera orientation, relative to the pelvis, m. The body's own come
            first, then those of the extra meshes that are worn, then those of things.
        mesh: what the shading needs; `faces` are drawn from both sides where cloth is thin.
        own: how many of the vertices are body and clothes.
    """

    vertices: Array
    mesh: Mesh
    own: int

    @property
    def own_vertices(self) -> Array:
        """`vertices` without those of things."""
        return self.vertices[: self.own]


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

    @classmethod
    def on_head(cls, body: BodyModel, name: str) -> _Extra:
        """An accessory that goes where the nearest point of the mean head goes."""
        template, faces, material = accessory(name)
        away = template[:, None] - body.v_template[None]
        nearest = (away * away).sum(-1).argmin(1)
        joints = np.full((len(template), 1), SMPL_JOINTS.index("head"))
        return cls(
            template, np.ascontiguousarray(body.shapedirs[nearest]), joints,
            np.ones((len(template), 1), np.float32), faces, material,
        )  # fmt: skip

    def cut_below(self, height: float) -> _Extra:
        """The same garment with a hem at rest height `height`, m."""
        kept = (self.template[self.faces, 1] > height).any(1)
        template = self.template.copy()
        template[:, 1] = np.maximum(template[:, 1], height)
        return replace(self, template=template, faces=np.ascontiguousarray(self.faces[kept]))

    def as_coat(self, height: float, gap: float) -> _Extra:
        """The skirt as the lower part of a coat: wider, open in front by half-width `gap`, m."""
        long = self.cut_below(height)
        middle = long.template[long.faces].mean(1)
        front = (np.abs(middle[:, 0]) < gap) & (middle[:, 2] > 0)
        wide = long.template * np.array([1.08, 1.0, 1.14], np.float32)
        return replace(long, template=wide, faces=long.faces[~front], material=JACKET)

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
        self._accessories = {name: _Extra.on_head(body, name) for name in ACCESSORY_NAMES}
        rest_pose = np.broadcast_to(np.eye(3, dtype=np.float32), (1, NUM_JOINTS, 3, 3))
        rest = body(np.zeros((1, 0), np.float32), np.ascontiguousarray(rest_pose))
        self.landmarks = Landmarks.from_keypoints(body.keypoints(rest)[0])

    def dress(
        self, output: BodyOutput, betas: Array, maps: Array, outfit: Outfit,
        things: Sequence[Thing] = (),
    ) -> Person:  # fmt: skip
        """Clothe one posed body and give it its things.

        Args:
            output: of batch 1. betas: [10]. maps: [24, 3, 4] from `joint_maps`.
        """
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
        parts = _Parts(dressed, self.body.faces, rest)
        for extra in self._worn(outfit):
            parts.add_thin(extra.posed(betas, maps), extra.faces, extra.template, extra.material)
        own = parts.count
        for thing in things:
            parts.add_solid(thing)
        return parts.person(own)

    def _worn(self, outfit: Outfit) -> list[_Extra]:
        worn = []
        low, high = bounds(self._skirt.template)
        if outfit.skirt:
            worn.append(self._skirt.cut_below(high[1] - outfit.skirt_length * (high[1] - low[1])))
        if outfit.coat_length > 0:
            hem = high[1] - outfit.coat_length * (high[1] - low[1])
            worn.append(self._skirt.as_coat(hem, outfit.cuts.jacket_open))
        if outfit.long_hair:
            worn.append(self._hair.cut_below(outfit.hair_end))
        if outfit.accessory:
            worn.append(self._accessories[outfit.accessory])
        return worn

    def joint_maps(self, betas: Array, rotmats: Array) -> Array:
        """[24, 3, 4] float32: shaped rest point -> root-relative posed point, per joint."""
        rest = self.body.rest_skeleton(betas[None])[:, :NUM_JOINTS]
        world, joints = forward_kinematics(rotmats[None], rest)
        maps = np.empty((NUM_JOINTS, 3, 4), np.float32)
        maps[:, :, :3] = world[0]
        maps[:, :, 3] = joints[0] - joints[0, 0] - np.einsum("jab,jb->ja", world[0], rest[0])
        return maps


class _Parts:
    """Meshes on their way to become one."""

    def __init__(self, vertices: Array, faces: Array, rest: Array) -> None:
        self.vertices, self.rest = [vertices], [rest]
        self.outer, self.drawn = [faces], [faces]  # for normals, and with the backs of thin cloth
        self.layers = [np.full(len(faces), -1, np.int8)]
        self.count = len(vertices)

    def add_thin(self, vertices: Array, faces: Array, rest: Array, material: int) -> None:
        """A garment that is seen from both sides."""
        shifted = self._add(vertices, faces, rest)
        self.drawn += [shifted, shifted[:, ::-1]]
        self.layers.append(np.full(2 * len(shifted), material, np.int8))

    def add_solid(self, thing: Thing) -> None:
        """A closed thing, textured in its own frame."""
        self.drawn.append(self._add(thing.posed, thing.solid.faces, thing.solid.vertices))
        self.layers.append(thing.solid.material)

    def _add(self, vertices: Array, faces: Array, rest: Array) -> Array:
        shifted = faces + np.int32(self.count)
        self.vertices.append(vertices)
        self.rest.append(rest)
        self.outer.append(shifted)
        self.count += len(vertices)
        return shifted

    def person(self, own: int) -> Person:
        """All of it; the first `own` vertices are the person's."""
        if len(self.vertices) == 1:
            vertices, outer, drawn = self.vertices[0], self.outer[0], self.drawn[0]
            layers, rest = self.layers[0], self.rest[0]
        else:
            vertices, outer = np.concatenate(self.vertices), np.concatenate(self.outer)
            drawn, layers = np.concatenate(self.drawn), np.concatenate(self.layers)
            rest = np.concatenate(self.rest)
        normals = vertex_normals(vertices, outer)
        return Person(vertices, Mesh(drawn, layers, normals, rest), own)


@nb.njit(cache=True, nogil=True)
def _stand_off(
    skin: Array, normals: Array, rest: Array, cuts: Cuts, thickness: Array, out: Array
) -> None:
    """Push each vertex [V, 3] out along its normal by its material's thickness [M], unevenly."""
    for v in range(skin.shape[0]):
        x, y, z = rest[v, 0], rest[v, 1], rest[v, 2]
        material = material_at(x, y, z, cuts)
        away = thickness[material]
        if away > 0.0:
            away += _flare(material, x, y, cuts)
            away *= 0.6 + 0.8 * value_noise(x * 14, y * 9, z * 14, cuts.seed)
            if y > cuts.eye_y - 0.33:  # cloth rests on the shoulders
                beside = (abs(x) - cuts.shoulder_x) / 0.10
                away *= 1.0 - 0.75 * math.exp(-beside * beside)
        for k in range(3):
            out[v, k] = skin[v, k] + away * normals[v, k]


@nb.njit(cache=True, nogil=True)
def _flare(material: int, x: float, y: float, cuts: Cuts) -> float:
    """What loose cloth stands off besides its thickness, m: the more, the nearer to its end."""
    if material == TROUSERS:
        return cuts.trouser_flare * min(1.0, max(0.0, -y / 0.75)) ** 1.3
    if material != SHIRT and material != JACKET:
        return 0.0
    beside = abs(x) - cuts.shoulder_x
    if beside > 0.0:
        return cuts.sleeve_flare * min(1.0, beside / 0.45)
    return cuts.hem_flare * min(1.0, max(0.0, (0.35 - y) / 0.35))


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
