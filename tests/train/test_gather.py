"""The part-point gather against a float64 reference that states the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.model.gather import bilinear_corners, part_point_gather


def reference(features: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Clamp the point into the map, then mix the four cells around it, in float64."""
    batch, channels, height, width = features.shape
    out = np.zeros((batch, points.shape[1], channels))
    for b in range(batch):
        for p, (x, y) in enumerate(points[b].astype(np.float64)):
            x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
            x0, y0 = int(np.floor(x)), int(np.floor(y))
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            fx, fy = x - x0, y - y0
            cell = features[b].astype(np.float64)
            top = (1 - fx) * cell[:, y0, x0] + fx * cell[:, y0, x1]
            bottom = (1 - fx) * cell[:, y1, x0] + fx * cell[:, y1, x1]
            out[b, p] = (1 - fy) * top + fy * bottom
    return out


def cases(size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(size)
    height, width = size
    features = rng.normal(size=(2, 5, height, width)).astype(np.float32)
    inside = rng.uniform([0, 0], [width - 1, height - 1], (2, 20, 2))
    outside = rng.uniform(-3, max(size) + 3, (2, 20, 2))
    whole = rng.integers([0, 0], [width, height], (2, 9, 2))
    points = np.concatenate([inside, outside, whole], 1).astype(np.float32)
    return torch.from_numpy(features), torch.from_numpy(points)


@pytest.mark.parametrize("size", [(32, 32), (7, 13), (64, 64), (2, 3)])
def test_equals_the_definition(size: tuple[int, int]) -> None:
    features, points = cases(size)
    expected = reference(features.numpy(), points.numpy())
    np.testing.assert_allclose(part_point_gather(features, points).numpy(), expected, atol=3e-5)


@pytest.mark.parametrize("size", [(32, 32), (7, 13), (2, 3)])
def test_corners_and_weights_give_the_same(size: tuple[int, int]) -> None:
    features, points = cases(size)
    corners, weights = bilinear_corners(points, size)
    read = part_point_gather(features, corners.flatten(1, 2))
    mixed = (read.reshape(*corners.shape[:3], -1) * weights[..., None]).sum(2)
    torch.testing.assert_close(mixed, part_point_gather(features, points), atol=3e-5, rtol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(points.shape[:2]))
