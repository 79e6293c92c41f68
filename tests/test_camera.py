"""Crop, image and metres: the conventions agree with each other, and every formula inverts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glnet_rt.camera import (
    MIN_DEPTH_M,
    crop_camera,
    crop_px_to_uv,
    fit_camera_scale,
    image_center,
    image_offset,
    image_px_to_uv,
    lift,
    pelvis_depth,
    project,
    uv_to_crop_px,
    uv_to_image_px,
    virtual_intrinsics,
)
from glnet_rt.contracts import Array
from glnet_rt.crop import crop_from_image_affine
from glnet_rt.errors import ContractError
from glnet_rt.spec import NetSpec
from train.model import kinematics as twin

SPEC = NetSpec()
IMAGE_SIZE = (1920, 1080)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def random_crops(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Centres [B, 2] and sides [B], px."""
    return rng.uniform(0, IMAGE_SIZE, (count, 2)), rng.uniform(60, 900, count)


def random_uvd(rng: np.random.Generator, count: int) -> Array:
    """[B, 36, 3], the pelvis at depth zero."""
    uvd = rng.uniform(-0.5, 0.5, (count, 36, 3))
    uvd[:, 0, 2] = 0.0
    return uvd


# Crop and image.


@pytest.mark.parametrize("size", [64, 128, 256, 255])
def test_crop_pixels_agree_with_the_affine_that_cut_them(
    rng: np.random.Generator, size: int
) -> None:
    for center, side in zip(*random_crops(rng, 10), strict=True):
        crop_px = rng.uniform(-20, size + 20, (30, 2))
        image_px = uv_to_image_px(crop_px_to_uv(crop_px, size), center, side)
        affine = crop_from_image_affine(center, side, size)
        back = image_px @ affine[:, :2].T + affine[:, 2]
        np.testing.assert_allclose(back, crop_px, atol=1e-9)


def test_the_crop_spans_the_square_edge_to_edge() -> None:
    center, side = np.array([100.0, 50.0]), 64.0
    corners = uv_to_image_px(np.array([[-0.5, -0.5], [0.5, 0.5]]), center, side)
    np.testing.assert_allclose(corners, [[68, 18], [132, 82]])
    # The outer edge of pixel 0 lies half a pixel before its centre.
    np.testing.assert_allclose(uv_to_crop_px(np.array([-0.5, 0.5]), 128), [-0.5, 127.5])
    assert crop_px_to_uv(np.array(63.5), 128) == 0.0


def test_crop_and_image_pixels_invert(rng: np.random.Generator) -> None:
    uv = rng.uniform(-1, 1, (10, 36, 2))
    np.testing.assert_allclose(crop_px_to_uv(uv_to_crop_px(uv, 256), 256), uv, atol=1e-14)
    crops = random_crops(rng, 10)
    np.testing.assert_allclose(image_px_to_uv(uv_to_image_px(uv, *crops), *crops), uv, atol=1e-12)


def test_the_offset_of_the_middle_is_zero() -> None:
    middle = image_center((640, 480))
    np.testing.assert_array_equal(middle, [319.5, 239.5])
    np.testing.assert_array_equal(image_offset(middle, 100.0, (640, 480)), [0.0, 0.0])
    right = image_offset(middle + np.array([50.0, 0.0]), 100.0, (640, 480))
    np.testing.assert_array_equal(right, [0.5, 0.0])


# Metres.


def test_lifted_points_project_onto_the_pixels_they_came_from(rng: np.random.Generator) -> None:
    center, side = random_crops(rng, 20)
    uvd, scale = random_uvd(rng, 20), rng.uniform(0.3, 2.0, 20)
    offset = image_offset(center, side, IMAGE_SIZE)
    points = lift(uvd, scale, offset, SPEC.focal, SPEC.depth_range_m)
    K = np.stack([virtual_intrinsics(s, IMAGE_SIZE, SPEC) for s in side])
    expected = uv_to_image_px(uvd[..., :2], center, side)
    np.testing.assert_allclose(project(points, K), expected, atol=1e-9)


def test_lifted_points_project_through_a_known_lens_too(rng: np.random.Generator) -> None:
    K = np.array([[1400.0, 0.0, 900.0], [0.0, 1500.0, 580.0], [0.0, 0.0, 1.0]])
    center, side = random_crops(rng, 20)
    uvd, scale = random_uvd(rng, 20), rng.uniform(0.1, 0.5, 20)
    focal, offset = crop_camera(center, side, K)
    points = lift(uvd, scale, offset, focal, 1.0)
    expected = uv_to_image_px(uvd[..., :2], center, side)
    np.testing.assert_allclose(project(points, K), expected, atol=1e-9)
    # The focal length that turns the scale into depth is the geometric mean of both.
    np.testing.assert_allclose(points[:, 0, 2], np.sqrt(1400 * 1500) / (scale * side))


def test_the_virtual_camera_is_a_known_lens_like_any_other(rng: np.random.Generator) -> None:
    center, side = random_crops(rng, 5)
    for i in range(5):
        focal, offset = crop_camera(
            center[i : i + 1], side[i : i + 1], virtual_intrinsics(side[i], IMAGE_SIZE, SPEC)
        )
        np.testing.assert_allclose(focal, SPEC.focal)
        np.testing.assert_allclose(
            offset, image_offset(center[i : i + 1], side[i : i + 1], IMAGE_SIZE), atol=1e-12
        )


def test_depth_spans_the_range_around_the_pelvis() -> None:
    uvd = np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, -0.5], [0.0, 0.0, 0.5]]])
    points = lift(uvd, np.array([1.0]), np.zeros((1, 2)), 1000 / 256, 2.2)
    np.testing.assert_allclose(points[0, :, 2], 1000 / 256 + np.array([0.0, -1.1, 1.1]))


