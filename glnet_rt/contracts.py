"""The data that flows Frame -> Crop -> NetOutput -> Person / Result. Frozen, checked where created.

Frames of reference, stated once:
    image px    x right, y down; the centre of the top-left pixel is (0, 0), as in OpenCV.
    box         `bbox_xyxy`, edges in px; the pixel (0, 0) covers [0, 1) x [0, 1), so the whole
                image is (0, 0, width, height). `crop.py` alone converts between the two.
    crop (u, v) in [-0.5, 0.5], left to right and top to bottom of the square crop.
    camera      x right, y down, z forward, metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt.errors import ContractError, GlnetError
from glnet_rt.skeleton import NUM_JOINTS, NUM_KEYPOINTS
from glnet_rt.spec import NetSpec

Array = np.ndarray[Any, Any]


def check_array(
    name: str, value: object, shape: tuple[int | None, ...], dtype: type, *, finite: bool = False
) -> None:
    """Raise ContractError unless `value` is an array of `shape` (None: any length) and `dtype`."""
    if not isinstance(value, np.ndarray):
        raise ContractError(
            f"{name} is no array", got=type(value).__name__, expected="numpy.ndarray"
        )
    if value.shape != shape and not _fits(value.shape, shape):
        wanted = "[" + ", ".join("*" if n is None else str(n) for n in shape) + "]"
        raise ContractError(f"{name} has the wrong shape", got=list(value.shape), expected=wanted)
    if value.dtype != dtype:
        raise ContractError(
            f"{name} has the wrong dtype",
            got=value.dtype,
            expected=np.dtype(dtype),
            fix=f"convert it: {name}.astype(numpy.{np.dtype(dtype).name})",
        )
    if finite and not np.isfinite(value).all():
        raise ContractError(
            f"{name} holds NaN or infinity", got="non-finite values", expected="finite numbers"
        )


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether a shape is the wanted one, where None stands for any length."""
    return len(shape) == len(wanted) and all(
        n is None or n == m for n, m in zip(wanted, shape, strict=True)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture with the time it was taken.

    Attributes:
        image: [H, W, 3] uint8, BGR, not empty.
        frame_id: position in its source, from 0.
        timestamp_ns: capture time, whole ns, not negative, growing within a source.
        K: [3, 3] float64 intrinsics, px, or None where the lens is unknown.
    """

    image: Array
    frame_id: int = 0
    timestamp_ns: int = 0
    K: Array | None = None

    def __post_init__(self) -> None:
        check_image(self.image)
        check_time(self.timestamp_ns)
        if self.K is not None:
            check_array("K", self.K, (3, 3), np.float64, finite=True)
            if self.K[0, 0] <= 0 or self.K[1, 1] <= 0:
                raise ContractError(
                    "K has a focal length that is not positive",
                    got=(float(self.K[0, 0]), float(self.K[1, 1])),
                    expected="fx > 0 and fy > 0, px",
                )


def check_time(timestamp_ns: object) -> None:
    """Raise ContractError unless `timestamp_ns` is a whole number of nanoseconds, 0 or more."""
    if not isinstance(timestamp_ns, (int, np.integer)) or timestamp_ns < 0:
        raise ContractError(
            "the capture time is no whole number of nanoseconds",
            got=f"{timestamp_ns!r} ({type(timestamp_ns).__name__})",
            expected="an int >= 0",
            fix="give time.monotonic_ns() as it is; from seconds: round(seconds * 1e9)",
        )


def check_image(image: object) -> None:
    """Raise ContractError unless `image` is [H, W, 3] uint8 and not empty."""
    if not isinstance(image, np.ndarray):
        raise ContractError(
            "the image is no array",
            got=type(image).__name__,
            expected="numpy.ndarray [H, W, 3] uint8 BGR",
            fix="read it with cv2.imread, or hand over the file's path",
        )
    if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size:
        return
    if image.size == 0:
        raise ContractError(
            "the image is empty",
            got=list(image.shape),
            expected="[H, W, 3], H > 0 and W > 0",
            fix="check the slice or the reader that made it",
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise ContractError(
            "the image has the wrong number of channels or dimensions",
            got=list(image.shape),
            expected="[H, W, 3] BGR",
            fix="grey: cv2.cvtColor(image, cv2.COLOR_GRAY2BGR); "
            "with alpha: cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)",
        )
    if np.issubdtype(image.dtype, np.floating) and not np.isfinite(image).all():
        raise ContractError(
            "the image holds NaN or infinity",
            got=f"{image.dtype}, {int((~np.isfinite(image)).sum())} values not finite",
            expected="uint8 in [0, 255]",
            fix="mend the source of the picture; numpy.nan_to_num hides the fault",
        )
    raise ContractError(
        "the image has the wrong dtype",
        got=image.dtype,
        expected="uint8 in [0, 255]",
        fix="scale floats in [0, 1] first: (image * 255).round().astype(numpy.uint8)",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """One person, cut out of a frame and ready for the network.

    Attributes:
        pixels: [S, S, 3] uint8, BGR.
        crop_from_image: [2, 3] float64, affine, image px -> crop px (pixel centres on integers).
        bbox_xyxy: [4] float64, the person's box as given, edges in image px.
        center_px: [2] float64, centre of the square, image px (pixel centres on integers).
        side_px: side of the square in the image, px.
        frame_id: the `Frame` it was cut from.
    """

    pixels: Array
    crop_from_image: Array
    bbox_xyxy: Array
    center_px: Array
    side_px: float
    frame_id: int = 0

    def __post_init__(self) -> None:
        check_array("crop.pixels", self.pixels, (None, None, 3), np.uint8)
        check_array("crop.crop_from_image", self.crop_from_image, (2, 3), np.float64, finite=True)
        check_array("crop.bbox_xyxy", self.bbox_xyxy, (4,), np.float64, finite=True)
        check_array("crop.center_px", self.center_px, (2,), np.float64, finite=True)
        if not self.side_px > 0:
            raise ContractError("the crop has no size", got=self.side_px, expected="side_px > 0")


@dataclass(frozen=True, slots=True, eq=False)
class NetOutput:
    """What the network says about B crops: the prediction of each crop's best pixel (GLNet §3.4).

    Attributes:
        score: [B] float32, probability of `person` at the winning pixel.
        pixel: [B] int64, row-major index of that pixel in the score map.
        keypoints_uvd: [B, 36, 3] float32: u, v in the crop, depth d; all nominally in [-0.5, 0.5].
        betas: [B, 10] float32.
        camera_scale: [B] float32: s, crop widths per metre at the pelvis; depth = focal / s.
        twist: [B, 23, 2] float32, unit (cos, sin), or None for the direct representation.
        rot6d: [B, 24, 6] float32, first two columns of each local rotation, or None for decomposed.
        spread: [B, 36] float32, expected |du| + |dv| of each keypoint, or None where not told.
    """

    score: Array
    pixel: Array
    keypoints_uvd: Array
    betas: Array
    camera_scale: Array
    twist: Array | None = None
    rot6d: Array | None = None
    spread: Array | None = None

    @classmethod
    def from_arrays(cls, spec: NetSpec, arrays: Mapping[str, Array]) -> NetOutput:
        """Check a backend's raw outputs against the spec and wrap them, without copying.

        Raises:
            ContractError: an output is missing, mis-shaped, of another dtype or not finite.
        """
        score = arrays.get("score")
        batch = len(score) if isinstance(score, np.ndarray) and score.ndim else 0
        for name, shape in spec.output_shapes.items():
            dtype = np.int64 if name == "pixel" else np.float32
            check_array(f"output {name}", arrays.get(name), (batch, *shape), dtype, finite=True)
        return cls(**{name: arrays[name] for name in spec.output_shapes})

    def rows(self, people: slice) -> NetOutput:
        """Some of the people, as views."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{k: v[people] for k, v in values.items() if v is not None})


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One recovered body, in metres in the camera frame.

    Attributes:
        vertices: [V, 3] float32, m, camera frame, translation included.
        joints: [24, 3] float32, m, camera frame, SMPL order.
        keypoints_px: [36, 2] float32, image px, the network's own 2D keypoints.
        global_orient: [3, 3] float32, rotation of the pelvis, camera from body.
        body_pose: [23, 3, 3] float32, rotation of each joint relative to its parent.
        betas: [10] float32, shape.
        transl: [3] float32, m; SMPL's own: joints = joints(betas, pose) + transl.
        bbox_xyxy: [4] float32, edges in image px, the box this person was looked for in.
        score: probability of `person`, 0..1.
        K: [3, 3] float64 intrinsics that project camera metres onto image px: the caller's where
            given, else the virtual camera of GLNet's weak-perspective model.
        track_id: identity over time, or None for single images.
    """

    vertices: Array
    joints: Array
    keypoints_px: Array
    global_orient: Array
    body_pose: Array
    betas: Array
    transl: Array
    bbox_xyxy: Array
    score: float
    K: Array
    track_id: int | None = None

    def __post_init__(self) -> None:
        check_array("person.vertices", self.vertices, (None, 3), np.float32)
        check_array("person.joints", self.joints, (NUM_JOINTS, 3), np.float32)
        check_array("person.keypoints_px", self.keypoints_px, (NUM_KEYPOINTS, 2), np.float32)
        check_array("person.global_orient", self.global_orient, (3, 3), np.float32)
        check_array("person.body_pose", self.body_pose, (NUM_JOINTS - 1, 3, 3), np.float32)
        check_array("person.transl", self.transl, (3,), np.float32)
        check_array("person.K", self.K, (3, 3), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Everything recovered from one frame.

    Attributes:
        people: one `Person` per box, in the order of the boxes.
        frame_id, timestamp_ns: of the frame.
        image_size: (width, height), px; (0, 0) where there was no picture.
        faces: [F, 3] int32, triangles shared by every person's vertices.
        timings_ms: stage name -> wall milliseconds spent on this frame.
        error: of a video or live stream, why this frame alone gave no people; None: nothing wrong.
        dropped: frames of a live stream taken before this one that never came out.
        image: [H, W, 3] uint8 BGR, the frame's own, where a stream was asked for it, else None.
    """

    people: tuple[Person, ...]
    frame_id: int
    timestamp_ns: int
    image_size: tuple[int, int]
    faces: Array
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    error: GlnetError | None = None
    dropped: int = 0
    image: Array | None = None

    def save(self, path: str | Path) -> Path:
        """Write this frame, by suffix: `.npz` all arrays, `.glb` or `.obj` the bodies.

        Raises:
            ContractError: any other suffix.
        """
        from glnet_rt.out import save_result

        return save_result(self, Path(path))
