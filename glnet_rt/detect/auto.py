"""What finds people in a video of which nothing is known: the package's own network, and motion
where the camera stands still."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glnet_rt.contracts import Array, Frame
from glnet_rt.detect.base import Detections
from glnet_rt.detect.boxes import covered, iou
from glnet_rt.detect.camera import CameraWatch
from glnet_rt.detect.motion import MotionDetector
from glnet_rt.detect.own import OwnDetector


@dataclass(frozen=True)
class AutoConfig:
    """Who decides.

    Attributes:
        every: frames from one run of the network to the next while motion decides too. Fewer costs
            time.
        sure: score that somebody near must have while motion decides too. What stands there is seen
            again and again, and a lamp post that is taken for somebody once would be followed.
        overlap, inside: IoU with somebody near, and share within their box, from which what moves
            is them or a part of them.
    """

    every: int = 3
    sure: float = 0.4
    overlap: float = 0.4
    inside: float = 0.6


class AutoDetector:
    """Where the camera stands still, and has for long enough to tell, motion decides who is there
    far away, and the network who is near. Until then, and while the camera moves or all changes,
    the network decides alone.

    Each makes up for the other: the network takes small things for people, and motion sees of those
    who are near, and stand, only what they move.

    Args:
        config: see `AutoConfig`.

    Attributes:
        by_motion: whether motion had a say in the last frame.
    """

    name = "auto"
    every_frame = True
    exhaustive = False

    def __init__(self, config: AutoConfig | None = None) -> None:
        self.config = AutoConfig() if config is None else config
        self.by_motion = False
        self._network = OwnDetector()
        self._motion = MotionDetector()
        self._camera = CameraWatch()
        self._near = Detections(np.zeros((0, 4)), np.zeros(0))
        self._age = 0  # of `_near`, frames

    def __call__(self, frame: Frame) -> Detections:
        if self._camera.moved(frame):
            self._motion.forget()
        moving = self._motion.look(frame)
        self._age += 1
        if moving is None or not self.by_motion or self._age >= self.config.every:
            found, self._age = self._network(frame), 0
            near = self._network.near(found.boxes, frame) & (found.scores >= self.config.sure)
            self._near = Detections(found.boxes[near], found.scores[near])
        self.by_motion = moving is not None
        return found if moving is None else self._merged(moving)

    def _merged(self, moving: Detections) -> Detections:
        """Who is near, and whatever else moves."""
        near = self._near
        other = ~self._is_part(moving.boxes, near.boxes)
        return Detections(
            np.concatenate([near.boxes, moving.boxes[other]]),
            np.concatenate([near.scores, moving.scores[other]]),
        )

    def _is_part(self, boxes: Array, people: Array) -> Array:
        """[N] whether each of the boxes [N, 4] is one of the people [M, 4], or a part of one."""
        same = iou(boxes, people) >= self.config.overlap
        return np.asarray((same | (covered(boxes, people) >= self.config.inside)).any(1))
