"""Where the people of a frame are: by the caller, by motion, by a network."""

from __future__ import annotations

from glnet_rt.detect.base import Detections, Detector
from glnet_rt.detect.choose import open_detector

__all__ = ["Detections", "Detector", "open_detector"]
