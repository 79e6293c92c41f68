"""Crops land where the formula says, whatever the size of the square, and do not alias."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from glnet_rt import crop as cropping
from glnet_rt.contracts import Array
from glnet_rt.crop import (
    check_boxes,
    crop_from_image_affine,
    cut_crops,
    normalise,
    sample_square,
    square_around,
    whole_image_box,
    window_under,
)
from glnet_rt.errors import ContractError
from glnet_rt.spec import NetSpec

SPEC = NetSpec(input_size=128)
SIZE = SPEC.input_size
# Sides of the square, px: enlarged, about 1:1, sampled without halving, halved one to five times.
SIDES = (31.7, 90.0, 129.4, 187.3, 200.0, 260.5, 700.0, 1500.0, 5000.0)


def dot(height: int, width: int, x: float, y: float, sigma: float) -> Array:
    """[H, W, 3] uint8: one soft white dot on black, its centre anywhere between pixels."""
    rows = np.exp(-((np.arange(height) - y) ** 2) / (2 * sigma**2))
    columns = np.exp(-((np.arange(width) - x) ** 2) / (2 * sigma**2))
    grey = (255 * rows[:, None] * columns[None]).round().astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def centroid(grey: Array) -> Array:
    """(x, y) of the centre of brightness of [H, W]."""
    weights = grey.astype(np.float64)
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


def smooth_picture(height: int, width: int) -> Array:
    """[H, W, 3] uint8: slow waves, another in each channel."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [np.sin(x / 17 + k) + np.cos(y / (13 + k)) for k in range(3)]
    return (127.5 + 60 * np.stack(waves, -1)).round().astype(np.uint8)


def pixels_of(image: Array, box: object, spec: NetSpec = SPEC) -> Array:
    """[S, S, 3] uint8 under one box."""
    center_px, side_px = square_around(np.asarray(box, np.float64), spec.box_scale)
    return sample_square(image, center_px, side_px, spec.input_size)


@pytest.mark.parametrize("side", SIDES)
def test_edges_of_the_square_land_on_edges_of_the_crop(side: float) -> None:
    center = np.array([12.25, -3.5])
    affine = crop_from_image_affine(center, side, SIZE)
    corners = center[:, None] + side / 2 * np.array([[-1, 1, 0], [-1, 1, 0]])
    mapped = affine @ np.vstack([corners, np.ones(3)])
    ends = [-0.5, SIZE - 0.5, SIZE / 2 - 0.5]
    np.testing.assert_allclose(mapped, [ends, ends], atol=1e-9)


def test_the_square_keeps_the_centre_and_scales_the_longer_side() -> None:
    center, side = square_around(np.array([10.0, 20.0, 50.0, 100.0]), 1.25)
    np.testing.assert_allclose(center, [29.5, 59.5])  # edges minus half a pixel
    assert side == pytest.approx(100.0)


def test_a_box_the_size_of_the_crop_copies_its_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    box = np.array([40.0, 90.0, 40.0 + SIZE, 90.0 + SIZE])
    center, side = square_around(box, 1.0)
    np.testing.assert_array_equal(
        sample_square(image, center, side, SIZE), image[90 : 90 + SIZE, 40 : 40 + SIZE]
    )


@pytest.mark.parametrize("side", SIDES)
def test_a_dot_lands_where_the_affine_says(side: float) -> None:
    rng = np.random.default_rng(int(side))
    extent = int(side * 1.3) + 20
    step = side / SIZE
    for _ in range(6 if side < 1000 else 1):
        center = extent / 2 + rng.uniform(-5, 5, 2)
        x, y = center + rng.uniform(-0.3, 0.3, 2) * side
        image = dot(extent, extent, x, y, sigma=max(2.0, 2 * step))
        landed = centroid(sample_square(image, center, side, SIZE)[:, :, 0])
        wanted = crop_from_image_affine(center, side, SIZE) @ [x, y, 1.0]
        assert np.abs(landed - wanted).max() < 0.05, "crop px"


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_ramp_keeps_its_values(side: float, axis: int) -> None:
    """A picture whose brightness is its own coordinate reads back the coordinate sampled."""
    extent = int(side * 1.2) + 8
    rise = 255.0 / extent  # grey levels per image px
    center = np.full(2, extent / 2 - 0.75)
    scale, _, shift = crop_from_image_affine(center, side, SIZE)[0]
    wanted = (np.arange(SIZE) - shift) / scale * rise
    errors = []
    for falling in (0.0, 255.0):  # OpenCV rounds halves up: that brightens both, a shift does not
        ramp = np.abs(falling - np.arange(extent) * rise).round().astype(np.uint8)
        ramp = ramp[:, None] if axis == 0 else ramp[None]
        image = np.repeat(np.broadcast_to(ramp, (extent, extent))[:, :, None], 3, axis=2)
        got = sample_square(image, center, side, SIZE)[:, :, 1].astype(np.float64)
        got = got.mean(axis=1 - axis)
        errors.append(got - np.abs(falling - wanted))
    assert np.abs(errors).max() < 2.0
    drift = (errors[0] - errors[1]).mean() / 2 / (rise / scale)
    assert abs(drift) < 0.05, "crop px"


