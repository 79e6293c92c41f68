"""A detector by its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glnet_rt.detect.base import Detector, WholeFrame
from glnet_rt.errors import ContractError

if TYPE_CHECKING:
    from glnet_rt.detect.onnx_ import OnnxConfig

NAMES = ("auto", "motion", "own", "whole")


def open_detector(which: str | Path | Detector, config: OnnxConfig | None = None) -> Detector:
    """Make a detector.

    Args:
        which: `auto` (what finds people in any video: `own`, and `motion` where the camera stands
            still), `motion`, `own` (the network in the package), `whole` (one person fills the
            frame), the path of an `.onnx` file; or a detector, which is handed back.
        config: of an `.onnx` file.

    Raises:
        ContractError: no such name, or a file that is no detector.
        SourceError: the file is missing.
        BackendError, MissingDependencyError: ONNX Runtime cannot open it.
    """
    if not isinstance(which, (str, Path)):
        return which
    if which == "auto":
        from glnet_rt.detect.auto import AutoDetector

        return AutoDetector()
    if which == "own":
        from glnet_rt.detect.own import OwnDetector

        return OwnDetector()
    if which == "motion":
        from glnet_rt.detect.motion import MotionDetector

        return MotionDetector()
    if which == "whole":
        return WholeFrame()
    if Path(which).suffix.lower() == ".onnx":
        from glnet_rt.detect.onnx_ import OnnxDetector

        return OnnxDetector(which, config)
    raise ContractError(
        "no such detector",
        got=str(which),
        expected=f"{', '.join(NAMES)}, or the path of an .onnx file",
        fix="take one of these",
    )
