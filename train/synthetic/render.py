"""Draw a dressed person into a layer: z-buffer, shadow map, shading; find what is hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.out.raster import rasterize
from glnet_rt.skeleton import KEYPOINTS
from train.synthetic.appearance import Outfit
from train.synthetic.materials import FIRST_THING
from train.synthetic.people import Person
from train.synthetic.shading import (
    SHADOW_MAP_DEPTH_M,
    SHADOW_MAP_SIZE,
    SUPERSAMPLING,
    Buffers,
    Lens,
    Lights,
    Shadow,
    shade_layer,
    surface_map,
)
from train.synthetic.view import bounds

# How deep under the visible surface a keypoint may lie and still count as seen, m: about the radius
# of the limb around it. Face points lie on the surface.
_DEPTH_TOLERANCE_M = {
    "pelvis": 0.18, "left_hip": 0.16, "right_hip": 0.16, "spine1": 0.18, "spine2": 0.18,
    "spine3": 0.18, "left_knee": 0.10, "right_knee": 0.10, "left_ankle": 0.09, "right_ankle": 0.09,
    "left_foot": 0.09, "right_foot": 0.09, "neck": 0.12, "left_collar": 0.15, "right_collar": 0.15,
    "head": 0.15, "left_shoulder": 0.11, "right_shoulder": 0.11, "left_coco_hip": 0.13,
    "right_coco_hip": 0.13, "head_top": 0.09, "nose": 0.04, "left_eye": 0.035, "right_eye": 0.035,
    "left_ear": 0.05, "right_ear": 0.05,
}  # fmt: skip
_TOLERANCE = np.array([_DEPTH_TOLERANCE_M.get(name, 0.075) for name in KEYPOINTS])


@dataclass(frozen=True, eq=False)
class Layer:
    """A rendered person.

    Attributes:
        rgb: [R, R, 3] float32 sRGB, already times alpha.
        alpha: [R, R] float32 coverage. own: the same without the person's things.
        zbuffer: [2R, 2R] float32, 1 / depth in m; 0 where there is nobody.
        face_id: [2R, 2R] int32, which face is seen; without meaning where nobody is.
        material: [F] int8, `Mesh.layer`.
    """

    rgb: Array
    alpha: Array
    own: Array
    zbuffer: Array
    face_id: Array
    material: Array


class Canvas:
    """Buffers of one picture size, used again and again; the latest `Layer` shares them."""

    def __init__(self, size: int) -> None:
        self.size = size
        fine = SUPERSAMPLING * size
        self._buffers = Buffers(
            np.zeros((fine, fine), np.float32),
            np.zeros((fine, fine), np.int32),
            np.zeros((fine, fine, 2), np.float32),
        )
        self._shadow = Buffers(
            np.zeros((SHADOW_MAP_SIZE, SHADOW_MAP_SIZE), np.float32),
            np.zeros((SHADOW_MAP_SIZE, SHADOW_MAP_SIZE), np.int32),
            np.zeros((SHADOW_MAP_SIZE, SHADOW_MAP_SIZE, 2), np.float32),
        )
        self._rgb = np.zeros((size, size, 3), np.float32)
        self._alpha = np.zeros((size, size), np.float32)
        self._own = np.zeros((size, size), np.float32)

    def shadow(self, vertices: Array, faces: Array, lights: Lights, strength: float) -> Shadow:
        """What light 0 sees of camera-frame vertices [V, 3] m."""
        buffers = self._shadow
        buffers.zbuffer.fill(0.0)
        if strength <= 0.0:
            return Shadow(buffers.zbuffer, np.zeros((3, 4), np.float32), 0.0)
        toward = lights.direction[0].astype(np.float64)
        helper = np.eye(3)[int(np.abs(toward).argmin())]
        across = np.cross(helper, toward)
        across /= np.linalg.norm(across)
        axes = np.stack([across, np.cross(-toward, across), -toward])
        low, high = bounds(vertices)
        centre, radius = (low + high) / 2, 0.5 * float(np.linalg.norm(high - low))
        scale = np.array([0.48 * SHADOW_MAP_SIZE / radius] * 2 + [1.0])
        offset = np.array([SHADOW_MAP_SIZE / 2, SHADOW_MAP_SIZE / 2, SHADOW_MAP_DEPTH_M])
        matrix = np.empty((3, 4), np.float32)
        matrix[:, :3] = axes * scale[:, None]
        matrix[:, 3] = offset - (axes * scale[:, None]) @ centre
        seen = vertices @ matrix[:, :3].T + matrix[:, 3]
        rasterize(
            faces, np.ascontiguousarray(seen[:, :2]), np.ascontiguousarray(seen[:, 2]), *buffers
        )
        return Shadow(buffers.zbuffer, matrix, float(strength))

    def draw(
        self, person: Person, vertices: Array, outfit: Outfit, lights: Lights, lens: Lens,
        shadow: Shadow,
    ) -> Layer:  # fmt: skip
        """Render `person` with camera-frame vertices [V, 3] float32 m."""
        buffers = self._buffers
        buffers.zbuffer.fill(0.0)
        fine = buffers.zbuffer.shape[0]
        xy = np.empty((len(vertices), 2), np.float32)
        depth = np.ascontiguousarray(vertices[:, 2])
        xy[:, 0] = (lens.focal * vertices[:, 0] / depth + lens.principal_u + 0.5) * fine - 0.5
        xy[:, 1] = (lens.focal * vertices[:, 1] / depth + lens.principal_v + 0.5) * fine - 0.5
        rasterize(person.mesh.faces, xy, depth, *buffers)
        shade_layer(
            person.mesh, buffers, outfit.cuts, outfit.cloth, lights, lens, shadow,
            self._rgb, self._alpha, self._own,
        )  # fmt: skip
        return Layer(
            self._rgb, self._alpha, self._own, buffers.zbuffer, buffers.face_id, person.mesh.layer
        )

    def surface(self, person: Person, mask: Array, pelvis_z: float) -> Array:
        """`surface_map` [R/4, R/4, 4] int8 of the person drawn last, where `mask` [R, R] holds."""
        out = np.empty((self.size // 4, self.size // 4, 4), np.int8)
        surface_map(person.mesh, self._buffers, mask, pelvis_z, out)
        return out


def seen_keypoints(uv: Array, depth: Array, zbuffer: Array) -> Array:
    """[36] bool: which keypoints no part of the person hides.

    Args:
        uv: [36, 2] in the picture; those outside count as seen.
        depth: [36] m along the optical axis.
        zbuffer: [H, W] float32, 1 / depth.
    """
    return ~hidden_behind(uv, depth - _TOLERANCE, zbuffer)


def hidden_by_things(uv: Array, depth: Array, layer: Layer) -> Array:
    """[N] bool: points at uv [N, 2] and `depth` [N] m with one of the person's things before them.

    A thing is not flesh around the keypoint: it hides whatever lies behind it, however near.
    """
    x, y, inside = _cells(uv, layer.zbuffer.shape[0])
    face = np.where(layer.zbuffer[y, x] > 0, layer.face_id[y, x], 0)
    hidden: Array = hidden_behind(uv, depth, layer.zbuffer)
    return hidden & inside & (layer.material[face] >= FIRST_THING)


def hidden_behind(uv: Array, depth: Array, zbuffer: Array) -> Array:
    """[N] bool: points at uv [N, 2] and `depth` [N] m with something nearer in `zbuffer` [H, W]."""
    x, y, inside = _cells(uv, zbuffer.shape[0])
    hidden: Array = inside & (zbuffer[y, x] * depth > 1.0)
    return hidden


def _cells(uv: Array, size: int) -> tuple[Array, Array, Array]:
    """Column and row of the sample at each uv [N, 2], and whether the picture has it."""
    cell = np.floor((uv + 0.5) * size).astype(int)
    inside: Array = ((cell >= 0) & (cell < size)).all(1)
    cell = np.clip(cell, 0, size - 1)
    return cell[:, 0], cell[:, 1], inside
