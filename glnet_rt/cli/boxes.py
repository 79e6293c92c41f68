"""Reading `--boxes`: where in each frame the people are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from glnet_rt.errors import ContractError, SourceError

if TYPE_CHECKING:
    from glnet_rt.contracts import Frame, Result
    from glnet_rt.finder import Found

Rows = list[list[float]]
_EXPECTED = (
    '"x1,y1,x2,y2" in px (several: joined by ;), or a JSON file with [[x1, y1, x2, y2], ...], '
    'or with {"FRAME": [[...]], ...} where FRAME is a frame\'s number from 0 or a file name'
)


class BoxPlan:
    """The boxes to look in, frame by frame.

    Args:
        always: the same rows for every frame; None takes each whole picture as one person.
        by_frame: frame number or file name -> rows. A frame that is not named has no people.
    """

    def __init__(
        self, always: Rows | None = None, by_frame: Mapping[str, Rows] | None = None
    ) -> None:
        self._always = always
        self._by_frame = by_frame

    @property
    def given(self) -> bool:
        """Whether there are boxes at all."""
        return self._always is not None or self._by_frame is not None

    def rows(self, frame_id: int, name: str) -> Rows | None:
        """Boxes of one frame, `bbox_xyxy`; None for the whole picture."""
        if self._by_frame is None:
            return self._always
        return self._by_frame.get(name, self._by_frame.get(str(frame_id), []))


class PlannedBoxes:
    """A finder that knows beforehand where everybody is.

    Args:
        plan: the boxes, by frame.
        name_of: what a frame is called.
    """

    lag = 0

    def __init__(self, plan: BoxPlan, name_of: Callable[[int], str]) -> None:
        self._plan = plan
        self._name_of = name_of

    def find(self, frame: Frame, known: Result | None) -> Found:
        """The planned boxes; the whole picture where nothing is planned."""
        from glnet_rt.finder import Found, WholePicture

        rows = self._plan.rows(frame.frame_id, self._name_of(frame.frame_id))
        return WholePicture().find(frame, known) if rows is None else Found(rows)


def read_boxes(text: str | None) -> BoxPlan:
    """Understand what `--boxes` was given.

    Raises:
        ContractError: it is no list of boxes.
        SourceError: it names a JSON file that is missing or unreadable.
    """
    if text is None:
        return BoxPlan()
    if text.lower().endswith(".json") or Path(text).is_file():
        return _from_json(Path(text))
    try:
        rows = [[float(v) for v in part.split(",")] for part in text.split(";") if part.strip()]
    except ValueError as error:
        raise _misread(text) from error
    if not rows or any(len(row) != 4 for row in rows):
        raise _misread(text)
    return BoxPlan(always=rows)


def _from_json(path: Path) -> BoxPlan:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(
            "cannot read the boxes",
            got=f"{path}: {error.strerror}",
            expected=_EXPECTED,
            fix="check the path",
        ) from error
    except ValueError as error:
        raise _misread(f"{path}: {error}") from error
    if isinstance(values, dict):
        return BoxPlan(by_frame={str(k): _check_rows(path, rows) for k, rows in values.items()})
    return BoxPlan(always=_check_rows(path, values))


def _check_rows(path: Path, rows: object) -> Rows:
    """A list of four numbers each; what the numbers say is the estimator's to judge."""
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and len(row) == 4 and all(_is_number(v) for v in row) for row in rows
    ):
        raise _misread(f"{path}: {json.dumps(rows)[:80]}")
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _misread(got: str) -> ContractError:
    return ContractError(
        "--boxes holds no boxes",
        got=got,
        expected=_EXPECTED,
        fix="give edges in px: left, top, right, bottom",
    )
