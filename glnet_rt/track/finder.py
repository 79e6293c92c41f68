"""People found, followed and made steady, as the stage that every kind of source asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Frame, Result
from glnet_rt.detect import open_detector
from glnet_rt.detect.base import Detector
from glnet_rt.errors import ContractError
from glnet_rt.finder import BoxFinder, Found, WholePicture
from glnet_rt.smooth import Smoother
from glnet_rt.track.config import TrackConfig
from glnet_rt.track.tracker import PeopleTracker

if TYPE_CHECKING:
    from glnet_rt.detect.onnx_ import OnnxConfig
    from glnet_rt.stream.source import Kind


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


class PictureFinder:
    """A `BoxFinder` for pictures that have nothing to do with each other: nobody is followed.

    Args:
        detector: finds people in a single picture.
    """

    lag = 0

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def find(self, frame: Frame, known: Result | None) -> Found:
        """Everybody in this picture."""
        return Found(self._detector(frame).boxes)


def finder_for(
    kind: Kind, which: str | Path | Detector, smoother: Smoother | None, config: OnnxConfig | None
) -> BoxFinder:
    """Who finds the people of a source of that kind.

    Each picture of a folder is looked at by itself, unless a smoother says that they belong
    together, or motion is to find the people, which has nothing else to go by.

    Args:
        kind: of the source.
        which, config: what `glnet_rt.detect.open_detector` takes. `auto` is `own` in pictures.
        smoother: makes the named people steady, or None.

    Raises:
        ContractError: one picture, in which nobody moves; see also `open_detector`.
        SourceError, BackendError, MissingDependencyError: see `open_detector`.
    """
    if kind == "image" and (smoother is not None or which == "motion"):
        raise ContractError(
            "one picture shows no movement",
            got="a single picture, and motion or smoothing",
            expected="a video, a stream or a folder of frames",
            fix="leave smoothing out, and take another detector: auto, own, whole",
        )
    together = kind not in ("image", "folder") or smoother is not None or which == "motion"
    if together:
        return PeopleFinder(open_detector(which, config), smoother)
    return PictureFinder(open_detector("own" if which == "auto" else which, config))


def choose_finder(
    body: BodyModel,
    kind: Kind,
    boxes: str | Path | Detector | None,
    smooth: bool,
    finder: BoxFinder | None,
) -> BoxFinder:
    """Who finds the people of a source, from what `Estimator.video` and `.live` were given.

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
        return finder_for(kind, boxes, Smoother(body) if smooth else None, None)
    if smooth:
        raise ContractError(
            "nobody can be made steady who is not followed",
            got="smooth=True without boxes",
            expected="boxes: who finds the people",
            fix='boxes="auto", or boxes="whole" for one person who fills the frame',
        )
    return WholePicture() if finder is None else finder
