"""What `--boxes`, `--detector` and `--smooth` say together: who finds the people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from glnet_rt.body_model import BodyModel
from glnet_rt.cli.boxes import BoxPlan, PlannedBoxes
from glnet_rt.errors import ContractError
from glnet_rt.finder import BoxFinder

NONE = "none"


def finder_of(
    plan: BoxPlan,
    detector: str,
    layout: str,
    smooth: bool,
    name_of: Callable[[int], str],
    body: BodyModel,
) -> BoxFinder:
    """The finder that the options name.

    Args:
        plan: of `--boxes`. detector, layout, smooth: as given.
        name_of: what a frame is called.
        body: whose shape and joints smoothing keeps.

    Raises:
        ContractError: options that do not go together, or no such detector.
        SourceError, BackendError, MissingDependencyError: see `open_detector`.
    """
    if detector == NONE and not smooth:
        return PlannedBoxes(plan, name_of)
    from glnet_rt.detect import open_detector
    from glnet_rt.detect.base import GivenBoxes
    from glnet_rt.detect.onnx_ import OnnxConfig
    from glnet_rt.smooth import Smoother
    from glnet_rt.track.finder import PeopleFinder

    smoother = Smoother(body) if smooth else None
    if detector == NONE and plan.given:
        return PeopleFinder(
            GivenBoxes(lambda frame: plan.rows(frame.frame_id, name_of(frame.frame_id))), smoother
        )
    if detector == NONE or plan.given:
        raise ContractError(
            "these options do not go together",
            got=f"--detector {detector}" + (" --boxes" if plan.given else " --smooth"),
            expected="--boxes or --detector; --smooth with one of them",
            fix="leave --boxes out, or name a detector: --detector motion",
        )
    known = Path(detector).suffix.lower() == ".onnx"
    config = OnnxConfig(layout=layout) if known else None
    return PeopleFinder(open_detector(detector, config), smoother)
