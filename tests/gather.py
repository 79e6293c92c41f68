"""The part-point gather's definition in float64, and inputs that try its edges."""

from __future__ import annotations

import numpy as np

ODD = np.float32([np.nan, np.inf, -np.inf, -0.0, 1e30, -1e-30, 0.5])


def reference(features: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Move the point into the map (NaN to 0), then mix the four cells around it, in float64.

    Args:
        features: [B, C, h, w].
        points: [B, P, 2], (x, y) in grid pixels.

    Returns:
        [B, P, C] float64.
    """
    height, width = features.shape[2:]
    maps = features.astype(np.float64)
    x, y = np.moveaxis(points.astype(np.float64), -1, 0)
    x, y = np.fmin(np.fmax(x, 0), width - 1), np.fmin(np.fmax(y, 0), height - 1)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    image = np.arange(len(maps))[:, None]
    top = (1 - fx) * maps[image, :, y0, x0] + fx * maps[image, :, y0, x1]
    bottom = (1 - fx) * maps[image, :, y1, x0] + fx * maps[image, :, y1, x1]
    return (1 - fy) * top + fy * bottom


def odd_points(batch: int, count: int, size: tuple[int, int]) -> np.ndarray:
    """[B, P, 2] float32 points of a map (h, w): inside, outside, whole, and no numbers at all."""
    rng = np.random.default_rng((batch, count, *size))
    width_height = np.float32([size[1], size[0]])
    points = rng.uniform(-2, 1, (batch, count, 2)) + rng.uniform(0, 1, (batch, count, 2)) * (
        width_height + 1
    )
    points = points.astype(np.float32)
    points[:, 1::4] = np.round(points[:, 1::4])
    points[:, ::4, 0] = np.resize(ODD, points[:, ::4, 0].shape)
    points[:, 2::4, 1] = np.resize(ODD, points[:, 2::4, 1].shape)
    return points


def random_features(shape: tuple[int, ...], dtype: type[np.floating]) -> np.ndarray:
    """Features [B, C, h, w] in [-1, 1]."""
    return np.random.default_rng(shape).uniform(-1, 1, shape).astype(dtype)


def interleaved(features: np.ndarray) -> np.ndarray:
    """[B, C, h, w] -> [B, h, w, C padded to a multiple of 8], the padding NaN."""
    short = -features.shape[1] % 8
    padded = np.pad(features, [(0, 0), (0, short), (0, 0), (0, 0)], constant_values=np.nan)
    return np.ascontiguousarray(padded.transpose(0, 2, 3, 1))


def assert_as_exact_as(output: np.ndarray, expected: np.ndarray) -> None:
    """Hold a gather of features in [-1, 1] against float64.

    float32 to 1e-6; float16 to half a step of it, which is its rounding, beyond that.
    """
    rounding = 0.0
    if output.dtype == np.float16:
        rounding = np.spacing(np.abs(expected).astype(np.float16)).astype(np.float64) / 2
    error = np.abs(output.astype(np.float64) - expected)
    assert np.all(error <= rounding + 1e-6), f"off by {np.nanmax(error)}"
