"""Lattice noise and the pattern kinds of cloth, as numba functions of a point."""

from __future__ import annotations

import math

import numba as nb

PATTERN_NAMES = (
    "plain", "stripes_level", "stripes_upright", "checks", "mottled", "blotches", "gradient",
    "print", "dots", "zigzag",
)  # fmt: skip
HELD_OUT_PATTERNS = ("dots", "zigzag")  # never drawn for the training split
(PLAIN, LEVEL, UPRIGHT, CHECKS, MOTTLED, BLOTCHES, GRADIENT, PRINT, DOTS, ZIGZAG) = range(10)

_JIT = {"cache": True, "nogil": True, "fastmath": {"contract", "arcp", "nsz"}}
_TAU = 2.0 * math.pi


@nb.njit(**_JIT)
def lattice(i: int, j: int, k: int, seed: int) -> float:
    """A pseudo-random number in [0, 1] for a lattice point."""
    h = (i * 374761393 + j * 668265263 + k * 1440662683 + seed * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF) * (1.0 / 65535.0)


@nb.njit(**_JIT)
def value_noise(x: float, y: float, z: float, seed: int) -> float:
    """Smooth noise in [0, 1] with features of size 1."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    i, j, k = int(i), int(j), int(k)
    a = lattice(i, j, k, seed) * (1 - u) + lattice(i + 1, j, k, seed) * u
    b = lattice(i, j + 1, k, seed) * (1 - u) + lattice(i + 1, j + 1, k, seed) * u
    c = lattice(i, j, k + 1, seed) * (1 - u) + lattice(i + 1, j, k + 1, seed) * u
    d = lattice(i, j + 1, k + 1, seed) * (1 - u) + lattice(i + 1, j + 1, k + 1, seed) * u
    return (a * (1 - v) + b * v) * (1 - w) + (c * (1 - v) + d * v) * w


@nb.njit(**_JIT)
def plane_noise(x: float, y: float, seed: int) -> float:
    """Smooth noise in [0, 1] of two coordinates; half the price of `value_noise`."""
    i, j = math.floor(x), math.floor(y)
    u, v = x - i, y - j
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    i, j = int(i), int(j)
    a = lattice(i, j, 0, seed) * (1 - u) + lattice(i + 1, j, 0, seed) * u
    b = lattice(i, j + 1, 0, seed) * (1 - u) + lattice(i + 1, j + 1, 0, seed) * u
    return a * (1 - v) + b * v


@nb.njit(**_JIT)
def _edge(wave: float, sharpness: float) -> float:
    """A sine turned into a soft-edged square wave in [0, 1]."""
    return min(max(0.5 + sharpness * wave, 0.0), 1.0)


@nb.njit(**_JIT)
def pattern_at(kind: int, x: float, y: float, z: float, frequency: float, seed: int) -> float:
    """Share of a cloth's second colour, 0..1, at a point of the rest body (m).

    Args:
        kind: index into `PATTERN_NAMES`.
        frequency: repeats per metre.
    """
    if kind == PLAIN:
        return 0.0
    if kind == LEVEL:
        return _edge(math.sin(y * frequency * _TAU) + 0.4 * (lattice(seed, 1, 0, 0) - 0.5), 2.5)
    if kind == UPRIGHT:
        return _edge(math.sin(x * frequency * _TAU) - 0.3, 2.5)
    if kind == CHECKS:
        across = _edge(math.sin(x * frequency * _TAU), 2.5)
        return 0.5 * across + 0.5 * _edge(math.sin(y * frequency * _TAU), 2.5)
    if kind == MOTTLED:
        fine = value_noise(x * frequency * 4, y * frequency * 4, z * frequency * 4, seed + 1)
        return 0.65 * value_noise(x * frequency, y * frequency, z * frequency, seed) + 0.35 * fine
    if kind == BLOTCHES:
        f = 0.7 * frequency
        return _edge(value_noise(x * f, y * f, z * f, seed) - 0.5, 8.0)
    if kind == GRADIENT:
        return min(max(0.5 + 1.6 * (y - 0.25 * (seed % 3) + 0.1), 0.0), 1.0)
    if kind == PRINT:  # one figure on the chest
        if z < 0.02 or abs(x) > 0.105 or y < 0.2 or y > 0.42:
            return 0.0
        return _edge(value_noise(x * 22, y * 30, 0.0, seed) - 0.48, 9.0)
    if kind == DOTS:
        u, v = x * frequency, y * frequency
        du, dv = u - math.floor(u) - 0.5, v - math.floor(v) - 0.5
        return _edge(0.09 - du * du - dv * dv, 14.0)
    zig = abs(2.0 * (x * frequency - math.floor(x * frequency)) - 1.0)
    return _edge(math.sin((y * frequency + 0.6 * zig) * _TAU), 2.5)
