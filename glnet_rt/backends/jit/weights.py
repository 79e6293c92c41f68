"""Weights in the order in which the kernels read them."""

from __future__ import annotations

import numpy as np

from glnet_rt.backends.jit._code import LANES
from glnet_rt.backends.jit.kernels import BLOCKS, POINTS
from glnet_rt.contracts import Array

# G of F(4x4, 3x3) at the points 0, 1, -1, 2, -2 and infinity.
_WHOLE_G = np.array(
    [[1, 0, 0], [-1, -1, -1], [-1, 1, -1], [1, 2, 4], [1, -2, 4], [0, 0, 1]], np.float64
)
WHOLE_FACTOR = 36  # what the products of integers come out too large
_G = _WHOLE_G / np.array([4, 6, 6, 24, 24, 1])[:, None]

# B^T, which _to_points computes.
_B = np.array([
    [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
])  # fmt: skip


def direct(weights: Array, per_step: int) -> Array:
    """For the direct convolution.

    Args:
        weights: [O, C, k, k].
        per_step: input channels that lie side by side in four bytes.

    Returns:
        As `columns` orders them, of the same type.
    """
    rows = weights.transpose(0, 2, 3, 1).reshape(len(weights), -1)
    return columns(rows, per_step)


def winograd(weights: Array) -> Array:
    """For Winograd's products.

    Args:
        weights: [O, C, 3, 3].

    Returns:
        36 times as `columns` orders them, float32.
    """
    matrices = _at_points(weights, _G).astype(np.float32)
    return np.concatenate([columns(matrix, 1) for matrix in matrices])


def whole_winograd(weights: Array) -> Array | None:
    """For Winograd's products of integers.

    Args:
        weights: [O, C, 3, 3] int8.

    Returns:
        36 times as `columns` orders them, int16. With levels up to 255 the sums of their products
        fit 32 bits; None where they might not.
    """
    matrices = _at_points(weights, _WHOLE_G)
    most = np.abs(matrices).sum(2).max(1) * _largest_inputs()
    if most.max() > np.iinfo(np.int32).max:
        return None
    return np.concatenate([columns(matrix.astype(np.int16), 2) for matrix in matrices])


def _largest_inputs() -> Array:
    """[POINTS], what levels up to 255 come to at most at each point, up or down."""
    both = np.einsum("ia,jb->ijab", _B, _B).reshape(POINTS, -1)
    ups, downs = np.maximum(both, 0).sum(1), np.maximum(-both, 0).sum(1)
    return 255 * np.maximum(ups, downs)


def _at_points(weights: Array, g: Array) -> Array:
    """[POINTS, O, C] float64."""
    found = np.einsum("ia,ocab,jb->ijoc", g, weights.astype(np.float64), g, optimize=True)
    return found.reshape(POINTS, *weights.shape[:2])


def columns(matrix: Array, per_step: int) -> Array:
    """[O, K] -> flat: for every 32 outputs K / per_step steps; the same for 16 that are left."""
    outputs = len(matrix)
    pairs = outputs // (BLOCKS * LANES) * BLOCKS * LANES
    parts = []
    for rows, blocks in ((matrix[:pairs], BLOCKS), (matrix[pairs:], 1)):
        steps = rows.reshape(-1, blocks * LANES, rows.shape[1] // per_step, per_step)
        parts.append(steps.transpose(0, 2, 1, 3).reshape(-1))
    return np.concatenate(parts)


def bfloat16(values: Array) -> Array:
    """Float32 to the upper half of its bits, uint16, to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