@pytest.mark.parametrize("side", [60.0, 100.0, 150.0, 333.0])
def test_moving_picture_and_box_together_changes_nothing(side: float) -> None:
    image = np.random.default_rng(1).integers(0, 256, (900, 900, 3), np.uint8)
    box = np.array([420.2, 430.7, 420.2 + side / 2, 430.7 + side])
    still = pixels_of(image, box)
    for dx, dy in ((1, 0), (-7, 3), (40, 55)):
        moved = np.roll(image, (dy, dx), axis=(0, 1))
        np.testing.assert_array_equal(pixels_of(moved, box + np.array([dx, dy, dx, dy])), still)


@pytest.mark.parametrize("side", [40.0, 100.0, 250.0])
def test_mirroring_picture_and_box_mirrors_the_crop(side: float) -> None:
    image = smooth_picture(400, 420)
    x0, y0, x1, y1 = box = (130.3, 90.0, 130.3 + side / 3, 90.0 + side)
    mirrored = pixels_of(image[:, ::-1], (420 - x1, y0, 420 - x0, y1))
    difference = mirrored[:, ::-1].astype(int) - pixels_of(image, box)
    assert np.abs(difference).max() <= 3
    assert abs(difference.mean()) < 0.1


@pytest.mark.parametrize("period", [2, 4, 6, 14, 30])
def test_fine_stripes_become_grey_not_moire(period: int) -> None:
    """A 6000 px photo on 128 px: stripes finer than a crop pixel must vanish into their mean."""
    stripes = np.where(np.arange(6000) % period < period // 2, 0, 255).astype(np.uint8)
    image = np.broadcast_to(stripes[None, :, None], (6000, 6000, 3))
    crop = pixels_of(image, (600, 600, 5400, 5400)).astype(float)  # 46.9 image px per crop px
    inside = crop[8:-8, 8:-8]
    assert inside.std() < 12.0  # sampling every 47th pixel would give 127
    assert inside.mean() == pytest.approx(127.5, abs=2.5)


@pytest.mark.parametrize("side", [50.0, 128.0, 400.0, 1000.0])
def test_what_lies_outside_the_image_is_black(side: float) -> None:
    image = np.full((round(side), round(side), 3), 200, np.uint8)
    center = np.array([-0.5, side / 2 - 0.5])  # the left half hangs out
    crop = sample_square(image, center, side, SIZE)
    assert not crop[:, : SIZE // 2 - 1].any()
    assert (crop[2:-2, SIZE // 2 + 1 :] == 200).all()


def test_channels_turn_to_rgb_and_are_normalised() -> None:
    image = np.empty((50, 50, 3), np.uint8)
    image[:] = (10, 100, 250)  # blue, green, red
    batch, _ = cut_crops(image, np.array([[10.0, 10.0, 40.0, 40.0]]), SPEC)
    rgb = np.array([250, 100, 10]) / 255
    wanted = (rgb - SPEC.mean) / SPEC.std
    normalised = normalise(batch, SPEC)
    assert normalised.shape == (1, *SPEC.input_shape)
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised[0, :, SIZE // 2, SIZE // 2], wanted, rtol=1e-5)
    np.testing.assert_array_equal(
        normalise(pixels_of(image, (10, 10, 40, 40)), SPEC), normalised[0]
    )


def test_normalising_is_the_formula_for_any_pixels() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, 3, 17, 19, 3), np.uint8)
    wanted = (crops[..., ::-1] / 255 - SPEC.mean) / SPEC.std
    np.testing.assert_allclose(normalise(crops, SPEC), np.moveaxis(wanted, -1, -3), atol=2e-6)
    np.testing.assert_array_equal(normalise(crops[:, ::2], SPEC), normalise(crops, SPEC)[:, ::2])


@pytest.mark.parametrize("side", SIDES)
def test_samples_are_those_of_the_obvious_way(side: float) -> None:
    """Halve, then OpenCV's warpAffine; on noise, the worst case, also across the picture's edges.

    OpenCV 5 computes as exactly, and only ties differ; OpenCV 4 rounds coordinates to 1/32 px.
    """
    image = np.random.default_rng(int(side)).integers(0, 256, (400, 500, 3), np.uint8)
    for center in (np.array([250.3, 199.8]), np.array([3.1, 5.4]), np.array([498.0, 390.7])):
        window = window_under(center, side, SIZE, (500, 400))
        pixels = image[window.rows, window.columns]
        for _ in range(window.halvings):
            height, width = pixels.shape[:2]
            even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)))
            pixels = cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        (x, y), scale = window.shift, window.scale
        wanted = cv2.warpAffine(
            pixels, np.array([[scale, 0, x], [0, scale, y]]), (SIZE, SIZE),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )  # fmt: skip
        apart = np.abs(sample_square(image, center, side, SIZE).astype(int) - wanted)
        assert apart.max() <= (1 if cv2.__version__ >= "5" else 5)
        assert (apart > 0).mean() < (0.01 if cv2.__version__ >= "5" else 0.5)


