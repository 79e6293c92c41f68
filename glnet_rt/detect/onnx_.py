"""Any person detector in an ONNX file: its layout is told from its outputs, or by the caller.

Layouts, N boxes in one picture, C classes:

    yolo              one output [1, 4 + C, N]: centre x, y, width, height in input px, then the
                      classes' scores (YOLOv8, v9, 11, 12)
    yolo-objectness   one output [1, N, 5 + C]: the same box, objectness, classes (YOLOv5, v6, v7;
                      YOLOX with its grid decoded in the graph)
    end-to-end        one output [1, N, 6]: edges in input px, score, class (YOLOv10, YOLO26, and
                      exports with suppression inside)
    detr              `logits` [1, N, C] without softmax and boxes [1, N, 4]: centre and size as
                      fractions of the input (RT-DETR, D-FINE, RF-DETR, DETR trained with sigmoid)
    boxes             `boxes` [1, N, 4], edges in input px, `scores` [1, N], perhaps `labels` [1, N]
                      (this project's own, torchvision's, RT-DETR's own deployment)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from glnet_rt._closing import Closing
from glnet_rt.backends.onnxruntime_ import open_session
from glnet_rt.contracts import Array, Frame
from glnet_rt.detect.base import Detections
from glnet_rt.detect.boxes import clip, suppress
from glnet_rt.errors import BackendError, ContractError, SourceError

LAYOUTS = ("yolo", "yolo-objectness", "end-to-end", "detr", "boxes")
_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_GREY = (114, 114, 114)  # what YOLO's own letterbox paints beside the picture
_FEW = 1000  # boxes: that few only come out of a network that suppressed duplicates itself
_SIZES_INPUT = "orig_target_sizes"  # RT-DETR's deployment asks for the size of the picture
_LEAST_PX = 4.0  # smaller boxes hold nobody


@dataclass(frozen=True)
class OnnxConfig:
    """What a file does not say.

    Attributes:
        layout: one of `LAYOUTS`, or `auto` to tell it from names and shapes.
        person: index of the class of people; 0 in COCO's 80, 1 in its 91 (DETR).
        score: boxes less sure than this are dropped. Less finds more people, and more else.
        overlap: IoU from which two boxes are one person; also where the network suppresses.
        input_px: longer side of the input where the file leaves it free. Time grows with its
            square, and people smaller than about 20 px of it are missed.
        multiple: the sides of a free input are multiples of it.
        threads: CPU threads; None leaves it to ONNX Runtime.
    """

    layout: str = "auto"
    person: int = 0
    score: float = 0.3
    overlap: float = 0.55
    input_px: int = 640
    multiple: int = 32
    threads: int | None = 1


class OnnxDetector(Closing):
    """A detector in an ONNX file, run by ONNX Runtime on the CPU.

    The picture is made to fit the input without distortion, RGB in [0, 1], grey beside it.

    Args:
        path: of the file.
        config: see `OnnxConfig`.
        name: what messages call it; None takes the file's name.

    Raises:
        SourceError: no such file.
        ContractError: its inputs or outputs are no detector's of a known layout.
        BackendError, MissingDependencyError: ONNX Runtime cannot open it.
    """

    every_frame = False
    exhaustive = False

    def __init__(
        self, path: str | Path, config: OnnxConfig | None = None, name: str | None = None
    ) -> None:
        self.config = OnnxConfig() if config is None else config
        path = Path(path)
        self.name = path.name if name is None else name
        if not path.is_file():
            raise SourceError(
                "there is no such detector file",
                got=str(path),
                expected="an .onnx file",
                fix="check the path; relative ones start at the current folder",
            )
        self._session = open_session(path.read_bytes(), path.name, self.config.threads)
        self._input, self._wants_size = _picture_input(self._session.get_inputs(), self.name)
        self._fixed = _fixed_size(self._input.shape)
        outputs = {node.name: _shape(node.shape) for node in self._session.get_outputs()}
        self.layout = layout_of(outputs, self.config.layout, self.name)
        self._names = list(outputs)

    def __call__(self, frame: Frame) -> Detections:
        if self._session is None:
            raise BackendError(
                f"the detector {self.name} is closed",
                got="a call after close()",
                expected="an open one",
                fix="open it again",
            )
        height, width = frame.image.shape[:2]
        size = self._fixed or free_size((width, height), self.config)
        picture, scale = letterbox(frame.image, size)
        boxes, scores = self._people(self._infer(picture), size)
        kept = (scores >= self.config.score) & np.isfinite(boxes).all(1)
        boxes, scores = clip(boxes[kept] / scale, (width, height)), np.clip(scores[kept], 0, 1)
        there = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf) >= _LEAST_PX
        boxes, scores = boxes[there], scores[there]
        kept_rows = suppress(boxes, scores, self.config.overlap)
        return Detections(boxes[kept_rows], scores[kept_rows])

    def _infer(self, picture: Array) -> dict[str, Array]:
        feed = {self._input.name: picture.astype(_INPUT_TYPES[self._input.type], copy=False)}
        if self._wants_size:
            feed[_SIZES_INPUT] = np.array([picture.shape[2:]], np.int64)
        try:
            outputs = self._session.run(self._names, feed)
        except Exception as error:  # its exception types share no base of their own
            raise BackendError(
                f"the detector {self.name} failed while running",
                got=f"input {list(picture.shape)}: {error}",
                expected="a network that takes this input",
                fix="export it with a fixed input size, or with both sides free",
            ) from error
        return dict(zip(self._names, outputs, strict=True))

    def _people(self, outputs: Mapping[str, Array], size: tuple[int, int]) -> tuple[Array, Array]:
        """Boxes [N, 4] in input px and scores [N], both float64, of people alone."""
        read = {
            "yolo": _read_yolo,
            "yolo-objectness": _read_objectness,
            "end-to-end": _read_end_to_end,
            "detr": _read_detr,
            "boxes": _read_boxes,
        }[self.layout]
        arrays = {name: np.asarray(value, np.float64) for name, value in outputs.items()}
        try:
            boxes, scores = read(arrays, self.config.person, size)
        except IndexError as error:
            raise ContractError(
                f"the detector {self.name} has no such class",
                got=f"person = {self.config.person}, {error}",
                expected="the index of its class of people",
                fix="set OnnxConfig(person=...)",
            ) from error
        return boxes.reshape(-1, 4), scores.reshape(-1)

    def close(self) -> None:
        """Free the session. Calling it again does nothing."""
        self._session = None


def layout_of(
    outputs: Mapping[str, tuple[int | None, ...]], stated: str, name: str = "the detector"
) -> str:
    """Tell a layout from the outputs' names and shapes, or check the one that is stated.

    Args:
        outputs: name -> shape, None where a side is free.
        stated: one of `LAYOUTS`, or `auto`.
        name: what messages call it.

    Raises:
        ContractError: none fits, more than one does, or the stated one does not.
    """
    if stated != "auto" and stated not in LAYOUTS:
        raise ContractError(
            "unknown detector layout",
            got=stated,
            expected=", ".join(("auto", *LAYOUTS)),
            fix="take one of these",
        )
    if stated == "auto":
        fitting = [layout for layout in LAYOUTS if _fits(layout, outputs)]
    else:
        fitting = [stated] if _could_be(stated, outputs) else []
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(f"{key} {_show(shape)}" for key, shape in outputs.items())
    raise ContractError(
        f"the outputs of {name} fit {' and '.join(fitting) if fitting else 'no known layout'}",
        got=shown,
        expected=f"the outputs of {'one of ' + ', '.join(LAYOUTS) if stated == 'auto' else stated}",
        fix="state the right one: OnnxConfig(layout=...), --detector-layout on the command line"
        if fitting
        else "export it again in one of the layouts of docs/tracking.md",
    )


def _could_be(layout: str, outputs: Mapping[str, tuple[int | None, ...]]) -> bool:
    """Whether nothing in names and shapes speaks against a layout."""
    shapes = list(outputs.values())
    if layout == "boxes":
        return _pick(outputs, ("boxes",)) is not None and _pick(outputs, ("scores",)) is not None
    if layout == "detr":
        return _pick(outputs, _LOGITS) is not None and _pick(outputs, _DETR_BOXES) is not None
    if len(shapes) != 1 or len(shapes[0]) != 3:
        return False
    rows, columns = shapes[0][1:]
    if layout == "yolo":
        return rows is None or rows >= 5
    if layout == "end-to-end":
        return columns in (None, 6)
    return columns is None or columns >= 6


def _fits(layout: str, outputs: Mapping[str, tuple[int | None, ...]]) -> bool:
    """Whether a layout is also what such shapes mostly mean."""
    if not _could_be(layout, outputs):
        return False
    if layout in ("boxes", "detr"):
        return True
    rows, columns = next(iter(outputs.values()))[1:]
    # Boxes are many and their numbers few; a free side is the one of the boxes.
    if layout == "yolo":
        return rows is not None and (columns is None or columns > rows)
    if columns is None or (rows is not None and rows <= columns):
        return False
    if layout == "end-to-end":
        return rows is None or rows <= _FEW
    return columns > 6 or rows is None or rows > _FEW


_LOGITS = ("logits", "pred_logits")
_DETR_BOXES = ("boxes", "pred_boxes")


def _pick(outputs: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The output of the first of these names, None without one."""
    return next((outputs[name] for name in names if name in outputs), None)


