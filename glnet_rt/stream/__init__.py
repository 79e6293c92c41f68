"""Where frames come from: pictures, folders, videos, arrays."""

from __future__ import annotations

from glnet_rt.stream.source import FailedFrame, Source, open_source

__all__ = ["FailedFrame", "Source", "open_source"]
