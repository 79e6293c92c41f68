"""Simple closed solids, from which everything that people wear and hold is put together.

A solid lives in a frame of its own, metres. Corners that should look sharp are separate vertices,
because normals are averaged over the faces around a vertex.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from glnet_rt.contracts import Array


class Solid(NamedTuple):
    """vertices [V, 3] float32, m; faces [F, 3] int32, outward; material [F] int8."""

    vertices: Array
    faces: Array
    material: Array


def join(*solids: Solid) -> Solid:
    """One solid of several."""
    starts = np.cumsum([0] + [len(solid.vertices) for solid in solids])
    faces = [s.faces + np.int32(start) for s, start in zip(solids, starts[:-1], strict=True)]
    return Solid(
        np.concatenate([solid.vertices for solid in solids]),
        np.concatenate(faces),
        np.concatenate([solid.material for solid in solids]),
    )


def box(centre: Array, half: Array, material: int, axes: Array | None = None) -> Solid:
    """A box with half-sides [3] along the rows of `axes` [3, 3] (default: the frame's own)."""
    corners, faces = _unit_box()
    sides = np.diag(half) if axes is None else np.asarray(half)[:, None] * axes
    return _solid(corners @ sides + centre, faces, material)


def ball(centre: Array, radii: Array, material: int) -> Solid:
    """An ellipsoid with radii [3] along the frame's axes."""
    points, faces = _unit_ball()
    return _solid(points * np.asarray(radii) + centre, faces, material)


def rod(
    start: Array, end: Array, radius: float, material: int, end_radius: float | None = None,
    sides: int = 8,
) -> Solid:  # fmt: skip
    """A round bar between two points; a cone where its ends differ, a disc where it is short."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    across, other = _across(end - start)
    circle, faces = _unit_rod(sides)
    radii = np.repeat([radius, radius if end_radius is None else end_radius], sides)
    rim = (circle[:, :1] * across + circle[:, 1:] * other) * radii[:, None]
    rim[:sides] += start
    rim[sides:] += end
    return _solid(np.concatenate([rim, rim]), faces, material)


def bars(points: Array, radius: float, material: int, sides: int = 6) -> Solid:
    """Rods along a polyline [N, 3]."""
    pairs = itertools.pairwise(points)
    return join(*(rod(a, b, radius, material, sides=sides) for a, b in pairs))


def ring(
    centre: Array, across: Array, other: Array, radius: float, thickness: float, material: int
) -> Solid:
    """A torus around `centre` in the plane of two unit vectors."""
    circle, faces = _unit_ring()
    normal = np.cross(across, other)
    reach = radius + thickness * circle[:, 2]
    points = (circle[:, :1] * across + circle[:, 1:2] * other) * reach[:, None]
    return _solid(points + thickness * circle[:, 3:] * normal + centre, faces, material)


def dome(top: Array, axis: Array, radius: float, height: float, material: int) -> Solid:
    """A thin shell below `top`, seen from both sides: an umbrella's cloth."""
    across, other = _across(axis)
    angles = np.arange(10) * (math.tau / 10)
    rings = [np.asarray(top, np.float64)[None]]
    for share in (0.5, 1.0):
        circle = np.cos(angles)[:, None] * across + np.sin(angles)[:, None] * other
        rings.append(top - axis * height * share**2 + circle * radius * share)
    faces = [[0, 1 + i, 1 + (i + 1) % 10] for i in range(10)]
    for i in range(10):
        a, b = 1 + i, 1 + (i + 1) % 10
        faces += [[a, a + 10, b + 10], [a, b + 10, b]]
    above = np.array(faces, np.int32)
    points = np.concatenate(rings)
    both = np.concatenate([above, above[:, ::-1] + len(points)])
    return _solid(np.concatenate([points, points]), both, material)


def _solid(vertices: Array, faces: Array, material: int) -> Solid:
    return Solid(vertices.astype(np.float32), faces, np.full(len(faces), material, np.int8))


def _across(axis: Array) -> tuple[Array, Array]:
    """Two unit vectors that make a right-handed frame with `axis` as the third."""
    # In plain floats: NumPy's cross products would cost more than all the rest of a rod.
    x, y, z = (float(v) for v in axis)
    length = math.hypot(x, y, z)
    x, y, z = x / length, y / length, z / length
    if abs(z) < 0.9:  # across = z axis x along
        side = math.hypot(x, y)
        a, b, c = -y / side, x / side, 0.0
    else:  # across = x axis x along
        side = math.hypot(y, z)
        a, b, c = 0.0, -z / side, y / side
    return np.array([a, b, c]), np.array([y * c - z * b, z * a - x * c, x * b - y * a])


@lru_cache(maxsize=1)
def _unit_box() -> tuple[Array, Array]:
    corners, faces = [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            first = len(corners)
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                corner = np.empty(3)
                corner[axis], corner[(axis + 1) % 3], corner[(axis + 2) % 3] = sign, a, b
                corners.append(corner)
            order = (0, 1, 2, 3) if sign > 0 else (3, 2, 1, 0)
            quad = [first + k for k in order]
            faces += [[quad[0], quad[1], quad[2]], [quad[0], quad[2], quad[3]]]
    return np.array(corners), np.array(faces, np.int32)


@lru_cache(maxsize=1)
def _unit_ball(sides: int = 12, rows: int = 8) -> tuple[Array, Array]:
    points, faces = [[0.0, 0.0, -1.0]], []
    for row in range(1, rows):
        up = -math.cos(math.pi * row / rows)
        out = math.sin(math.pi * row / rows)
        for k in range(sides):
            angle = math.tau * k / sides
            points.append([out * math.cos(angle), out * math.sin(angle), up])
    points.append([0.0, 0.0, 1.0])
    last = len(points) - 1
    for k in range(sides):
        following = (k + 1) % sides
        faces.append([0, 1 + following, 1 + k])
        faces.append([last, last - sides + k, last - sides + following])
        for row in range(rows - 2):
            a, b = 1 + row * sides + k, 1 + row * sides + following
            faces += [[a, b, b + sides], [a, b + sides, a + sides]]
    return np.array(points), np.array(faces, np.int32)


@lru_cache(maxsize=4)
def _unit_rod(sides: int) -> tuple[Array, Array]:
    """Circle [2 * sides, 2] of both ends, and the faces of walls and caps."""
    angles = np.arange(sides) * (math.tau / sides)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    faces = []
    for k in range(sides):
        b = (k + 1) % sides
        faces += [[k, b, sides + b], [k, sides + b, sides + k]]
    cap = 2 * sides
    for k in range(1, sides - 1):
        faces.append([cap, cap + k + 1, cap + k])
        faces.append([cap + sides, cap + sides + k, cap + sides + k + 1])
    return np.concatenate([circle, circle]), np.array(faces, np.int32)


@lru_cache(maxsize=1)
def _unit_ring(sides: int = 20, around: int = 5) -> tuple[Array, Array]:
    """[sides * around, 4]: cos, sin of the large circle, then of the small one."""
    rows, faces = [], []
    for i in range(sides):
        for k in range(around):
            a, b = math.tau * i / sides, math.tau * k / around
            rows.append([math.cos(a), math.sin(a), math.cos(b), math.sin(b)])
            right, up = ((i + 1) % sides) * around, (k + 1) % around
            corners = (i * around + k, right + k, right + up, i * around + up)
            faces += [[corners[0], corners[1], corners[2]], [corners[0], corners[2], corners[3]]]
    return np.array(rows), np.array(faces, np.int32)