def _read_yolo(outputs: Mapping[str, Array], person: int, size: object) -> tuple[Array, Array]:
    (rows,) = outputs.values()
    return _edges(rows[0, :4].T), rows[0, 4:][person]


def _read_objectness(
    outputs: Mapping[str, Array], person: int, size: object
) -> tuple[Array, Array]:
    (rows,) = outputs.values()
    return _edges(rows[0, :, :4]), rows[0, :, 4] * rows[0].T[5:][person]


def _read_end_to_end(
    outputs: Mapping[str, Array], person: int, size: object
) -> tuple[Array, Array]:
    (rows,) = outputs.values()
    return rows[0, :, :4], np.where(np.rint(rows[0, :, 5]) == person, rows[0, :, 4], 0.0)


def _read_detr(
    outputs: Mapping[str, Array], person: int, size: tuple[int, int]
) -> tuple[Array, Array]:
    logits, boxes = _pick(outputs, _LOGITS), _pick(outputs, _DETR_BOXES)
    scores = 1 / (1 + np.exp(-np.clip(logits[0].T[person], -60, 60)))
    return _edges(boxes[0]) * np.array([*size, *size]), scores


def _read_boxes(outputs: Mapping[str, Array], person: int, size: object) -> tuple[Array, Array]:
    scores = outputs["scores"].reshape(-1)
    if "labels" in outputs:
        scores = np.where(np.rint(outputs["labels"].reshape(-1)) == person, scores, 0.0)
    return outputs["boxes"].reshape(-1, 4), scores


