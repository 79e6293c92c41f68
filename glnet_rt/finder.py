"""Who is where in a frame: the stage that videos and live streams ask before they crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from glnet_rt.contracts import Array, Frame, Person, Result
from glnet_rt.crop import check_boxes, whole_image_box
from glnet_rt.errors import ContractError


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The people of one frame.

    Attributes:
        boxes: [N, 4] array-like, `bbox_xyxy`, edges in image px; N may be 0.
        track_ids: one identity over time per box, or None where nobody is followed.
    """

    boxes: object
    track_ids: Sequence[int] | None = None


class BoxFinder(Protocol):
    """Finds and follows people. It is asked about the frames of one stream, in capture order.

    Attributes:
        lag: how many frames ago the result was made that it wants to see, so that it may follow
            people by it. 0: it does not look back, and frames overlap freely. 1: the result of the
            very last frame; of a video, no two frames are then worked on at once. 2 or more leaves
            that many in flight. A live stream works on one frame at a time: any lag above 0 sees
            the last result.

    A ContractError or SourceError that it raises fails that frame alone; any other error ends the
    stream.
    """

    @property
    def lag(self) -> int: ...

    def find(self, frame: Frame, known: Result | None) -> Found:
        """Say where the people of a frame are.

        Args:
            frame: the picture, and when it was taken.
            known: the result that `lag` asks for; None for the first frames, and for lag 0.
        """


@runtime_checkable
class Settler(Protocol):
    """A BoxFinder may be one too: it then has the last word on each frame's people."""

    def settle(self, result: Result) -> Result:
        """Drop, name or change the people of a frame, once they are decoded and before anybody
        gets them. Called for every frame that did not fail, in capture order; of a lag of 1 never
        while `find` runs. What it raises counts as what `find` raises.

        Args:
            result: one person per box that `find` gave, in their order.
        """


class WholePicture:
    """Takes each whole picture as one person, whom nobody follows."""

    lag = 0

    def find(self, frame: Frame, known: Result | None) -> Found:
        """One box around everything."""
        return Found(whole_image_box(frame.image)[None])


def look(
    finder: BoxFinder, frame: Frame, known: Result | None
) -> tuple[Array, tuple[int | None, ...]]:
    """Ask a finder, and check what it says.

    Returns:
        [N, 4] float64 boxes, and N identities.

    Raises:
        ContractError: a box no person can be in, or another number of identities than of boxes.
    """
    found = finder.find(frame, known)
    height, width = frame.image.shape[:2]
    boxes = check_boxes(found.boxes, (width, height))
    if found.track_ids is None:
        return boxes, (None,) * len(boxes)
    ids = tuple(int(track_id) for track_id in found.track_ids)
    if len(ids) != len(boxes):
        raise ContractError(
            "boxes and identities differ in number",
            got=f"{len(boxes)} boxes, {len(ids)} track_ids",
            expected="one track_id per box, or None for all",
            fix="mend the finder that gave them",
        )
    return boxes, ids


def as_settler(finder: BoxFinder) -> Settler | None:
    """The finder, if it wants the last word on each frame."""
    return finder if isinstance(finder, Settler) else None


def named(people: Sequence[Person], track_ids: Sequence[int | None]) -> tuple[Person, ...]:
    """The same people under their identities."""
    return tuple(
        person if track_id is None else replace(person, track_id=track_id)
        for person, track_id in zip(people, track_ids, strict=True)
    )
