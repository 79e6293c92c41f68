"""Weights in the order in which the kernels read them."""

from __future__ import annotations

import numpy as np

from glnet_rt.backends.jit._code import LANES
from glnet_rt.backends.jit.kernels import BLOCKS, POINTS
from glnet_rt.contracts import Array

# G of F(4x4, 3x3) at the points 0, 1, -1, 2, -2 and infinity.
_G = np.array(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float64
) / [[24]]


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
    at_points = np.einsum("ia,ocab,jb->ijoc", _G, weights.astype(np.float64), _G, optimize=True)
    matrices = at_points.reshape(POINTS, *weights.shape[:2]).astype(np.float32)
    return np.concatenate([columns(matrix, 1) for matrix in matrices])


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
