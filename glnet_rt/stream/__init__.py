"""Frames from anywhere, and the stages that make people of them: `Estimator.video` and `.live`."""

from __future__ import annotations

from glnet_rt.stream.capture import Backoff, LiveCapture, open_capture
from glnet_rt.stream.source import FailedFrame, Source, open_source

__all__ = ["Backoff", "FailedFrame", "LiveCapture", "Source", "open_capture", "open_source"]
