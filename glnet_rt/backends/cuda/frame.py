"""What the kernels are told of one frame: the Python twin of `kernels/frame.h`."""

from __future__ import annotations

import math

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.crop import MAX_BILINEAR_STEP, window_under
from glnet_rt.decode import crop_lenses
from glnet_rt.errors import BackendError
from glnet_rt.spec import NetSpec

MAX_PEOPLE = 32  # the largest bucket; `MAX_PEOPLE` in frame.h
WRITTEN = (
    "score", "betas", "rotmats", "transl", "joints", "keypoints_px", "vertices", "status",
)  # fmt: skip
_MAX_HALVINGS = 24  # `MAX_HALVINGS` in crop.h

PERSON_PARAMS = np.dtype(
    [
        ("window", np.int32, 4),  # first column, first row, columns, rows
        ("halvings", np.int32),
        ("scale", np.float32),
        ("shift", np.float32, 2),
        ("offset", np.float32, 2),
        ("focal", np.float32, 2),
        ("center", np.float32, 2),
        ("side", np.float32),
        ("unused", np.int32),
    ]
)
FRAME_PARAMS = np.dtype(
    [
        ("frame", np.uint64),
        *((name, np.uint64) for name in WRITTEN),
        ("stride", np.int32),
        ("people", np.int32),
        ("person", PERSON_PARAMS, MAX_PEOPLE),
    ]
)
_FAULTS = {
    1: "the camera scale is not positive",
    2: "an expected keypoint error is not above zero",
    4: "an output is NaN or infinite",
}


def scratch_side(input_size: int) -> int:
    """Side, px, of the square that holds any halved window of a crop of this size."""
    # At most MAX_BILINEAR_STEP halved pixels a crop pixel, one more at each end as a margin, and
    # what rounding to whole pixels and whole blocks adds.
    return math.ceil(MAX_BILINEAR_STEP * input_size) + 6


def write_people(
    params: Array,
    center_px: Array,
    side_px: Array,
    image_size: tuple[int, int],
    spec: NetSpec,
    K: Array | None,
) -> list[Array]:
    """Fill `params["people"]` and `params["person"]`.

    Args:
        params: [] of FRAME_PARAMS, written in place.
        center_px: [B, 2] and side_px: [B], of each person's square, image px; B <= MAX_PEOPLE.
        image_size: (width, height), px.
        spec: for the input size and the virtual camera.
        K: [3, 3] intrinsics, px, or None.

    Returns:
        B times [3, 3] float64: the intrinsics each person is seen through.

    Raises:
        ContractError: K is no pinhole matrix.
    """
    focal, offset, intrinsics = crop_lenses(center_px, side_px, image_size, spec, K)
    count = len(side_px)
    params["people"] = count
    people = params["person"][:count]
    for person, center, side in zip(people, center_px, side_px.tolist(), strict=True):
        window = window_under(center, side, spec.input_size, image_size)
        assert window.halvings <= _MAX_HALVINGS
        columns, rows = window.columns, window.rows
        extent = (columns.stop - columns.start, rows.stop - rows.start)
        person["window"] = (columns.start, rows.start, *extent)
        person["halvings"] = window.halvings
        person["scale"] = window.scale
        person["shift"] = window.shift
    people["offset"] = offset
    people["focal"] = focal
    people["center"] = center_px
    people["side"] = side_px
    return intrinsics


def check_status(status: Array) -> None:
    """Raise BackendError where the decoder refused what the network said of somebody.

    Args:
        status: [B] int32, bits of `Fault` in frame.h.
    """
    bad = np.flatnonzero(status)
    if len(bad):
        reasons = [text for bit, text in _FAULTS.items() if (status[bad] & bit).any()]
        raise BackendError(
            "the network's output cannot be decoded",
            got=f"crops {bad.tolist()}: {'; '.join(reasons)}",
            expected="finite numbers, a camera scale above zero",
            fix="the model diverged on this picture or is untrained; run `glnet-rt verify`, and "
            "try another precision",
        )
