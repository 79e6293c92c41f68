"""What every person detector promises: a frame in, boxes and scores out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from glnet_rt.contracts import Array, Frame, check_array
from glnet_rt.crop import check_boxes
from glnet_rt.errors import ContractError


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The people found in one frame.

    Attributes:
        boxes: [N, 4] float64, `bbox_xyxy`, edges in image px.
        scores: [N] float64, how sure the detector is, 0 to 1.
    """

    boxes: Array
    scores: Array

    def __post_init__(self) -> None:
        check_array("detections.boxes", self.boxes, (None, 4), np.float64, finite=True)
        check_array("detections.scores", self.scores, (len(self.boxes),), np.float64, finite=True)
        if ((self.scores < 0) | (self.scores > 1)).any():
            raise ContractError(
                "detections.scores are no probabilities",
                got=f"{self.scores.min():g} to {self.scores.max():g}",
                expected="0 to 1",
                fix="apply the network's sigmoid or softmax first",
            )

    def __len__(self) -> int:
        return len(self.boxes)


class Detector(Protocol):
    """One way to find people. Called by one thread, with the frames in order.

    Attributes:
        name: what to call it in messages and figures.
        every_frame: it must see every frame, since it learns from each what does not move.
            Otherwise the tracker calls it only now and then.
        exhaustive: who is not in its boxes is not there. Otherwise a track may go on without it.
    """

    name: str
    every_frame: bool
    exhaustive: bool

    def __call__(self, frame: Frame) -> Detections:
        """Find people.

        Raises:
            ContractError: the frame cannot be used.
            BackendError: a network failed while running.
        """


class WholeFrame:
    """One person fills every frame."""

    name = "whole"
    every_frame = True
    exhaustive = True

    def __call__(self, frame: Frame) -> Detections:
        height, width = frame.image.shape[:2]
        return Detections(np.array([[0.0, 0.0, width, height]]), np.ones(1))


class GivenBoxes:
    """The caller's own boxes, frame by frame.

    Args:
        rows: frame -> [N, 4] array-like, edges in image px; no rows give no people.
    """

    name = "given"
    every_frame = True
    exhaustive = True

    def __init__(self, rows: Callable[[Frame], object]) -> None:
        self._rows = rows

    def __call__(self, frame: Frame) -> Detections:
        height, width = frame.image.shape[:2]
        boxes = check_boxes(self._rows(frame), (width, height))
        return Detections(boxes, np.ones(len(boxes)))
