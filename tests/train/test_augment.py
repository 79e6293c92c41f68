"""Augmented crops: labels follow the pixels, through mirror, turn, scale and shift."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from glnet_rt import camera
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.skeleton import FLIP_KEYPOINTS, NUM_JOINTS, NUM_KEYPOINTS
from glnet_rt.spec import NetSpec
from train.data.augment import (
    NO_AUGMENTATION,
    AugmentConfig,
    CropTransform,
    flipped,
    make_crop,
    warp_surface,
)
from train.data.sample import Sample
from train.model.kinematics import forward_kinematics

SPEC = NetSpec(input_size=128)
PICTURE = 160
STRONG = AugmentConfig(rotation_deg=40, shift=0.15, colour=0, grey=0, noise=0)


def sample(seed: int = 0) -> Sample:
    """A skeleton seen by the very camera the network assumes, drawn as one dot per keypoint."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-0.7, 0.7, (NUM_KEYPOINTS, 3)).astype(np.float32)
    xyz[0] = 0
    side = 1.25 / 1.5
    # Seen through the whole picture, whose side is 1 / side crops.
    depth = 5.0
    uv = SPEC.focal * side * xyz[:, :2] / (xyz[:, 2:] + depth)
    image = np.zeros((PICTURE, PICTURE, 3), np.uint8)
    twist = rng.normal(size=(23, 2)).astype(np.float32)
    return Sample(
        image=image,
        crop_side=side,
        uv=uv.astype(np.float32),
        labelled=np.ones(NUM_KEYPOINTS, np.float32),
        seen=np.ones(NUM_KEYPOINTS, np.float32),
        xyz=xyz,
        located=np.ones(NUM_KEYPOINTS, np.float32),
        rotmats=rotvec_to_rotmat(rng.normal(size=(24, 3))).astype(np.float32),
        twist=twist / np.linalg.norm(twist, axis=-1, keepdims=True),
        betas=rng.normal(size=10).astype(np.float32),
    )


@pytest.mark.parametrize("seed", range(6))
def test_uv_and_pixels_move_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    transform = CropTransform.draw(rng, STRONG, 0.83)
    uv = rng.uniform(-0.25, 0.25, 2)
    pixel = (uv + 0.5) * PICTURE - 0.5
    image = np.zeros((PICTURE, PICTURE), np.float32)
    yy, xx = np.mgrid[:PICTURE, :PICTURE]
    image += np.exp(-((xx - pixel[0]) ** 2 + (yy - pixel[1]) ** 2) / (2 * 3.0**2)).astype("f")
    crop = cv2.warpAffine(image, transform.affine(PICTURE, 128), (128, 128))
    cy, cx = (np.mgrid[:128, :128] * crop).sum((1, 2)) / crop.sum()
    seen = np.array([-uv[0], uv[1]]) if transform.flip else uv
    expected = (transform.uv(seen) + 0.5) * 128 - 0.5
    np.testing.assert_allclose([cx, cy], expected, atol=0.05)


@pytest.mark.parametrize("seed", range(6))
def test_lifting_the_labels_gives_the_labelled_body(seed: int) -> None:
    config = AugmentConfig(shift=0, colour=0, grey=0, noise=0, rotation_deg=60)
    crop = make_crop(sample(seed), SPEC, config, np.random.default_rng(seed))
    lifted = camera.lift(
        crop.keypoints_uvd[None], crop.camera_scale[None], np.zeros((1, 2)), SPEC.focal, 2.2
    )[0]
    lifted = lifted - lifted[0]
    # A closer or farther crop is another lens; scale draws change only what the scale explains.
    norm = np.linalg.norm(crop.xyz, axis=1).mean()
    assert np.linalg.norm(lifted - crop.xyz, axis=1).mean() < 0.06 * norm


def test_without_augmentation_lifting_is_exact() -> None:
    crop = make_crop(sample(), SPEC, NO_AUGMENTATION, np.random.default_rng(0))
    lifted = camera.lift(
        crop.keypoints_uvd[None], crop.camera_scale[None], np.zeros((1, 2)), SPEC.focal, 2.2
    )[0]
    np.testing.assert_allclose(lifted - lifted[0], crop.xyz, atol=1e-4)
    assert crop.camera_scale == pytest.approx(SPEC.focal / 5.0, rel=1e-4)