@pytest.mark.parametrize("height", [1, 2, 37, 38])
@pytest.mark.parametrize("width", [1, 2, 75, 76])
def test_halving_is_opencvs_to_the_byte(height: int, width: int) -> None:
    image = np.random.default_rng(height + width).integers(0, 256, (50, 90, 3), np.uint8)
    window = image[5 : 5 + height, 7 : 7 + width]
    even = np.pad(window, ((0, height % 2), (0, width % 2), (0, 0)))
    wanted = cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    out = np.empty((wanted.shape[0], wanted.shape[1] * 3), np.uint8)
    cropping._halve(image.reshape(50, -1), 5, 7, height, width, out)
    np.testing.assert_array_equal(out.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("side", SIDES)
def test_a_view_of_a_picture_is_cut_as_its_copy(side: float) -> None:
    whole = np.random.default_rng(1).integers(0, 256, (300, 400, 4), np.uint8)
    view, center = whole[20:, ::-1, :3], np.array([110.0, 90.0])
    np.testing.assert_array_equal(
        sample_square(view, center, side, SIZE), sample_square(view.copy(), center, side, SIZE)
    )


def test_many_boxes_make_one_batch_in_their_order() -> None:
    image = smooth_picture(300, 400)
    boxes = np.array([[10, 20, 110, 220], [200, 50, 260, 90], [-30, -30, 60, 80]], np.float64)
    batch, crops = cut_crops(image, boxes, SPEC, frame_id=7)
    assert batch.shape == (3, SIZE, SIZE, 3)
    assert batch.dtype == np.uint8
    assert batch.flags.c_contiguous
    for box, crop, pixels in zip(boxes, crops, batch, strict=True):
        assert np.shares_memory(crop.pixels, batch)
        np.testing.assert_array_equal(crop.bbox_xyxy, box)
        assert crop.frame_id == 7
        alone, _ = cut_crops(image, box[None], SPEC)
        np.testing.assert_array_equal(alone[0], pixels)
        affine = crop_from_image_affine(crop.center_px, crop.side_px, SIZE)
        np.testing.assert_array_equal(crop.crop_from_image, affine)


def test_no_boxes_make_an_empty_batch() -> None:
    batch, crops = cut_crops(smooth_picture(60, 60), np.empty((0, 4)), SPEC)
    assert batch.shape == (0, SIZE, SIZE, 3)
    assert crops == ()


def test_views_of_any_memory_layout_read_alike() -> None:
    image = smooth_picture(200, 300)
    box = (60.0, 40.0, 160.0, 180.0)
    for view in (image[:, ::-1], image[::-1], image[:, :, ::-1], np.asfortranarray(image)):
        packed = np.ascontiguousarray(view)
        np.testing.assert_array_equal(pixels_of(view, box), pixels_of(packed, box))
    wide = np.repeat(image, 2, axis=1)
    np.testing.assert_array_equal(pixels_of(wide[:, ::2], box), pixels_of(image, box))


@pytest.mark.parametrize("shape", [(20, 40_000, 3), (40_000, 20, 3), (3, 700, 3)])
def test_pictures_of_extreme_shape_are_cropped(shape: tuple[int, int, int]) -> None:
    image = np.full(shape, 90, np.uint8)
    center_px, side_px = square_around(whole_image_box(image), SPEC.box_scale)
    crop = sample_square(image, center_px, side_px, SIZE)
    covered = crop.astype(float).sum() / 90 / 3  # crop pixels that the picture covers
    wanted = shape[0] * shape[1] * (SIZE / side_px) ** 2
    assert covered == pytest.approx(wanted, rel=0.4)  # a line thinner than a crop px beats with it


def test_a_picture_of_one_pixel_is_cropped() -> None:
    crop = sample_square(np.full((1, 1, 3), 90, np.uint8), np.zeros(2), 4.0, SIZE)
    assert 80 <= crop.max() <= 90
    np.testing.assert_allclose(centroid(crop[:, :, 0]), SIZE / 2 - 0.5, atol=0.5)


def test_a_box_far_larger_than_the_picture_is_still_a_box() -> None:
    image = np.full((100, 100, 3), 255, np.uint8)
    _, crops = cut_crops(image, np.array([[-5e6, -5e6, 5e6, 5e6]]), SPEC)
    assert crops[0].side_px == pytest.approx(1.25e7)


def test_the_whole_image_box_is_in_edges() -> None:
    np.testing.assert_array_equal(whole_image_box(np.zeros((4, 9, 3), np.uint8)), [0, 0, 9, 4])


BAD_BOXES = {
    "nan": ([[0, 0, math.nan, 9]], "NaN"),
    "infinite": ([[0, 0, math.inf, 9]], "NaN"),
    "overflowing": ([[0, 0, 1e300, 9]], "beyond any picture"),
    "empty": ([[5, 5, 5, 9]], "empty or inverted"),
    "inverted": ([[9, 5, 5, 9]], "empty or inverted"),
    "inverted in y": ([[1, 9, 5, 5]], "empty or inverted"),
    "tiny": ([[5, 5, 6.5, 40]], "too small"),
    "fractions": ([[0.1, 0.1, 0.9, 0.9]], "too small"),
    "left": ([[-40, 5, 0, 30]], "outside"),
    "right": ([[100, 5, 140, 30]], "outside"),
    "above": ([[5, -40, 30, 0]], "outside"),
    "below": ([[5, 80, 30, 120]], "outside"),
    "one box": ([5, 5, 20, 20], "wrong shape"),
    "with scores": ([[5, 5, 20, 20, 0.9]], "wrong shape"),
    "ragged": ([[5, 5, 20, 20], [1, 2]], "no array of numbers"),
    "text": ("everyone", "no array of numbers"),
    "none": ([None], "wrong shape"),
}


@pytest.mark.parametrize("name", BAD_BOXES)
def test_boxes_that_hold_no_person_are_refused(name: str, assert_helpful) -> None:
    boxes, message = BAD_BOXES[name]
    with pytest.raises(ContractError, match=message) as caught:
        check_boxes(boxes, (100, 80))
    assert_helpful(caught.value)


def test_the_message_names_the_bad_box() -> None:
    with pytest.raises(ContractError, match="box 1 is empty"):
        check_boxes([[0, 0, 50, 50], [8, 8, 8, 8]], (100, 80))


@pytest.mark.parametrize("boxes", [[], np.empty((0, 4)), ()])
def test_no_boxes_are_fine(boxes: object) -> None:
    assert check_boxes(boxes, (100, 80)).shape == (0, 4)


def test_boxes_that_touch_the_picture_are_accepted() -> None:
    boxes = [[-40, 5, 0.5, 30], [99.5, 5, 140, 30], [5, -40, 30, 0.5], [5, 79.5, 30, 120]]
    assert check_boxes(boxes, (100, 80)).dtype == np.float64
