"""Whether the camera moves, told from how the picture's corners drift."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from glnet_rt.contracts import Array, Frame

_LEAST_CORNERS = 8  # with fewer there is nothing to go by
_WINDOW = (15, 15)  # px around a corner that must look the same
_LEAST_FOLLOWED = 0.5  # share of them; fewer where the picture is another one


@dataclass(frozen=True)
class CameraConfig:
    """When a camera counts as moving.

    Attributes:
        work_px: longer side at which corners are followed.
        drift: px at `work_px` that the middle corner may move. Less notices slower pans, and takes
            wind in the trees, or somebody who fills the picture, for one.
        every: frames for which the same picture is compared with. More notices slower pans.
        corners: followed at the most.
    """

    work_px: int = 256
    drift: float = 0.4
    every: int = 25
    corners: int = 80


class CameraWatch:
    """Compares each frame with one a little older. Where most of the corners are somewhere else, or
    cannot be found again, the camera has moved, or somebody fills the picture.

    Args:
        config: see `CameraConfig`.
    """

    def __init__(self, config: CameraConfig | None = None) -> None:
        self.config = CameraConfig() if config is None else config
        self._known: Array | None = None
        self._corners: Array | None = None
        self._age = 0

    def moved(self, frame: Frame) -> bool:
        """Whether the camera has moved since the frames before; of the first, False."""
        grey = self._small(frame.image)
        known, self._age = self._known, self._age + 1
        moved = known is not None and (known.shape != grey.shape or self._drifted(known, grey))
        if moved or known is None or self._age >= self.config.every:
            self._known, self._age = grey, 0
            self._corners = cv2.goodFeaturesToTrack(grey, self.config.corners, 0.003, 14)
        return moved

    def _small(self, image: Array) -> Array:
        height, width = image.shape[:2]
        scale = min(1.0, self.config.work_px / max(width, height))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))

    def _drifted(self, known: Array, grey: Array) -> bool:
        if self._corners is None or len(self._corners) < _LEAST_CORNERS:
            return False
        there, followed, _ = cv2.calcOpticalFlowPyrLK(
            known, grey, self._corners, np.zeros_like(self._corners), winSize=_WINDOW, maxLevel=2
        )
        rows = np.asarray(followed).ravel() == 1
        if rows.mean() < _LEAST_FOLLOWED:
            return True
        drift = np.linalg.norm((there - self._corners).reshape(-1, 2)[rows], axis=1)
        return bool(np.median(drift) > self.config.drift)
