"""Turn a z-buffer into an anti-aliased, lit layer of one dressed person. All kernels are numba.

The buffers are twice as fine as the picture; a picture pixel averages four samples, and a sample is
shaded anew only where the surface jumps. Colours are linear light (sRGB squared) inside this file.
Frames: camera x right, y down, z forward, m; rest = the T-pose of the template.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba as nb

from glnet_rt.contracts import Array
from train.synthetic.materials import BEARD, FIRST_THING, HAIR, SKIN, Cuts, material_at
from train.synthetic.noise import pattern_at, value_noise

_JIT = {"cache": True, "nogil": True, "fastmath": {"contract", "arcp", "nsz", "afn"}}
SUPERSAMPLING = 2
SHADOW_MAP_SIZE = 128
SHADOW_MAP_DEPTH_M = 60.0  # so far away that its perspective projection is parallel


class Mesh(NamedTuple):
    """One posed, dressed mesh.

    faces [F, 3] int32; layer [F] int8: material of the whole face, or -1 to ask `material_at`;
    normals, rest [V, 3] float32.
    """

    faces: Array
    layer: Array
    normals: Array
    rest: Array


class Buffers(NamedTuple):
    """zbuffer [2R, 2R] float32 (1 / depth), face_id [2R, 2R] int32, bary [2R, 2R, 2] float32."""

    zbuffer: Array
    face_id: Array
    bary: Array


class Cloth(NamedTuple):
    """By material: color [M, 2, 3] linear; pattern, seed [M] int32; frequency, fold, gloss [M]."""

    color: Array
    pattern: Array
    seed: Array
    frequency: Array
    fold: Array
    gloss: Array


class Lights(NamedTuple):
    """direction [L, 3] unit, towards the light; color [L, 3]; sky, ground, up [3] float32."""

    direction: Array
    color: Array
    sky: Array
    ground: Array
    up: Array


class Lens(NamedTuple):
    """Pinhole of the picture: u = focal * X / Z + principal_u, u in [-0.5, 0.5]."""

    focal: float
    principal_u: float
    principal_v: float


class Shadow(NamedTuple):
    """Depth seen from light 0: zbuffer [S, S] float32, map_from_camera [3, 4] float32 (px, px, m).

    strength 0 switches it off.
    """

    zbuffer: Array
    map_from_camera: Array
    strength: float


@nb.njit(**_JIT)
def shade_layer(
    mesh: Mesh, buffers: Buffers, cuts: Cuts, cloth: Cloth, lights: Lights, lens: Lens,
    shadow: Shadow, rgb: Array, alpha: Array, own: Array,
) -> None:  # fmt: skip
    """Write the layer: rgb [R, R, 3] float32 sRGB, times alpha [R, R] float32.

    own [R, R] float32, written: the part of alpha that is the person, not one of their things.
    """
    size = rgb.shape[0]
    for y in range(size):
        for x in range(size):
            covered, things = 0, 0
            red, green, blue = 0.0, 0.0, 0.0
            r, g, b, last = 0.0, 0.0, 0.0, 0.0
            for s in range(4):
                yy, xx = 2 * y + s // 2, 2 * x + s % 2
                iz = buffers.zbuffer[yy, xx]
                if iz <= 0.0:
                    continue
                if covered == 0 or abs(iz - last) > 0.02 * iz:
                    r, g, b = _shade_sample(
                        yy, xx, mesh, buffers, cuts, cloth, lights, lens, shadow
                    )
                    last = iz
                covered += 1
                if mesh.layer[buffers.face_id[yy, xx]] >= FIRST_THING:
                    things += 1
                red += r
                green += g
                blue += b
            rgb[y, x, 0] = 0.25 * red
            rgb[y, x, 1] = 0.25 * green
            rgb[y, x, 2] = 0.25 * blue
            alpha[y, x] = 0.25 * covered
            own[y, x] = 0.25 * (covered - things)


@nb.njit(**_JIT)
def surface_map(mesh: Mesh, buffers: Buffers, mask: Array, pelvis_z: float, out: Array) -> None:
    """Which point of the rest body each coarse pixel shows, and how deep it lies.

    Args:
        mask: [R, R] bool, pixels that show this person.
        pelvis_z: depth of the pelvis, m.
        out: [R/4, R/4, 4] int8, written: rest x, y, z and depth behind the pelvis, cm, cut at
            +-127; all four -128 where the middle of the coarse pixel shows something else.
    """
    step = mask.shape[0] // out.shape[0]
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            row, column = y * step + step // 2, x * step + step // 2
            yy, xx = SUPERSAMPLING * row, SUPERSAMPLING * column
            if not mask[row, column] or buffers.zbuffer[yy, xx] <= 0.0:
                out[y, x, :] = -128
                continue
            f = buffers.face_id[yy, xx]
            if mesh.layer[f] >= FIRST_THING:
                out[y, x, :] = -128
                continue
            w1, w2 = buffers.bary[yy, xx, 0], buffers.bary[yy, xx, 1]
            for k in range(3):
                value = (1.0 - w1 - w2) * mesh.rest[mesh.faces[f, 0], k]
                value += w1 * mesh.rest[mesh.faces[f, 1], k] + w2 * mesh.rest[mesh.faces[f, 2], k]
                out[y, x, k] = max(-127, min(127, round(100.0 * value)))
            depth = 1.0 / buffers.zbuffer[yy, xx] - pelvis_z
            out[y, x, 3] = max(-127, min(127, round(100.0 * depth)))


@nb.njit(**_JIT)
def _shade_sample(
    yy: int, xx: int, mesh: Mesh, buffers: Buffers, cuts: Cuts, cloth: Cloth, lights: Lights,
    lens: Lens, shadow: Shadow,
) -> tuple[float, float, float]:  # fmt: skip
    """sRGB of one sample of the supersampled buffers."""
    f = buffers.face_id[yy, xx]
    a, b, c = mesh.faces[f, 0], mesh.faces[f, 1], mesh.faces[f, 2]
    w1, w2 = buffers.bary[yy, xx, 0], buffers.bary[yy, xx, 1]
    w0 = 1.0 - w1 - w2
    rx = w0 * mesh.rest[a, 0] + w1 * mesh.rest[b, 0] + w2 * mesh.rest[c, 0]
    ry = w0 * mesh.rest[a, 1] + w1 * mesh.rest[b, 1] + w2 * mesh.rest[c, 1]
    rz = w0 * mesh.rest[a, 2] + w1 * mesh.rest[b, 2] + w2 * mesh.rest[c, 2]
    nx = w0 * mesh.normals[a, 0] + w1 * mesh.normals[b, 0] + w2 * mesh.normals[c, 0]
    ny = w0 * mesh.normals[a, 1] + w1 * mesh.normals[b, 1] + w2 * mesh.normals[c, 1]
    nz = w0 * mesh.normals[a, 2] + w1 * mesh.normals[b, 2] + w2 * mesh.normals[c, 2]

    material = int(mesh.layer[f])
    if material < 0:
        material = material_at(rx, ry, rz, cuts)
    fine = buffers.zbuffer.shape[0]
    depth = 1.0 / buffers.zbuffer[yy, xx]
    px = ((xx + 0.5) / fine - 0.5 - lens.principal_u) / lens.focal * depth
    py = ((yy + 0.5) / fine - 0.5 - lens.principal_v) / lens.focal * depth
    if nx * px + ny * py + nz * depth > 0.0:  # the inside of a skirt or a strand of hair
        nx, ny, nz = -nx, -ny, -nz
    fold = cloth.fold[material]
    if fold > 0.0:
        nx, ny, nz = _fold(nx, ny, nz, rx, ry, rz, fold, cloth.seed[material])
    norm = 1.0 / (math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9)
    nx, ny, nz = nx * norm, ny * norm, nz * norm

    share = _second_colour(material, rx, ry, rz, cuts, cloth)
    open_sky = _openness(yy, xx, depth, lens.focal * fine, buffers.zbuffer)
    lit = 1.0
    if shadow.strength > 0.0:
        lit -= shadow.strength * shadow_at(px, py, depth, 0.02, shadow)
    red, green, blue = _light(
        nx, ny, nz, px, py, depth, open_sky, lit, cloth.gloss[material], lights
    )
    base, other = cloth.color[material, 0], cloth.color[material, 1]
    shine = cloth.gloss[material] * 0.02
    return (
        math.sqrt(max(red * ((1 - share) * base[0] + share * other[0] + shine), 0.0)),
        math.sqrt(max(green * ((1 - share) * base[1] + share * other[1] + shine), 0.0)),
        math.sqrt(max(blue * ((1 - share) * base[2] + share * other[2] + shine), 0.0)),
    )


@nb.njit(**_JIT)
def _second_colour(material: int, x: float, y: float, z: float, cuts: Cuts, cloth: Cloth) -> float:
    """Share of a material's second colour: cloth patterns, strands of hair, blushes, stubble."""
    seed = cloth.seed[material]
    if material == HAIR:
        return value_noise(x * 120, y * 14, z * 120, seed)
    if material == SKIN:
        return value_noise(x * 16, y * 16, z * 16, seed)
    if material == BEARD:
        return cuts.beard
    return pattern_at(int(cloth.pattern[material]), x, y, z, cloth.frequency[material], int(seed))


