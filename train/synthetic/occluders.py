"""Things between the camera and the person: flat shapes with a position in the imaginary image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glnet_rt.contracts import Array
from train.synthetic.background import paint_fill, paste_photograph
from train.synthetic.view import Picture, bounds

Rng = np.random.Generator

OCCLUDED_SHARE = 0.35
_MOST_HIDDEN = 0.55  # an occluder that hides more of the person is left out
_FILLS = (0, 1, 4)  # gradient, clouds, blocks


@dataclass(frozen=True, eq=False)
class Occluder:
    """A turned rectangle or ellipse in image coordinates.

    Attributes:
        centre, half: [2] in image coordinates (the image's longer side is 1).
        angle: radians.
        ellipse: an ellipse rather than a rectangle.
    """

    centre: Array
    half: Array
    angle: float
    ellipse: bool

    def covers(self, xy: Array) -> Array:
        """[...] bool for image coordinates [..., 2]."""
        dx, dy = xy[..., 0] - self.centre[0], xy[..., 1] - self.centre[1]
        c, s = np.cos(self.angle), np.sin(self.angle)
        u, v = (c * dx + s * dy) / self.half[0], (-s * dx + c * dy) / self.half[1]
        inside: Array = u * u + v * v < 1 if self.ellipse else (abs(u) < 1) & (abs(v) < 1)
        return inside


def sample_occluders(rng: Rng, seen: Array) -> list[Occluder]:
    """None, one or two occluders near the person's visible points `seen` [N, 2] (image plane).

    What would hide too much is left out, so `seen` never becomes empty.
    """
    chosen: list[Occluder] = []
    if rng.random() >= OCCLUDED_SHARE:
        return chosen
    low, high = bounds(seen)
    hidden = np.zeros(len(seen), bool)
    for _ in range(1 + int(rng.random() < 0.3)):
        occluder = _sample_one(rng, low, high)
        covered = hidden | occluder.covers(seen)
        if covered.mean() < _MOST_HIDDEN:
            hidden = covered
            chosen.append(occluder)
    return chosen


def _sample_one(rng: Rng, low: Array, high: Array) -> Occluder:
    size, longest = high - low, float((high - low).max())
    centre = low + rng.uniform(0, 1, 2) * size
    kind = rng.random()
    if kind < 0.22:  # a table, wall or car: everything below
        top = low[1] + rng.uniform(0.45, 0.9) * size[1]
        half = np.array([rng.uniform(0.6, 2.0) * longest, 1.5 * longest])
        centre = np.array([centre[0], top + half[1]])
        return Occluder(centre, half, float(rng.normal(0, 0.05)), False)
    if kind < 0.36:  # a pole or a tree
        half = np.array([rng.uniform(0.02, 0.08), 2.0]) * longest
        return Occluder(centre, half, float(rng.normal(0, 0.12)), False)
    half = rng.uniform(0.05, 0.24, 2) * longest
    return Occluder(centre, half, float(rng.uniform(0, np.pi)), bool(rng.random() < 0.5))


def paint_occluders(
    rng: Rng, occluders: list[Occluder], picture: Picture, photographs: tuple[Array, ...],
    rgb: Array, mask: Array,
) -> Array:  # fmt: skip
    """Draw over rgb [R, R, 3] sRGB and clear mask [R, R] bool there; returns what is covered."""
    size = rgb.shape[0]
    covered = np.zeros((size, size), bool)
    if not occluders:
        return covered
    line = (np.arange(size) + 0.5) / size - 0.5
    uv = np.stack(np.broadcast_arrays(line[None, :], line[:, None]), -1)
    xy = picture.centre + picture.side * uv
    patch = np.empty_like(rgb)
    for occluder in occluders:
        if photographs and rng.random() < 0.25:
            paste_photograph(rng, photographs, patch)
        else:
            paint_fill(rng, _FILLS[rng.integers(len(_FILLS))], patch)
        patch *= np.float32(rng.uniform(0.5, 1.05))
        here = occluder.covers(xy)
        np.copyto(rgb, patch, where=here[..., None])
        covered |= here
    mask &= ~covered
    return covered
