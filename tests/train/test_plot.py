"""The learning curve joins phases and is drawn."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import cv2
import pytest

from train import plot

NAMES = ["images", *(name for series in plot.SERIES.values() for name in series.values())]


def test_phases_are_joined_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    files = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for path, images in zip(files, ([10, 20], [25, 35]), strict=True):
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(dict.fromkeys(NAMES))
            writer.writerows([[count, *([100 - count] * (len(NAMES) - 1))] for count in images])
    curve, picture = tmp_path / "curve.csv", tmp_path / "curve.png"
    arguments = ["plot", *map(str, files), "--csv", str(curve), "--out", str(picture)]
    monkeypatch.setattr(sys, "argv", arguments)
    plot.main()
    with curve.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["images"]) for row in rows] == [10, 20, 25, 35]
    assert [float(row["phase"]) for row in rows] == [1, 1, 2, 2]
    image = cv2.imread(str(picture))
    assert image.shape[1] > image.shape[0] > 100
    assert image.std() > 5
