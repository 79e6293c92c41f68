"""Where the camera stands, what the image border cuts off, and which square becomes the picture.

The imaginary image is centred on the optical axis; its longer side is 1, so `focal` is the focal
length over that side and 24..120 mm of 36 mm film become 0.67..3.3. Camera frame: x right, y down,
z forward, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.skeleton import INDEX
from train.synthetic.anatomy import X, Y, Z, turn

Rng = np.random.Generator

BOX_MARGIN = 1.5  # side of the stored square over the longer side of the person's box
TRUNCATED_SHARE = 0.32
_FILM_MM = 36.0
_FOCAL_RANGE_MM = (24.0, 120.0)
_NEAREST_M = 0.30  # no part of the body comes nearer to the camera
_ASPECTS = ((4, 3), (3, 2), (16, 9), (1, 1), (3, 4), (2, 3), (9, 16))
_ASPECT_SHARES = (0.2, 0.2, 0.15, 0.1, 0.15, 0.12, 0.08)
# Height at which the image ends below: keypoint, its share, spread in metres.
_CUT_LEVELS = (
    ("spine2", 0.16, 0.05), ("spine1", 0.2, 0.04), ("left_hip", 0.28, 0.06),
    ("left_knee", 0.26, 0.14), ("left_ankle", 0.10, 0.06),
)  # fmt: skip


@nb.njit(cache=True, nogil=True)
def bounds(points: Array) -> tuple[Array, Array]:
    """Least and largest coordinates, [D] float64 each, of points [N, D]."""
    low = np.full(points.shape[1], np.inf)
    high = np.full(points.shape[1], -np.inf)
    for i in range(points.shape[0]):
        for k in range(points.shape[1]):
            low[k] = min(low[k], points[i, k])
            high[k] = max(high[k], points[i, k])
    return low, high


@dataclass(frozen=True, eq=False)
class Placement:
    """Pelvis and imaginary image.

    Attributes:
        translation: [3] m, the pelvis in the camera frame.
        focal: focal length over the longer side of the image.
        half_size: [2] half-width and half-height of the image; the longer one is 0.5.
    """

    translation: Array
    focal: float
    half_size: Array

    def project(self, points: Array) -> Array:
        """Root-relative camera-frame points [..., 3] m -> image coordinates [..., 2], axis at 0."""
        moved = points + self.translation
        projected: Array = self.focal * moved[..., :2] / moved[..., 2:]
        return projected

    def inside(self, xy: Array) -> Array:
        """[...] bool: image coordinates [..., 2] within the border."""
        x, y = np.abs(xy[..., 0]), np.abs(xy[..., 1])
        within: Array = (x <= self.half_size[0]) & (y <= self.half_size[1])
        return within


def sample_tilt(rng: Rng) -> Array:
    """[3, 3] camera-from-world rotation of a camera that faces -z of a world with y up.

    Cameras look down on people rather than up, now and then steeply.
    """
    pitch = rng.normal(4, 10)  # positive looks down
    if rng.random() < 0.10:
        pitch = rng.uniform(15, 60)
    roll = rng.normal(0, 3.5) if rng.random() < 0.8 else rng.normal(0, 14)
    return turn(Z, roll) @ turn(X, pitch) @ turn(X, 180.0)


def sample_yaw(rng: Rng) -> Array:
    """[3, 3] turn about the vertical; half of the people face the camera more or less."""
    return turn(Y, rng.normal(0, 40) if rng.random() < 0.5 else rng.uniform(-180, 180))


def place(rng: Rng, points: Array, keypoints: Array) -> Placement:
    """Choose lens, image format, distance and position, with or without cutting the person.

    Args:
        points: [N, 3] root-relative camera-frame vertices, m.
        keypoints: [36, 3] likewise.
    """
    low_mm, high_mm = np.log(_FOCAL_RANGE_MM)
    focal = float(np.exp(rng.uniform(low_mm, high_mm))) / _FILM_MM
    aspect = np.array(_ASPECTS[rng.choice(len(_ASPECTS), p=_ASPECT_SHARES)], np.float64)
    half = 0.5 * aspect / aspect.max()
    if rng.random() >= TRUNCATED_SHARE:
        return _place_whole(rng, points, focal, half)
    kind = rng.random()
    if kind < 0.74:
        return _cut_below(rng, points, _cut_level(rng, points, keypoints), focal, half)
    if kind < 0.82:
        return _cut_above(rng, points, keypoints, focal, half)
    return _cut_side(rng, points, focal, half)


def _place_whole(rng: Rng, points: Array, focal: float, half: Array) -> Placement:
    low, high = bounds(points)
    extent, middle = high[:2] - low[:2], (high[:2] + low[:2]) / 2
    share = float(np.exp(rng.uniform(np.log(0.2), np.log(0.95))))
    depth = max(focal * float((extent / (share * 2 * half)).max()), _NEAREST_M - float(low[2]))
    slack = np.maximum(half - focal * extent / depth / 2, 0.0)
    centre = rng.uniform(-1, 1, 2) * slack
    return Placement(np.array([*(centre * depth / focal - middle), depth]), focal, half)


def _cut_level(rng: Rng, points: Array, keypoints: Array) -> float:
    """The root-relative y, m, at which the lower image border runs."""
    low, high = (float(edge[1]) for edge in bounds(points))
    trunk = keypoints[INDEX["neck"]] - keypoints[INDEX["pelvis"]]
    upright = float(-trunk[1] / np.linalg.norm(trunk))
    name, _, spread = _CUT_LEVELS[rng.choice(len(_CUT_LEVELS), p=[c[1] for c in _CUT_LEVELS])]
    if upright < 0.6:
        return low + rng.uniform(0.45, 0.8) * (high - low)
    level = float(keypoints[INDEX[name], 1])
    if name.startswith("left_"):
        level = 0.5 * (level + float(keypoints[INDEX[name.replace("left", "right")], 1]))
    level += rng.normal(0, spread)
    return min(max(level, low + 0.3 * (high - low)), high - 0.02)


def _cut_below(rng: Rng, points: Array, level: float, focal: float, half: Array) -> Placement:
    """The lower border runs through the body; now and then a side border too."""
    low, high = bounds(points)
    share = rng.uniform(0.55, 1.0)
    kept = points[points[:, 1] < level]
    kept_low, kept_high = bounds(kept)
    width = float(kept_high[0] - kept_low[0])
    depth = focal * max((level - low[1]) / (share * 2 * half[1]), width / (1.1 * 2 * half[0]))
    depth = max(float(depth), _NEAREST_M - float(low[2]))
    y = half[1] * depth / focal - level
    middle = float(kept_high[0] + kept_low[0]) / 2
    slack = max(half[0] - focal * width / depth / 2, 0.0)
    x = rng.uniform(-1, 1) * slack * depth / focal - middle
    if rng.random() < 0.12:
        x = _side_offset(rng, low, high, depth, focal, half)
    return Placement(np.array([x, y, depth]), focal, half)


def _cut_above(rng: Rng, points: Array, keypoints: Array, focal: float, half: Array) -> Placement:
    """Legs and hips without a head."""
    low, high = bounds(points)
    level = float(keypoints[INDEX[("spine3", "spine1")[rng.integers(2)]], 1]) + rng.normal(0, 0.06)
    level = min(level, float(high[1]) - 0.4)
    share = rng.uniform(0.6, 1.0)
    depth = focal * max((high[1] - level) / (share * 2 * half[1]), (high[0] - low[0]) / half[0] / 2)
    depth = max(float(depth), _NEAREST_M - float(low[2]))
    y = -half[1] * depth / focal - level
    slack = max(half[0] - focal * (high[0] - low[0]) / depth / 2, 0.0)
    x = rng.uniform(-1, 1) * slack * depth / focal - (high[0] + low[0]) / 2
    return Placement(np.array([x, y, depth]), focal, half)


def _cut_side(rng: Rng, points: Array, focal: float, half: Array) -> Placement:
    whole = _place_whole(rng, points, focal, half)
    depth = float(whole.translation[2])
    x = _side_offset(rng, *bounds(points), depth, focal, half)
    return Placement(np.array([x, whole.translation[1], depth]), focal, half)


def _side_offset(
    rng: Rng, low: Array, high: Array, depth: float, focal: float, half: Array
) -> float:
    """The pelvis' x, m, that leaves 15 to 45 % of the body's width beyond a side border."""
    lost = rng.uniform(0.15, 0.45) * (high[0] - low[0])
    edge = half[0] * depth / focal
    if rng.random() < 0.5:
        return float(-edge - (low[0] + lost))
    return float(edge - (high[0] - lost))


@dataclass(frozen=True)
class Picture:
    """The stored square within the imaginary image: centre (image coordinates) and side."""

    centre: Array
    side: float

    @classmethod
    def around(cls, visible: Array) -> Picture:
        """From the image coordinates [N, 2] of everything seen of the person."""
        low, high = bounds(visible)
        return cls((low + high) / 2, BOX_MARGIN * float((high - low).max()))

    def uv(self, xy: Array) -> Array:
        """Image coordinates [..., 2] -> picture uv in [-0.5, 0.5]."""
        inside: Array = (xy - self.centre) / self.side
        return inside