@nb.njit(**_JIT)
def _fold(
    nx: float, ny: float, nz: float, x: float, y: float, z: float, fold: float, seed: int
) -> tuple[float, float, float]:
    """Creases: a normal leant by noise drawn out along the body's length."""
    a = value_noise(x * 26, y * 11, z * 26, seed) + 0.5 * value_noise(
        x * 60, y * 34, z * 60, seed + 3
    )
    b = value_noise(x * 24 + 9.0, y * 15, z * 24, seed + 1)
    return nx + fold * (a - 0.75), ny + fold * 0.9 * (b - 0.5), nz + fold * 0.5 * (b - a + 0.25)


@nb.njit(**_JIT)
def _openness(yy: int, xx: int, depth: float, focal_px: float, zbuffer: Array) -> float:
    """1 in the open, less where nearer surface stands around (screen-space occlusion)."""
    fine = zbuffer.shape[0]
    hidden = 0.0
    for ring in range(2):
        radius = (0.035 + 0.075 * ring) * focal_px / depth
        diagonal = 0.7071 * radius
        for k in range(4):
            if ring == 0:
                dx, dy = (radius, 0.0) if k < 2 else (0.0, radius)
            else:
                dx, dy = (diagonal, diagonal) if k < 2 else (diagonal, -diagonal)
            if k % 2 == 1:
                dx, dy = -dx, -dy
            sx, sy = int(xx + dx), int(yy + dy)
            if sx < 0 or sy < 0 or sx >= fine or sy >= fine or zbuffer[sy, sx] <= 0.0:
                continue
            nearer = depth - 1.0 / zbuffer[sy, sx]
            if 0.01 < nearer < 0.45:
                hidden += min(1.0, (nearer - 0.01) / 0.06) * (1.0 - nearer / 0.45)
    return 1.0 - 0.09 * hidden


