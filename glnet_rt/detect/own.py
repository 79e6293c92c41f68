"""The detector in the package: a small network that has learned from synthetic people alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from glnet_rt.contracts import Array, Frame
from glnet_rt.detect.base import Detections
from glnet_rt.detect.boxes import area, covered
from glnet_rt.detect.onnx_ import OnnxConfig, OnnxDetector

OWN_PATH = Path(__file__).resolve().parent.parent / "assets" / "detector.onnx"


@dataclass(frozen=True)
class OwnConfig:
    """When to believe the network.

    Attributes:
        near: height over the picture's from which somebody is near. The network is good at them;
            small things it often takes for people.
        score_near, score_far: boxes less sure than this are dropped. Less finds more people, and
            more else.
        part: share of a box within a larger one, from which it is a part of somebody.
        input_px: longer side of its input. More finds smaller people, and more of what is none;
            time grows with the square.
    """

    near: float = 0.3
    score_near: float = 0.3
    score_far: float = 0.5
    part: float = 0.9
    input_px: int = 480


class OwnDetector:
    """Finds people in single pictures, one by one.

    Args:
        config: see `OwnConfig`.

    Raises:
        SourceError: the network is missing from the package.
        BackendError, MissingDependencyError: ONNX Runtime cannot open it.
    """

    name = "own"
    every_frame = False
    exhaustive = False

    def __init__(self, config: OwnConfig | None = None) -> None:
        self.config = OwnConfig() if config is None else config
        score = min(self.config.score_near, self.config.score_far)
        onnx = OnnxConfig(layout="boxes", score=score, input_px=self.config.input_px)
        self._network = OnnxDetector(OWN_PATH, onnx, self.name)

    def __call__(self, frame: Frame) -> Detections:
        found, config = self._network(frame), self.config
        near = self.near(found.boxes, frame)
        kept = (near & (found.scores >= config.score_near)) | (found.scores >= config.score_far)
        boxes, scores = found.boxes[kept], found.scores[kept]
        larger = area(boxes)[None] > area(boxes)[:, None]
        whole = ~(larger & (covered(boxes, boxes) >= config.part)).any(1)
        return Detections(boxes[whole], scores[whole])

    def near(self, boxes: Array, frame: Frame) -> Array:
        """[N] whether each of the boxes [N, 4] is of somebody near."""
        return (boxes[:, 3] - boxes[:, 1]) >= self.config.near * frame.image.shape[0]