def test_mirroring_twice_changes_nothing() -> None:
    original = sample(1)
    again = flipped(flipped(original))
    for name in ("uv", "xyz", "rotmats", "twist", "betas", "seen"):
        np.testing.assert_allclose(getattr(again, name), getattr(original, name), err_msg=name)


def test_mirrored_rotations_pose_the_mirrored_skeleton() -> None:
    torch = pytest.importorskip("torch")
    original = sample(2)
    rng = np.random.default_rng(5)
    half = rng.normal(size=(24, 3)) * 0.2
    mirror = np.array([-1, 1, 1])
    joints = list(FLIP_KEYPOINTS[:24])
    rest = (half + half[joints] * mirror) / 2  # a symmetric body
    mirrored = flipped(original)

    def pose(rotmats: np.ndarray) -> np.ndarray:
        arguments = (torch.tensor(rotmats[None]).double(), torch.tensor(rest[None]))
        return forward_kinematics(*arguments)[1][0].numpy()

    expected = pose(original.rotmats)[joints] * mirror
    expected = expected - expected[0]
    actual = pose(mirrored.rotmats)
    np.testing.assert_allclose(actual - actual[0], expected, atol=1e-5)


def test_same_seed_same_crop() -> None:
    one, two = (
        make_crop(sample(), SPEC, AugmentConfig(), np.random.default_rng(4)) for _ in range(2)
    )
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.keypoints_uvd, two.keypoints_uvd)


def test_far_away_keypoints_weigh_less_and_never_match() -> None:
    crop = make_crop(sample(), SPEC, STRONG, np.random.default_rng(3))
    outside = np.abs(crop.keypoints_uvd[:, :2]).max(1) > 0.5
    assert outside.any() or crop.inside.all()
    assert (crop.seen[outside] == 0).all()
    assert (crop.uv_weight[outside] == np.float32(STRONG.outside_weight)).all()
    assert (crop.uv_weight[~outside] == 1).all()


@pytest.mark.parametrize("seed", range(6))
def test_surface_moves_with_the_pixels(seed: int) -> None:
    transform = CropTransform.draw(np.random.default_rng(seed), STRONG, 0.83)
    cells, grid = 40, 24
    surface = np.full((cells, cells, 4), -128, np.int8)
    surface[14:17, 20:23] = (60, -35, 12, -80)
    found = warp_surface(surface, transform, grid)
    mask = found[0] > 0
    assert 2 <= mask.sum() <= 12
    side = -1 if transform.flip else 1
    for got, metres in zip(found[1:], (0.60 * side, -0.35, 0.12, -0.80), strict=True):
        np.testing.assert_allclose(got[mask], metres, atol=1e-6)
        assert not got[~mask].any()
    uv = (np.array([21.5, 15.5]) / cells - 0.5) * [side, 1]
    middle = (transform.uv(uv) + 0.5) * grid - 0.5
    np.testing.assert_allclose(np.argwhere(mask).mean(0)[::-1], middle, atol=0.8)


def test_crops_of_unknown_surface_say_so() -> None:
    crop = make_crop(sample(), SPEC, NO_AUGMENTATION, np.random.default_rng(0))
    assert crop.has_surface == 0
    assert crop.surface.shape == (5, 32, 32)
    assert not crop.surface.any()


def test_crops_without_3d_labels_say_so() -> None:
    flat = dataclasses.replace(
        sample(),
        located=np.zeros(NUM_KEYPOINTS, np.float32),
        has_rotation=np.zeros(NUM_JOINTS, np.float32),
        has_betas=0.0,
    )
    crop = make_crop(flat, SPEC, STRONG, np.random.default_rng(3))
    assert crop.has_scale == 0
    assert not crop.has_rotation.any()
    assert crop.has_betas == 0
    assert not crop.depth_weight.any()
    assert crop.uv_weight.any()
    assert make_crop(sample(), SPEC, STRONG, np.random.default_rng(3)).has_scale == 1


def test_masks_of_rotations_change_sides_in_a_mirror() -> None:
    told = np.ones(NUM_JOINTS, np.float32)
    told[[18, 22]] = 0  # left elbow and hand
    mirrored = flipped(dataclasses.replace(sample(), has_rotation=told, has_betas=0.0))
    np.testing.assert_array_equal(np.flatnonzero(mirrored.has_rotation == 0), [19, 23])
    assert mirrored.has_betas == 0
