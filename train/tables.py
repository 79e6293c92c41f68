"""Tables as text and as files: Markdown for readers, CSV of training runs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; every row has a cell per column."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def read_rows(file: Path) -> list[dict[str, float]]:
    """Rows of numbers, such as those of a run's `metrics.csv`, by column."""
    with file.open(newline="") as lines:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(lines)]
