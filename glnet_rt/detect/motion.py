"""People as what moves before a camera that stands still: background subtraction, then blobs."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import cv2
import numpy as np

from glnet_rt.contracts import Array, Frame
from glnet_rt.detect.base import Detections
from glnet_rt.detect.boxes import clip, suppress

_log = logging.getLogger(__name__)
_FOREGROUND = 255  # in MOG2's mask; shadows have another value
_MOST_SURE = 0.9  # that something moves does not make it a person
_NOBODY = Detections(np.zeros((0, 4)), np.zeros(0))
# A piece of somebody: at most so high over the rest, at most so far from it (both over the rest's
# height), and at least so much of its width above or below it.
_PIECE_HEIGHT, _PIECE_GAP, _PIECE_SHARED = 0.6, 0.2, 0.5


@dataclass(frozen=True)
class MotionConfig:
    """How motion becomes boxes.

    Attributes:
        history: frames that the background remembers. More keeps people who stand still visible
            for longer; fewer follows changing light sooner.
        threshold: squared distance to the background, in variances, from which a pixel has
            changed. Less finds people in the colours of the background, and noise.
        work_px: longer side at which all this is done; time grows with its square.
        least_height: of a person, over the height of the frame.
        aspect: least and largest height over width of a person.
        least_fill: share of its box that a person's pixels cover.
        most_changed: share of the frame; where more changes, the camera or the light did.
        gap: (across, down) px at `work_px` between pieces of one person.
        practice: frames before the first boxes. MOG2 learns so fast at first that it takes parts of
            slow walkers for background, and gives them back in pieces.
    """

    history: int = 300
    threshold: float = 25.0
    work_px: int = 768
    least_height: float = 0.035
    aspect: tuple[float, float] = (0.8, 6.5)
    least_fill: float = 0.3
    most_changed: float = 0.4
    gap: tuple[int, int] = (5, 9)
    practice: int = 25


class MotionDetector:
    """Finds what moves. Needs a static camera and a few frames of practice.

    Who stands still from the first frame on is background, until they move. People who touch in
    the picture are one box.

    Args:
        config: see `MotionConfig`.
    """

    name = "motion"
    every_frame = True
    exhaustive = False

    def __init__(self, config: MotionConfig | None = None) -> None:
        self.config = MotionConfig() if config is None else config
        self._size: tuple[int, int] | None = None
        self._frames, self._changed = 0, 0.0
        self._warned = False

    def __call__(self, frame: Frame) -> Detections:
        found = self.look(frame)
        if self._changed > self.config.most_changed and self._frames > 1:  # the first is all new
            self._warn(frame)
        return _NOBODY if found is None else found

    def forget(self) -> None:
        """Take the next frame for the first one: the camera looks elsewhere now."""
        self._size = None

    def look(self, frame: Frame) -> Detections | None:
        """The people, or None where it cannot tell: while it practises, or all has changed."""
        height, width = frame.image.shape[:2]
        if self._size != (width, height):
            self._restart(width, height)
        small = frame.image
        if self._scale < 1:
            size = (round(width * self._scale), round(height * self._scale))
            small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        self._frames += 1
        changed = (self._background.apply(small) == _FOREGROUND).astype(np.uint8)
        self._changed = float(changed.mean())
        if self._changed > self.config.most_changed or self._frames <= self.config.practice:
            return None
        boxes, scores = self._people(changed)
        boxes = clip(boxes / self._scale, (width, height))
        kept = suppress(boxes, scores)
        return Detections(boxes[kept], scores[kept])

    def _restart(self, width: int, height: int) -> None:
        """Forget the background; frames of another size have another one."""
        self._size, self._frames, self._changed = (width, height), 0, 0.0
        self._scale = min(1.0, self.config.work_px / max(width, height))
        self._background = cv2.createBackgroundSubtractorMOG2(
            history=self.config.history, varThreshold=self.config.threshold, detectShadows=True
        )

    def _people(self, changed: Array) -> tuple[Array, Array]:
        """Blobs [N, 4] of the mask that could be people, at its scale, and their scores [N]."""
        config = self.config
        whole = cv2.morphologyEx(changed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        closer = np.ones(config.gap[::-1], np.uint8)
        whole = cv2.morphologyEx(whole, cv2.MORPH_CLOSE, closer)
        _, _, stats, _ = cv2.connectedComponentsWithStats(whole)
        blobs = stats[1:].astype(np.float64)  # the first is everything else
        left, top, across, down, pixels = _joined(blobs).T
        fill = pixels / (across * down)
        low, high = config.aspect
        # At the border people are cut: what is left of them may be narrower than anybody.
        at_side = (left <= 1) | (left + across >= changed.shape[1] - 1)
        could = (down >= config.least_height * len(changed)) & (fill >= config.least_fill)
        could &= (down / across >= low) & ((down / across <= high) | at_side)
        boxes = np.stack([left, top, left + across, top + down], 1)[could]
        return boxes, np.minimum(fill[could], _MOST_SURE)

    def _warn(self, frame: Frame) -> None:
        if not self._warned:
            _log.warning(
                "frame %d: %.0f %% of the picture changed: the motion detector needs a camera that "
                "stands still",
                frame.frame_id,
                100 * self._changed,
            )
            self._warned = True


def _joined(blobs: Array) -> Array:
    """Blobs [N, 5] (left, top, width, height, pixels), cut-off heads and legs put to the rest."""
    order = np.argsort(-blobs[:, 3], kind="stable")
    rest: list[Array] = []
    for blob in blobs[order]:
        for i, other in enumerate(rest):
            if _is_piece(blob, other):
                low = np.minimum(blob[:2], other[:2])
                high = np.maximum(blob[:2] + blob[2:4], other[:2] + other[2:4])
                rest[i] = np.array([*low, *(high - low), blob[4] + other[4]])
                break
        else:
            rest.append(blob)
    return np.array(rest).reshape(-1, 5)


def _is_piece(blob: Array, other: Array) -> bool:
    """Whether a blob is what something thin cut off a higher one, above or below."""
    shared = min(blob[0] + blob[2], other[0] + other[2]) - max(blob[0], other[0])
    gap = max(blob[1] - other[1] - other[3], other[1] - blob[1] - blob[3])
    return bool(
        shared >= _PIECE_SHARED * blob[2]
        and blob[3] <= _PIECE_HEIGHT * other[3]
        and gap <= _PIECE_GAP * other[3]
    )
