"""Nothing mis-shaped, mistyped or not finite passes between the stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from glnet_rt.contracts import Array, Crop, Frame, NetOutput, Person, check_array, check_image
from glnet_rt.errors import ContractError, GlnetError
from glnet_rt.spec import NetSpec
from tests.out_samples import person_at

IMAGE = np.zeros((4, 6, 3), np.uint8)
Check = Callable[[GlnetError], None]


# -- errors ---------------------------------------------------------------------------------------


def test_an_error_keeps_its_parts_and_tells_them() -> None:
    error = ContractError("it is wrong", got=3, expected=4, fix="add one")
    assert (error.what, error.got, error.expected, error.fix) == ("it is wrong", 3, 4, "add one")
    assert str(error) == "it is wrong\n  got: 3\n  expected: 4\n  fix: add one"
    assert isinstance(error, ValueError)
    assert str(GlnetError("alone")) == "alone"


# -- arrays ---------------------------------------------------------------------------------------


def test_a_fitting_array_passes() -> None:
    check_array("a", np.zeros((2, 5)), (None, 5), np.float64, finite=True)
    check_array("a", np.full((), np.nan), (), np.float64)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, 2.0], "a is no array"),
        (None, "a is no array"),
        (np.zeros((3, 2)), "wrong shape"),
        (np.zeros(2), "wrong shape"),
        (np.zeros((1, 2, 1)), "wrong shape"),
        (np.zeros((2, 2), np.float32), "wrong dtype"),
        (np.zeros((2, 2), np.int64), "wrong dtype"),
        (np.array([[0, np.nan]] * 2), "NaN"),
        (np.array([[0, -np.inf]] * 2), "NaN or infinity"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(value: object, message: str) -> None:
    with pytest.raises(ContractError, match=message) as caught:
        check_array("a", value, (2, 2), np.float64, finite=True)
    assert caught.value.got is not None
    assert caught.value.expected is not None


# -- images and frames ----------------------------------------------------------------------------

NAN = np.full((4, 6, 3), np.nan, np.float32)
BAD_IMAGES: dict[str, tuple[Any, str]] = {
    "nan": (NAN, "NaN or infinity"),
    "infinite": (np.full((4, 6, 3), np.inf), "NaN or infinity"),
    "no rows": (IMAGE[:0], "empty"),
    "no columns": (IMAGE[:, :0], "empty"),
    "no channels": (IMAGE[:, :, :0], "empty"),
    "float in 0..1": (IMAGE.astype(np.float32), "wrong dtype"),
    "16 bit": (IMAGE.astype(np.uint16), "wrong dtype"),
    "signed": (IMAGE.astype(np.int8), "wrong dtype"),
    "boolean": (IMAGE.astype(bool), "wrong dtype"),
    "grey": (IMAGE[:, :, 0], "wrong number of channels"),
    "two channels": (IMAGE[:, :, :2], "wrong number of channels"),
    "with alpha": (np.zeros((4, 6, 4), np.uint8), "wrong number of channels"),
    "batch": (IMAGE[None], "wrong number of channels"),
    "channels first": (np.zeros((3, 40, 60), np.uint8), "wrong number of channels"),
    "list": (IMAGE.tolist(), "no array"),
    "path": ("photo.jpg", "no array"),
    "none": (None, "no array"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_images_that_cannot_be_used_are_refused(name: str, assert_helpful: Check) -> None:
    bad, message = BAD_IMAGES[name]
    for check in (check_image, Frame):
        with pytest.raises(ContractError, match=message) as caught:
            check(bad)
        assert_helpful(caught.value)


@pytest.mark.parametrize(
    ("K", "message"),
    [
        (np.eye(3, dtype=np.float32), "wrong dtype"),
        (np.eye(4), "wrong shape"),
        (np.eye(3).tolist(), "no array"),
        (np.full((3, 3), np.nan), "NaN"),
        (np.diag([0.0, 1, 1]), "focal length"),
        (np.diag([1.0, -1, 1]), "focal length"),
    ],
)
def test_intrinsics_that_cannot_be_used_are_refused(K: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        Frame(IMAGE, K=K)
    assert Frame(IMAGE, K=np.eye(3)).K is not None


def test_a_frame_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Frame(IMAGE).frame_id = 3  # type: ignore[misc]


# -- crops ----------------------------------------------------------------------------------------

CROP: dict[str, Any] = {
    "pixels": np.zeros((8, 8, 3), np.uint8),
    "crop_from_image": np.array([[1.0, 0, 0], [0, 1, 0]]),
    "bbox_xyxy": np.array([0.0, 0, 8, 8]),
    "center_px": np.array([3.5, 3.5]),
    "side_px": 8.0,
}


@pytest.mark.parametrize(
    "change",
    [
        {"pixels": np.zeros((8, 8, 1), np.uint8)},
        {"pixels": np.zeros((8, 8, 3), np.float32)},
        {"crop_from_image": np.eye(3)},
        {"crop_from_image": np.full((2, 3), np.inf)},
        {"bbox_xyxy": np.array([0.0, 0, 8])},
        {"bbox_xyxy": np.array([0.0, 0, 8, np.nan])},
        {"center_px": np.zeros(2, np.float32)},
        {"side_px": 0.0},
        {"side_px": float("nan")},
    ],
)
def test_crops_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    Crop(**CROP)
    with pytest.raises(ContractError, match="crop"):
        Crop(**{**CROP, **change})


# -- the network's output -------------------------------------------------------------------------


def arrays_for(spec: NetSpec, batch: int = 2) -> dict[str, Array]:
    return {
        name: np.zeros((batch, *shape), np.int64 if name == "pixel" else np.float32)
        for name, shape in spec.output_shapes.items()
    }


@pytest.mark.parametrize("representation", ["decomposed", "direct"])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_outputs_are_wrapped_without_copying(representation: str, batch: int) -> None:
    spec = NetSpec(representation=representation)
    arrays = arrays_for(spec, batch)
    output = NetOutput.from_arrays(spec, arrays)
    for name, array in arrays.items():
        assert getattr(output, name) is array
    assert (output.twist is None) == (representation == "direct")
    assert (output.rot6d is None) == (representation == "decomposed")


@pytest.mark.parametrize("name", NetSpec().output_shapes)
def test_an_output_that_does_not_fit_is_named(name: str) -> None:
    spec = NetSpec()
    good = arrays_for(spec)
    faults: list[dict[str, Array]] = [
        {key: array for key, array in good.items() if key != name},
        {**good, name: good[name][:1]},
        {**good, name: good[name][..., None]},
        {**good, name: good[name].astype(np.float64)},
    ]
    if name != "pixel":
        faults.append({**good, name: np.full_like(good[name], np.nan)})
    for arrays in faults:
        with pytest.raises(ContractError, match="output"):
            NetOutput.from_arrays(spec, arrays)
    with pytest.raises(ContractError, match=f"output {name} "):
        NetOutput.from_arrays(spec, {**good, name: good[name].astype(np.float64)})


def test_a_score_without_a_batch_is_refused() -> None:
    arrays = {**arrays_for(NetSpec()), "score": np.float32(1) * np.ones((), np.float32)}
    with pytest.raises(ContractError, match="output score"):
        NetOutput.from_arrays(NetSpec(), arrays)


# -- people ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"vertices": np.zeros((5, 2), np.float32)},
        {"joints": np.zeros((22, 3), np.float32)},
        {"keypoints_px": np.zeros((36, 3), np.float32)},
        {"global_orient": np.zeros(3, np.float32)},
        {"body_pose": np.zeros((24, 3, 3), np.float32)},
        {"transl": np.zeros(3)},
        {"K": np.eye(3, dtype=np.float32)},
    ],
)
def test_people_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    person = person_at((0.0, 0.0, 3.0))
    (name,) = change
    with pytest.raises(ContractError, match=f"person.{name}"):
        dataclasses.replace(person, **change)
    assert isinstance(dataclasses.replace(person, track_id=4), Person)
