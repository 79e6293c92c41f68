"""Bodies drawn over the picture they were recovered from, in full-image pixels.

Letters: N people, V vertices each, F faces each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numba as nb
import numpy as np

from glnet_rt.contracts import Array, Person, Result, check_array, check_image
from glnet_rt.errors import ContractError
from glnet_rt.out.raster import NEAR_M, rasterize, vertex_normals
from glnet_rt.out.scene import color_rgb, shared_depth_shift
from glnet_rt.skeleton import KEYPOINTS, NUM_SKELETON, PARENTS

# Drawn in bands of rows, so that a 24-megapixel photo does not need 400 MB of buffers.
MAX_BAND_PX = 1 << 21
FAR_PX = 1e7  # corners farther out than this are pulled in: beyond any picture, and safe as an int

# Direction towards the light, camera frame: from above, a little from the left, from the camera.
_LIGHT = np.array([-0.36, -0.6, -0.714], np.float32)
# Brightness: light from all round, the lamp's share, and the share of light from the camera. As
# float32, like everything in the kernel: plain literals would turn its arithmetic into float64.
_AMBIENT, _LAMP, _CAMERA = np.float32(0.35), np.float32(0.5), np.float32(0.25)
_ZERO, _HALF, _ONE, _WHITE = (np.float32(v) for v in (0, 0.5, 1, 255))


class OverlayRenderer:
    """Draws results over their frames. Keep one for a video: its buffers are used again.

    Args:
        alpha: opacity of the bodies, 0 (invisible) to 1 (solid).
        skeleton: whether to draw the network's own 2D keypoints and bones on top.
    """

    def __init__(self, *, alpha: float = 0.6, skeleton: bool = False) -> None:
        if not 0.0 <= alpha <= 1.0:
            raise ContractError(
                "alpha is out of range",
                got=alpha,
                expected="0 <= alpha <= 1",
                fix="0 is invisible, 1 is solid",
            )
        self._alpha: Any = np.float32(alpha)  # the type the kernel is compiled for
        self._skeleton = skeleton
        self._pixels = 0
        self._zbuffer = np.empty(0, np.float32)
        self._face_id = np.empty(0, np.int32)
        self._bary = np.empty(0, np.float32)

    def draw(self, image: Array, result: Result) -> Array:
        """Everyone of `result` on a copy of `image`; of two people the nearer hides the farther.

        Args:
            image: [H, W, 3] uint8 BGR, the frame the result came from.
            result: in whose people nothing may be NaN.

        Returns:
            [H, W, 3] uint8 BGR, a new array.

        Raises:
            ContractError: the image is none, has another size than the result, or a body is not
                finite.
        """
        check_image(image)
        size = (image.shape[1], image.shape[0])
        if size != tuple(result.image_size):
            raise ContractError(
                "the image is not the one this result came from",
                got=f"{size[0]} x {size[1]} px",
                expected=f"{result.image_size[0]} x {result.image_size[1]} px",
                fix="draw on the frame that was handed to the estimator, before resizing it",
            )
        out = image.copy()
        if result.people and self._alpha > 0:
            self._draw_bodies(out, result)
        if self._skeleton:
            for index, person in enumerate(result.people):
                draw_skeleton(out, person, color_rgb(index)[::-1])
        return out

    def _draw_bodies(self, out: Array, result: Result) -> None:
        shifts = shared_depth_shift(result.people)
        xy_px, depth, seen = _to_screen(result.people, shifts)
        left, top, right, bottom = _visible_box(seen, result.image_size)
        if left >= right or top >= bottom:
            return
        offsets = np.cumsum([0] + [len(p.vertices) for p in result.people[:-1]], dtype=np.int32)
        faces = np.concatenate([result.faces + offset for offset in offsets])
        normals = np.concatenate(
            [vertex_normals(np.ascontiguousarray(p.vertices), result.faces) for p in result.people]
        )
        colors = np.array(
            [color_rgb(i)[::-1] for i in range(len(result.people))], np.float32
        )  # BGR
        rows = max(1, MAX_BAND_PX // (right - left))
        for y in range(top, bottom, rows):
            zbuffer, face_id, bary = self._buffers(min(rows, bottom - y), right - left)
            origin = np.array([left, y], np.float32)
            rasterize(faces, xy_px - origin, depth, zbuffer, face_id, bary)
            _shade(face_id, bary, faces, normals, colors, self._alpha, out, left, y)

    def _buffers(self, height: int, width: int) -> tuple[Array, Array, Array]:
        """Cleared [H, W] views of the buffers, which grow where they are too small."""
        pixels = height * width
        if pixels > self._pixels:
            self._pixels = pixels
            self._zbuffer = np.empty(pixels, np.float32)
            self._face_id = np.empty(pixels, np.int32)
            self._bary = np.empty(pixels * 2, np.float32)
        zbuffer = self._zbuffer[:pixels].reshape(height, width)
        face_id = self._face_id[:pixels].reshape(height, width)
        zbuffer.fill(0.0)
        face_id.fill(-1)
        return zbuffer, face_id, self._bary[: 2 * pixels].reshape(height, width, 2)


def draw_overlay(image: Array, result: Result, *, alpha: float = 0.6) -> Array:
    """`result` drawn over a copy of `image`; for many frames keep an `OverlayRenderer` instead.

    Raises:
        ContractError: see `OverlayRenderer.draw`.
    """
    return OverlayRenderer(alpha=alpha).draw(image, result)


def draw_skeleton(image: Array, person: Person, color_bgr: tuple[int, int, int]) -> None:
    """Draw the network's own 2D keypoints and the bones between them, in place.

    Args:
        image: [H, W, 3] uint8 BGR.
        person: its `keypoints_px` are drawn.
        color_bgr: of the bones.
    """
    height, width = image.shape[:2]
    thick = max(1, round(max(height, width) / 400))
    points = np.clip(person.keypoints_px, -FAR_PX, FAR_PX)
    shift = 3  # cv2 takes fixed-point coordinates: eighths of a pixel
    corners = [tuple(int(v) for v in np.rint(p * (1 << shift))) for p in points]
    for child in range(1, NUM_SKELETON):
        ends = corners[PARENTS[child]], corners[child]
        cv2.line(image, *ends, (0, 0, 0), 2 * thick, cv2.LINE_AA, shift)
        cv2.line(image, *ends, color_bgr, thick, cv2.LINE_AA, shift)
    for index in range(len(KEYPOINTS)):
        fill = color_bgr if index < NUM_SKELETON else (255, 255, 255)
        cv2.circle(image, corners[index], (2 * thick) << shift, fill, -1, cv2.LINE_AA, shift)


def _to_screen(people: Sequence[Person], shifts: Array) -> tuple[Array, Array, Array]:
    """Where everyone's vertices are seen.

    Returns:
        xy_px: [N * V, 2] float32, image px.
        depth: [N * V] float32, m, 0 where behind or too near the camera.
        seen: [4] float64: left, top, right and bottom of those that are neither, px; the left is
            right of the right where none is.
    """
    count = len(people[0].vertices)
    xy_px = np.empty((len(people) * count, 2), np.float32)
    depth = np.empty(len(people) * count, np.float32)
    seen = np.array([np.inf, np.inf, -np.inf, -np.inf])
    for i, (person, shift) in enumerate(zip(people, shifts, strict=True)):
        check_array("person.vertices", person.vertices, (count, 3), np.float32, finite=True)
        own = slice(i * count, (i + 1) * count)
        vertices, K = np.ascontiguousarray(person.vertices), np.ascontiguousarray(person.K)
        _project_all(vertices, K, shift, xy_px[own], depth[own], seen)
    return xy_px, depth, seen


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _project_all(
    vertices: Array, K: Array, shift: float, xy_px: Array, depth: Array, seen: Array
) -> None:
    """`camera.project` in one pass, with all that drawing needs besides: see `_to_screen`."""
    for v in range(len(vertices)):
        x, y, z = float(vertices[v, 0]), float(vertices[v, 1]), float(vertices[v, 2])
        near = z < NEAR_M
        z = max(z, NEAR_M)
        w = K[2, 0] * x + K[2, 1] * y + K[2, 2] * z
        column = min(max((K[0, 0] * x + K[0, 1] * y + K[0, 2] * z) / w, -FAR_PX), FAR_PX)
        row = min(max((K[1, 0] * x + K[1, 1] * y + K[1, 2] * z) / w, -FAR_PX), FAR_PX)
        xy_px[v, 0], xy_px[v, 1] = column, row
        depth[v] = 0.0 if near else z + shift
        if not near:
            seen[0], seen[1] = min(seen[0], column), min(seen[1], row)
            seen[2], seen[3] = max(seen[2], column), max(seen[3], row)


def _visible_box(seen: Array, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pixels that the bodies can touch: left, top, right, bottom, the last two exclusive."""
    if seen[0] > seen[2]:
        return 0, 0, 0, 0
    low = np.maximum(np.ceil(seen[:2]), 0)
    high = np.minimum(np.floor(seen[2:]) + 1, size)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