@nb.njit(**_JIT)
def _light(
    nx: float, ny: float, nz: float, px: float, py: float, pz: float, open_sky: float, lit: float,
    gloss: float, lights: Lights,
) -> tuple[float, float, float]:  # fmt: skip
    """Irradiance (with highlight) on a point with normal n; `lit` is light 0's visible share."""
    sky_share = (0.5 + 0.5 * (nx * lights.up[0] + ny * lights.up[1] + nz * lights.up[2])) * open_sky
    ground_share = open_sky - sky_share
    red = lights.sky[0] * sky_share + lights.ground[0] * ground_share
    green = lights.sky[1] * sky_share + lights.ground[1] * ground_share
    blue = lights.sky[2] * sky_share + lights.ground[2] * ground_share
    far = 1.0 / math.sqrt(px * px + py * py + pz * pz)
    for k in range(lights.direction.shape[0]):
        lx, ly, lz = lights.direction[k, 0], lights.direction[k, 1], lights.direction[k, 2]
        cosine = nx * lx + ny * ly + nz * lz
        amount = max(0.0, 0.92 * cosine + 0.08)
        if gloss > 0.0 and cosine > 0.0:
            hx, hy, hz = lx - px * far, ly - py * far, lz - pz * far
            half = (nx * hx + ny * hy + nz * hz) / (math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9)
            if half > 0.0:
                amount += gloss * half**16
        if k == 0:
            amount *= lit
        red += amount * lights.color[k, 0]
        green += amount * lights.color[k, 1]
        blue += amount * lights.color[k, 2]
    return red, green, blue


@nb.njit(**_JIT)
def shadow_at(x: float, y: float, z: float, bias: float, shadow: Shadow) -> float:
    """Share of light 0 that the mesh keeps from a camera-frame point: 0 lit .. 1 in shadow."""
    m = shadow.map_from_camera
    sx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
    sy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
    limit = 1.0 / (m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3] - bias)
    size = shadow.zbuffer.shape[0]
    ix, iy = math.floor(sx), math.floor(sy)
    if ix < 0 or iy < 0 or ix >= size - 1 or iy >= size - 1:
        return 0.0
    fx, fy = sx - ix, sy - iy
    top = (1 - fx) * (shadow.zbuffer[iy, ix] > limit) + fx * (shadow.zbuffer[iy, ix + 1] > limit)
    bottom = (1 - fx) * (shadow.zbuffer[iy + 1, ix] > limit) + fx * (
        shadow.zbuffer[iy + 1, ix + 1] > limit
    )
    return (1 - fy) * top + fy * bottom
