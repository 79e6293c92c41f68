"""Numba kernels that paint what stands behind people: a room, open ground, and flat fills.

The room is traced ray by ray in a frame of its own whose axes are `out` (from the back wall
towards the camera), `up` and `side`; the camera is at its origin. Colours are linear light, as in
`shading`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba as nb
import numpy as np

from glnet_rt.contracts import Array
from train.synthetic.noise import lattice, plane_noise
from train.synthetic.shading import Lens, Lights, Shadow, shadow_at

_JIT = {"cache": True, "nogil": True, "fastmath": {"contract", "arcp", "nsz", "afn"}}

TEXTURE_NAMES = (
    "bare", "planks", "tiles", "grain", "bricks", "paper", "court", "ripples", "leaves", "crowd",
)  # fmt: skip
BARE, PLANKS, TILES, GRAIN, BRICKS, PAPER, COURT, RIPPLES, LEAVES, CROWD = range(10)
FLOOR, CEILING, BACK, LEFT, RIGHT, FIRST_BOX = range(6)  # rows of the surface tables


class Room(NamedTuple):
    """A scene to trace.

    axes [3, 3] float32: rows out, up, side in the camera frame. floor, ceiling, back, left, right:
    distances of the planes from the camera, m; ceiling <= 0: open air with a sky and no walls.
    boxes [N, 6] float32: out, up, side from and to. Tables by surface (five planes, then boxes):
    color [S, 2, 3] linear; texture, seed [S] int32; frequency [S] float32, repeats per metre.
    panels [P, 5] float32 on the back wall: side and up, from and to, and brightness.
    """

    axes: Array
    floor: float
    ceiling: float
    back: float
    left: float
    right: float
    boxes: Array
    panels: Array
    color: Array
    texture: Array
    seed: Array
    frequency: Array


@nb.njit(**_JIT)
def paint_room(
    room: Room, lights: Lights, lens: Lens, shadow: Shadow, border: Array, alpha: Array, rgb: Array
) -> None:
    """Fill rgb [R, R, 3] float32 sRGB wherever `alpha` < 1 and the image border [4] (uv) allows."""
    size = rgb.shape[0]
    brightness = _plane_brightness(room, lights)
    tint_red, tint_blue = _tint(lights, 0), _tint(lights, 2)
    for y in range(size):
        v = (y + 0.5) / size - 0.5
        if v < border[1] or v > border[3]:
            continue
        for x in range(size):
            u = (x + 0.5) / size - 0.5
            if u < border[0] or u > border[2] or alpha[y, x] >= 1.0:
                continue
            dx, dy = (u - lens.principal_u) / lens.focal, (v - lens.principal_v) / lens.focal
            red, green, blue = _trace(dx, dy, room, brightness, lens.focal * size, shadow)
            rgb[y, x, 0] = math.sqrt(max(tint_red * red, 0.0))
            rgb[y, x, 1] = math.sqrt(max(green, 0.0))
            rgb[y, x, 2] = math.sqrt(max(tint_blue * blue, 0.0))


@nb.njit(**_JIT)
def _tint(lights: Lights, channel: int) -> float:
    """All light of a channel over that of green, halved in strength as eyes and cameras adapt."""
    all_light, green = lights.sky[channel], lights.sky[1]
    for k in range(lights.color.shape[0]):
        all_light += 0.5 * lights.color[k, channel]
        green += 0.5 * lights.color[k, 1]
    return math.sqrt(min(max(all_light / (green + 1e-6), 0.3), 3.0))


@nb.njit(**_JIT)
def _trace(
    dx: float, dy: float, room: Room, brightness: Array, focal_px: float, shadow: Shadow
) -> tuple[float, float, float]:
    """Linear colour along the ray (dx, dy, 1)."""
    ax = room.axes
    out = ax[0, 0] * dx + ax[0, 1] * dy + ax[0, 2]
    up = ax[1, 0] * dx + ax[1, 1] * dy + ax[1, 2]
    side = ax[2, 0] * dx + ax[2, 1] * dy + ax[2, 2]
    t, surface = _nearest_plane(out, up, side, room)
    a, b, axis, facing = 0.0, 0.0, 1, 1.0
    for k in range(room.boxes.shape[0]):
        near, hit_axis = _hit_box(out, up, side, room.boxes[k])
        if 0.0 < near < t:
            t, surface, axis = near, FIRST_BOX + k, hit_axis
    if surface < 0:
        return _sky(out, up, side, room, brightness[3, 0, 0])
    po, pu, ps = out * t, up * t, side * t
    if surface in (FLOOR, CEILING):
        a, b, axis, facing = po, ps, 1, (1.0 if surface == FLOOR else -1.0)
    elif surface == BACK:
        a, b, axis = ps, pu, 0
    elif surface < FIRST_BOX:
        a, b, axis, facing = po, pu, 2, (1.0 if surface == LEFT else -1.0)
    elif axis == 1:
        a, b, facing = po, ps, -math.copysign(1.0, up)
    else:
        a, b = (ps if axis == 0 else po), pu
        facing = -math.copysign(1.0, out if axis == 0 else side)
    lit = brightness[axis, int(facing > 0.0)]
    gain = lit[0] + lit[1]
    if shadow.strength > 0.0 and lit[1] > 0.0:
        gain -= lit[1] * shadow.strength * shadow_at(dx * t, dy * t, t, 0.05, shadow)
    if surface != FLOOR and room.ceiling > 0.0:  # darker where a wall meets the floor
        gain *= 0.7 + 0.3 * min(1.0, (pu + room.floor) * 1.2)
    if surface == BACK and room.texture[BACK] == CROWD:
        red, green, blue = _crowd(2.2 * a, 1.6 * b, int(room.seed[BACK]))
        return gain * red, gain * green, gain * blue
    share = surface_texture(
        int(room.texture[surface]), a, b, room.frequency[surface], int(room.seed[surface]),
        t / focal_px,
    )  # fmt: skip
    if surface == BACK:
        for k in range(room.panels.shape[0]):
            p = room.panels[k]
            if p[0] < a < p[2] and p[1] < b + room.floor < p[3]:
                gain *= p[4]
                share = plane_noise(a * 9 + 3 * k, b * 9, int(room.seed[BACK]) + k)
    c = room.color[surface]
    red = gain * ((1 - share) * c[0, 0] + share * c[1, 0])
    green = gain * ((1 - share) * c[0, 1] + share * c[1, 1])
    blue = gain * ((1 - share) * c[0, 2] + share * c[1, 2])
    if room.ceiling <= 0.0:
        haze = 1.0 - math.exp(-0.012 * t)
        sky, glow = room.color[CEILING, 1], 1.1 * brightness[3, 0, 0] + 0.3
        red, green = red + haze * (glow * sky[0] - red), green + haze * (glow * sky[1] - green)
        blue += haze * (glow * sky[2] - blue)
    return red, green, blue


@nb.njit(**_JIT)
def _nearest_plane(out: float, up: float, side: float, room: Room) -> tuple[float, int]:
    t, surface = 1e9, -1
    if up < -1e-6 and room.floor > 0.0:
        t, surface = -room.floor / up, FLOOR
    if room.ceiling <= 0.0:
        return t, surface
    if up > 1e-6 and room.ceiling / up < t:
        t, surface = room.ceiling / up, CEILING
    if out < -1e-6 and -room.back / out < t:
        t, surface = -room.back / out, BACK
    if side < -1e-6 and -room.left / side < t:
        t, surface = -room.left / side, LEFT
    if side > 1e-6 and room.right / side < t:
        t, surface = room.right / side, RIGHT
    return t, surface


@nb.njit(**_JIT)
def _hit_box(out: float, up: float, side: float, box: Array) -> tuple[float, int]:
    """Distance along the ray to an axis-aligned box, and the axis of the face; -1: missed."""
    near, far, axis = 1e-3, 1e9, -1
    for k in range(3):
        d = out if k == 0 else (up if k == 1 else side)
        if abs(d) < 1e-9:
            d = 1e-9
        t0, t1 = box[k] / d, box[k + 3] / d
        if t0 > t1:
            t0, t1 = t1, t0
        if t0 > near:
            near, axis = t0, k
        far = min(far, t1)
    if near < far and axis >= 0:
        return near, axis
    return -1.0, -1


@nb.njit(**_JIT)
def _plane_brightness(room: Room, lights: Lights) -> Array:
    """[4, 2, 2] float32: by room axis and facing (0 against it, 1 along it), what a plane gets from
    everything but light 0, and from light 0. The last row's first value is the sky's own."""
    table = np.zeros((4, 2, 2), np.float32)
    table[3, 0, 0] = lights.sky[1]
    for axis in range(3):
        for side in range(2):
            normal = room.axes[axis] * np.float32(2 * side - 1)
            upward = (normal * lights.up).sum()
            table[axis, side, 0] = 0.5 * (1 + upward) * lights.sky[1]
            table[axis, side, 0] += 0.5 * (1 - upward) * lights.ground[1]
            for k in range(lights.direction.shape[0]):
                cosine = (normal * lights.direction[k]).sum()
                amount = max(0.0, 0.75 * cosine + 0.25) * lights.color[k, 1]
                table[axis, side, int(k == 0)] += amount
    return table


@nb.njit(**_JIT)
def _sky(
    out: float, up: float, side: float, room: Room, sky_light: float
) -> tuple[float, float, float]:
    """Sky with clouds, and a skyline of trees or houses on the horizon."""
    length = 1.0 / math.sqrt(out * out + up * up + side * side)
    height = up * length
    azimuth = math.atan2(side, -out)
    seed = int(room.seed[BACK])
    skyline = 0.16 * plane_noise(azimuth * 3 + 7, 0.5, seed) + 0.07 * lattice(
        math.floor(azimuth * 11), 0, 0, seed
    )
    c = room.color[CEILING]
    cloud = plane_noise(azimuth * 4, height * 12, seed + 1) * 0.7 + 0.3 * plane_noise(
        azimuth * 13, height * 40, seed + 2
    )
    gain = 1.1 * sky_light + 0.3
    texture = room.texture[BACK]
    if texture == CROWD and height < 0.16:
        red, green, blue = _crowd(azimuth * 26, height * 24, seed)
        return 0.6 * gain * red, 0.6 * gain * green, 0.6 * gain * blue
    if height < skyline - 0.05:
        c = room.color[BACK]
        if texture == LEAVES:
            cloud = surface_texture(LEAVES, azimuth, height, 14.0, seed + 3, 0.0)
        else:
            cloud = plane_noise(azimuth * 40, height * 55, seed + 3)
        gain *= 0.55
    else:
        cloud = min(max(2.5 * (cloud - 0.45), 0.0), 1.0)
    return (
        gain * ((1 - cloud) * c[0, 0] + cloud * c[1, 0]),
        gain * ((1 - cloud) * c[0, 1] + cloud * c[1, 1]),
        gain * ((1 - cloud) * c[0, 2] + cloud * c[1, 2]),
    )


@nb.njit(**_JIT)
def surface_texture(
    kind: int, a: float, b: float, frequency: float, seed: int, footprint: float
) -> float:
    """Share of a surface's second colour, 0..1, at plane coordinates a, b (m).

    `footprint`: size of a pixel on the surface, m; detail finer than that fades to its mean.
    """
    keep = 1.0 / (1.0 + (2.0 * footprint * frequency) ** 2)
    u, v = a * frequency, b * frequency
    if kind == BARE:
        return 0.25 * plane_noise(a * 1.3, b * 1.3, seed)
    if kind == GRAIN:
        fine = plane_noise(u * 4, v * 4, seed) - 0.5
        return 0.5 + keep * fine + 0.5 * (plane_noise(a * 1.5, b * 1.5, seed + 1) - 0.5)
    if kind == PAPER:
        return 0.5 + keep * 0.5 * math.sin(a * frequency * 6.2832)
    if kind == COURT:  # a court's lines, some metres apart
        across = abs(a - 6.1 * math.floor(a / 6.1 + 0.5) + 2.0 * lattice(seed, 0, 0, 1))
        along = abs(b - 4.3 * math.floor(b / 4.3 + 0.5) + 1.5 * lattice(seed, 1, 0, 1))
        width = 0.028 + 0.5 * footprint
        line = 0.056 / (2 * width) if min(across, along) < width else 0.0
        return max(line, 0.12 * plane_noise(a * 3, b * 3, seed))
    if kind == RIPPLES:
        bent = 2.0 * plane_noise(0.5 * u, 0.5 * v, seed)
        wave = 0.5 + 0.25 * math.sin(6.3 * (0.6 * u + bent)) + 0.25 * math.sin(9.1 * (v + bent))
        return 0.4 + keep * (wave * wave * wave - 0.4)
    if kind == LEAVES:
        share = 0.5 * plane_noise(u, v, seed) + 0.3 * plane_noise(2.7 * u, 2.7 * v, seed + 1)
        share += 0.2 * lattice(math.floor(6 * u), math.floor(6 * v), 0, seed)
        return 0.5 + keep * min(max(2.2 * (share - 0.5), -0.5), 0.5)
    row = math.floor(v)
    if kind == PLANKS:
        u = u * 0.18 + 0.37 * lattice(int(row), 0, 0, seed) * 8
    elif kind == BRICKS:
        u = 0.5 * u + 0.5 * (row % 2)
    column = math.floor(u)
    body = 0.6 * lattice(int(row), int(column), 1, seed)
    body += 0.25 * plane_noise(u * 3, v * 9, seed + 2)
    gap = 0.045 if kind == PLANKS else 0.08
    if v - row < gap or u - column < gap * (0.2 if kind == PLANKS else 1.0):
        body = 1.0
    return 0.5 + keep * (body - 0.5)


@nb.njit(**_JIT)
def _crowd(u: float, v: float, seed: int) -> tuple[float, float, float]:
    """Linear colour of rows of spectators, one to a unit: a head above a body, gaps between."""
    row = math.floor(v)
    u += 0.5 * (row % 2)
    column = math.floor(u)
    i, j = int(row), int(column)
    x = u - column - 0.35 - 0.3 * lattice(i, j, 0, seed)
    y = v - row - 0.2 * lattice(i, j, 1, seed)
    value = 0.15 + 0.85 * lattice(i, j, 2, seed)
    if x * x * 2.2 + (y - 0.62) ** 2 < 0.02:
        tone = 0.06 + 0.4 * lattice(i, j, 3, seed)
        return tone, 0.62 * tone, 0.45 * tone
    if abs(x) < 0.3 and y < 0.52 - x * x:
        red, green = lattice(i, j, 4, seed), lattice(i, j, 5, seed)
        blue = lattice(i, j, 6, seed)
        return 0.6 * value * red * red, 0.6 * value * green * green, 0.6 * value * blue * blue
    return 0.03, 0.03, 0.035


@nb.njit(**_JIT)
def paint_flat(
    rgb: Array, kind: int, frequency: float, seed: int, color: Array, angle: float
) -> None:
    """Fill rgb [H, W, 3] float32 with one flat pattern of two sRGB colours [2, 3].

    Kinds: 0 gradient, 1 clouds, 2 chequers, 3 waves, 4 blocks.
    """
    height, width = rgb.shape[:2]
    c, s = math.cos(angle), math.sin(angle)
    for y in range(height):
        for x in range(width):
            u = (c * x + s * y) / width * frequency
            v = (-s * x + c * y) / width * frequency
            if kind == 0:
                share = u / frequency
            elif kind == 1:
                share = 0.6 * plane_noise(u, v, seed) + 0.3 * plane_noise(u * 3, v * 3, seed + 1)
                share += 0.1 * plane_noise(u * 9, v * 9, seed + 2)
            elif kind == 2:
                share = float((math.floor(2 * u) + math.floor(2 * v)) % 2)
            elif kind == 3:
                share = 0.5 + 0.5 * math.sin(u * 6.2832 + 3 * plane_noise(u, v, seed))
            else:
                share = 0.8 * lattice(math.floor(1.5 * u), math.floor(1.5 * v), 0, seed)
                share += 0.2 * plane_noise(u * 6, v * 6, seed)
            for k in range(3):
                rgb[y, x, k] = color[0, k] * (1 - share) + color[1, k] * share