@nb.njit(cache=True, nogil=True, fastmath={"contract", "arcp", "nsz"})
def _shade(
    face_id: Array,
    bary: Array,
    faces: Array,
    normals: Array,
    colors: Array,
    alpha: float,
    image: Array,
    left: int,
    top: int,
) -> None:
    """Blend what `rasterize` found into the image: soft light from all round and one lamp.

    Args:
        face_id, bary: [h, w] int32 and [h, w, 2] float32, as `rasterize` leaves them.
        faces: [N * F, 3] int32, person after person.
        normals: [N * V, 3] float32, unit, camera frame.
        colors: [N, 3] float32, 0..255, in the image's channel order.
        alpha: float32, opacity, 0..1.
        image: [H, W, 3] uint8, in and out.
        left, top: where in the image the buffers' first pixel lies.
    """
    faces_per_person = len(faces) // len(colors)
    for y in range(face_id.shape[0]):
        for x in range(face_id.shape[1]):
            f = face_id[y, x]
            if f < 0:
                continue
            w1 = bary[y, x, 0]
            w2 = bary[y, x, 1]
            w0 = _ONE - w1 - w2
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            nx = w0 * normals[a, 0] + w1 * normals[b, 0] + w2 * normals[c, 0]
            ny = w0 * normals[a, 1] + w1 * normals[b, 1] + w2 * normals[c, 1]
            nz = w0 * normals[a, 2] + w1 * normals[b, 2] + w2 * normals[c, 2]
            lamp = nx * _LIGHT[0] + ny * _LIGHT[1] + nz * _LIGHT[2]
            norm = math.sqrt(nx * nx + ny * ny + nz * nz)
            if norm > _ZERO:
                lamp /= norm
                nz /= norm
            brightness = _AMBIENT + _LAMP * max(_ZERO, lamp) + _CAMERA * max(_ZERO, -nz)
            person = f // faces_per_person
            for k in range(3):
                shaded = min(_WHITE, colors[person, k] * brightness)
                old = np.float32(image[top + y, left + x, k])
                image[top + y, left + x, k] = np.uint8(old + alpha * (shaded - old) + _HALF)
