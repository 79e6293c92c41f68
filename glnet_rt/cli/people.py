"""What `--boxes`, `--detector`, `--detector-layout` and `--smooth` say together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glnet_rt.cli.boxes import BoxPlan, PlannedBoxes, read_boxes
from glnet_rt.errors import ContractError

if TYPE_CHECKING:
    from glnet_rt.body_model import BodyModel
    from glnet_rt.finder import BoxFinder
    from glnet_rt.stream.source import Source

NONE = "none"
ANY_LAYOUT = "auto"


@dataclass(frozen=True)
class PeopleOptions:
    """Who finds the people, and whether they are made steady.

    Attributes:
        plan: of `--boxes`.
        detector: a name that `open_detector` knows, or `none`.
        layout: of the detector's outputs.
        smooth: whether people are made steady over time.
    """

    plan: BoxPlan
    detector: str
    layout: str
    smooth: bool

    @property
    def searches(self) -> bool:
        """Whether anything looks for people, rather than being told where they are."""
        return self.detector not in (NONE, "whole")

    def finder(self, source: Source, body: BodyModel) -> BoxFinder:
        """The finder that the options name.

        Args:
            source: whose people are looked for.
            body: whose shape and joints smoothing keeps.

        Raises:
            ContractError: what suits no such source, or no such detector.
            SourceError, BackendError, MissingDependencyError: see `open_detector`.
        """
        if self.detector == NONE and not self.smooth:
            return PlannedBoxes(self.plan, source.name_of)
        from glnet_rt.detect.base import GivenBoxes
        from glnet_rt.detect.onnx_ import OnnxConfig
        from glnet_rt.smooth import Smoother
        from glnet_rt.track.finder import PeopleFinder, finder_for

        smoother = Smoother(body) if self.smooth else None
        if self.detector == NONE:
            rows, name_of = self.plan.rows, source.name_of
            given = GivenBoxes(lambda frame: rows(frame.frame_id, name_of(frame.frame_id)))
            return PeopleFinder(given, smoother)
        config = OnnxConfig(layout=self.layout) if _is_file(self.detector) else None
        return finder_for(source.kind, self.detector, smoother, config)


def read_options(
    boxes: str | None, detector: str | None, layout: str, smooth: bool
) -> PeopleOptions:
    """Understand the four options.

    Raises:
        ContractError: they do not go together, or `boxes` holds none.
        SourceError: `boxes` names a JSON file that is missing or unreadable.
    """
    plan = read_boxes(boxes)
    chosen = detector or (NONE if plan.given else "auto")
    if plan.given and chosen != NONE:
        raise _together(f"--boxes --detector {chosen}", "one of them", "leave one of them out")
    if smooth and chosen == NONE and not plan.given:
        raise _together(
            "--smooth --detector none", "somebody who is followed", "--detector auto, or whole"
        )
    if layout != ANY_LAYOUT and not _is_file(chosen):
        raise _together(
            f"--detector-layout {layout} --detector {chosen}",
            "--detector FILE.onnx, whose outputs it tells",
            "leave out --detector-layout, or name the file",
        )
    return PeopleOptions(plan, chosen, layout, smooth)


def nobody_found(where: str) -> str:
    """What to tell where a detector found nobody."""
    return (
        f"nobody was found in {where}. If one person fills the picture: --detector whole. "
        'If you know where they are: --boxes "x1,y1,x2,y2"'
    )


def _is_file(detector: str) -> bool:
    return Path(detector).suffix.lower() == ".onnx"


def _together(got: str, expected: str, fix: str) -> ContractError:
    return ContractError("these options do not go together", got=got, expected=expected, fix=fix)