def test_a_metre_at_the_pelvis_spans_s_crop_widths() -> None:
    """Weak perspective: what s says, f = 1000 px on a 256 px crop."""
    scale = np.array([0.9])
    depth = pelvis_depth(scale, SPEC.focal)
    np.testing.assert_allclose(depth, 1000 / (256 * 0.9))
    metre = np.array([[0.0, 0.0, depth[0]], [1.0, 0.0, depth[0]]])
    crop = project(metre, np.diag([1000.0, 1000.0, 1.0]))
    np.testing.assert_allclose((crop[1, 0] - crop[0, 0]) / 256, 0.9)


@pytest.mark.parametrize("bad", [0.0, -0.5, np.nan, np.inf])
def test_a_scale_that_places_nobody_is_refused(bad: float) -> None:
    uvd = np.zeros((2, 36, 3))
    with pytest.raises(ContractError, match="camera scale"):
        lift(uvd, np.array([0.9, bad]), np.zeros((2, 2)), SPEC.focal, 2.2)


@pytest.mark.parametrize(
    "K",
    [
        [[1000.0, 3.0, 500.0], [0.0, 1000.0, 500.0], [0.0, 0.0, 1.0]],
        [[1000.0, 0.0, 500.0], [0.0, -1000.0, 500.0], [0.0, 0.0, 1.0]],
        [[1000.0, 0.0, 500.0], [0.0, 1000.0, 500.0], [0.0, 0.0, 2.0]],
        [[1000.0, 0.0, np.nan], [0.0, 1000.0, 500.0], [0.0, 0.0, 1.0]],
    ],
    ids=["skew", "mirrored", "scaled", "nan"],
)
def test_only_pinhole_matrices_are_accepted(K: list[list[float]]) -> None:
    with pytest.raises(ContractError, match="pinhole"):
        crop_camera(np.zeros((1, 2)), np.ones(1), np.array(K))


def test_the_torch_twin_lifts_alike(rng: np.random.Generator) -> None:
    uvd, scale = random_uvd(rng, 20), rng.uniform(0.3, 2.0, 20)
    offset = rng.normal(size=(20, 2))
    tensors = (torch.tensor(v) for v in (uvd, scale, offset))
    got = twin.lift(*tensors, SPEC.focal, SPEC.depth_range_m).numpy()
    expected = lift(uvd, scale, offset, SPEC.focal, SPEC.depth_range_m)
    np.testing.assert_allclose(got, expected, atol=1e-12)


# The scale as a training target.


def test_the_scale_of_the_models_own_camera_is_found_exactly(rng: np.random.Generator) -> None:
    uvd, scale = random_uvd(rng, 50), rng.uniform(0.3, 2.0, 50)
    offset = rng.normal(size=(50, 2))
    points = lift(uvd, scale, offset, SPEC.focal, SPEC.depth_range_m)
    relative = points - points[:, :1]
    weights = rng.uniform(0, 1, (50, 36))
    got = fit_camera_scale(uvd[..., :2], relative, offset, SPEC.focal, weights)
    np.testing.assert_allclose(got, scale, rtol=1e-9)


def test_points_without_weight_do_not_count(rng: np.random.Generator) -> None:
    uvd, scale = random_uvd(rng, 10), rng.uniform(0.3, 2.0, 10)
    offset = np.zeros((10, 2))
    points = lift(uvd, scale, offset, SPEC.focal, SPEC.depth_range_m)
    relative = points - points[:, :1]
    weights = (rng.uniform(size=(10, 36)) < 0.5).astype(float)
    spoilt = np.where(weights[..., None] > 0, relative, 7.0)
    spoilt[:, 0] = 0.0
    got = fit_camera_scale(uvd[..., :2], spoilt, offset, SPEC.focal, weights)
    np.testing.assert_allclose(got, scale, rtol=1e-9)


def test_the_fit_minimises_the_stated_residual(rng: np.random.Generator) -> None:
    uv, xyz = rng.uniform(-0.5, 0.5, (4, 36, 2)), rng.normal(scale=0.3, size=(4, 36, 3))
    xyz[..., :2] += 0.8 * uv  # noisy, but seen from a positive depth
    offset, weights = rng.normal(scale=0.3, size=(4, 2)), rng.uniform(size=(4, 36))

    def residual(scale: Array) -> Array:
        depth = SPEC.focal / scale
        left = depth[:, None, None] * (uv - uv[:, :1])
        right = SPEC.focal * xyz[..., :2] - (uv + offset[:, None]) * xyz[..., 2:]
        return (weights[..., None] * (left - right) ** 2).sum((1, 2))

    best = fit_camera_scale(uv, xyz, offset, SPEC.focal, weights)
    assert (residual(best) < residual(best * 1.01)).all()
    assert (residual(best) < residual(best * 0.99)).all()


def test_an_impossible_fit_stays_in_front_of_the_camera(rng: np.random.Generator) -> None:
    uv = rng.uniform(-0.5, 0.5, (1, 36, 2))
    behind = np.concatenate([-(uv - uv[:, :1]), np.zeros((1, 36, 1))], -1)
    got = fit_camera_scale(uv, behind, np.zeros((1, 2)), SPEC.focal, np.ones((1, 36)))
    np.testing.assert_allclose(got, SPEC.focal / MIN_DEPTH_M)


def test_a_fit_without_evidence_is_refused() -> None:
    uv = np.random.default_rng(0).uniform(size=(2, 36, 2))
    weights = np.ones((2, 36))
    weights[1, 1:] = 0.0  # the pelvis alone
    with pytest.raises(ContractError, match=r"rows \[1\]"):
        fit_camera_scale(uv, np.zeros((2, 36, 3)), np.zeros((2, 2)), SPEC.focal, weights)
