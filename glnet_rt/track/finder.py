"""People found, followed and made steady, as the stage that videos and live streams ask."""

from __future__ import annotations

from pathlib import Path

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Frame, Result
from glnet_rt.detect import Detector, open_detector
from glnet_rt.errors import ContractError
from glnet_rt.finder import BoxFinder, Found, WholePicture
from glnet_rt.smooth import Smoother
from glnet_rt.track.config import TrackConfig
from glnet_rt.track.tracker import PeopleTracker


class PeopleFinder:
    """A `BoxFinder` that knows people again. It serves one stream, once.

    It looks back by one frame, so no two frames of a video are in the network at once.

    Args:
        detector: what `glnet_rt.detect.open_detector` takes.
        smoother: makes the named people steady, or None.
        config: of the tracker.

    Attributes:
        tracker: who is followed.

    Raises:
        ContractError, SourceError, BackendError, MissingDependencyError: see `open_detector`.
    """

    lag = 1

    def __init__(
        self,
        detector: str | Path | Detector = "auto",
        smoother: Smoother | None = None,
        config: TrackConfig | None = None,
    ) -> None:
        self.tracker = PeopleTracker(open_detector(detector), config)
        self._smoother = smoother

    def find(self, frame: Frame, known: Result | None) -> Found:
        """Where to look; `known` came through `settle`, which has told the tracker already."""
        return Found(self.tracker.propose(frame).boxes)

    def settle(self, result: Result) -> Result:
        """Those of the people seen who are somebody, named, and steady where that was asked for."""
        result = self.tracker.accept(result)
        return result if self._smoother is None else self._smoother(result)


def choose_finder(
    body: BodyModel,
    boxes: str | Path | Detector | None,
    smooth: bool,
    finder: BoxFinder | None,
) -> BoxFinder:
    """Who finds the people of a stream, from what `Estimator.video` and `.live` were given.

    Raises:
        ContractError: `boxes` and `finder` both, `smooth` without `boxes`, or no such detector.
        SourceError, BackendError, MissingDependencyError: see `open_detector`.
    """
    if boxes is not None and finder is not None:
        raise ContractError(
            "two were named who find the people",
            got="boxes and finder",
            expected="one of them",
            fix="leave out finder, unless it does something that boxes does not",
        )
    if boxes is not None:
        return PeopleFinder(boxes, Smoother(body) if smooth else None)
    if smooth:
        raise ContractError(
            "nobody can be made steady who is not followed",
            got="smooth=True without boxes",
            expected="boxes: who finds the people",
            fix='boxes="auto", or boxes="whole" for one person who fills the frame',
        )
    return WholePicture() if finder is None else finder