def _edges(boxes: Array) -> Array:
    """[N, 4] centre and size -> edges."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)


def letterbox(image: Array, size: tuple[int, int]) -> tuple[Array, float]:
    """Fit a picture into an input, top left, undistorted.

    Args:
        image: [H, W, 3] uint8, BGR.
        size: (width, height) of the input, px.

    Returns:
        [1, 3, height, width] float32, RGB in [0, 1]; and input px per picture px.
    """
    height, width = image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(image, fitted, interpolation=how) if fitted != (width, height) else image
    right, below = size[0] - fitted[0], size[1] - fitted[1]
    small = cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_CONSTANT, value=_GREY)
    return cv2.dnn.blobFromImage(small, 1 / 255, swapRB=True), scale


def free_size(image_size: tuple[int, int], config: OnnxConfig) -> tuple[int, int]:
    """(width, height) px of a free input for a picture (width, height) px.

    The longer side is `input_px`, or less for a small picture; both are multiples of `multiple`.
    """
    scale = min(1.0, config.input_px / max(image_size))
    width, height = (
        max(1, math.ceil(round(side * scale) / config.multiple)) * config.multiple
        for side in image_size
    )
    return width, height


def _picture_input(inputs: Sequence[Any], name: str) -> tuple[Any, bool]:
    """The input that takes the picture, and whether the network also asks for its size."""
    others = [node for node in inputs if node.name != _SIZES_INPUT]
    if len(others) == 1 and others[0].type in _INPUT_TYPES and len(others[0].shape) == 4:
        batch, channels = _shape(others[0].shape)[:2]
        if batch in (None, 1) and channels in (None, 3):
            return others[0], len(inputs) == 2
    raise ContractError(
        f"{name} does not take one picture",
        got=", ".join(f"{n.name} {n.type} {_show(_shape(n.shape))}" for n in inputs),
        expected="one input [1, 3, H, W] float32 or float16, RGB in [0, 1]",
        fix="export it with batch 1, channels first, and normalisation in the graph",
    )


def _fixed_size(shape: Sequence[Any]) -> tuple[int, int] | None:
    """(width, height) px of the input, None where a side is free."""
    height, width = _shape(shape)[2:]
    return None if height is None or width is None else (width, height)


def _shape(sides: Sequence[Any]) -> tuple[int | None, ...]:
    return tuple(side if isinstance(side, int) else None for side in sides)


def _show(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("*" if n is None else str(n) for n in shape) + "]"
