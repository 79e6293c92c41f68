"""The part-point gather against a float64 reference that states the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.gather import ODD, reference
from train.model.gather import bilinear_corners, part_point_gather


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


def test_points_that_are_no_places_read_the_border_and_nan_reads_the_first_pixel() -> None:
    features = torch.arange(12.0).reshape(1, 1, 3, 4)
    points = np.stack(np.meshgrid(ODD, ODD), -1).reshape(1, -1, 2)
    expected = reference(features.numpy(), points)
    actual = part_point_gather(features, torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(actual, expected, atol=3e-5)
