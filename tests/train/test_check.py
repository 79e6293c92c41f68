"""`python -m train data check`: what it recognises, counts, and says when there is nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from glnet_rt.errors import SourceError
from train import __main__ as command_line
from train.data.check import check, found_table


def coco(folder: Path) -> None:
    """Two people in two pictures, one of which is there; the official layout."""
    keypoints = [10.0, 20.0, 2] * 17
    people = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [1.0, 1, 30, 40], "area": 99.0,
         "iscrowd": 0, "num_keypoints": 17, "keypoints": keypoints}
        for i in (1, 2)
    ]  # fmt: skip
    pictures = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in (1, 2)]
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    file = folder / "annotations/person_keypoints_val2017.json"
    file.write_text(json.dumps({"images": pictures, "annotations": people}))
    cv2.imwrite(str(folder / "val2017/1.png"), np.zeros((64, 64, 3), np.uint8))


def test_everything_below_a_folder_is_told(tmp_path: Path) -> None:
    coco(tmp_path)
    np.savez(
        tmp_path / "set.npz", imgname=np.array(["a.jpg"]), center=np.ones((1, 2)),
        scale=np.ones(1), pose=np.zeros((1, 72)), shape=np.zeros((1, 10)),
    )  # fmt: skip
    (tmp_path / "notes.json").write_text('{"annotations": []}')  # none of ours, no matter
    found = {f.name: f for f in check(tmp_path)}
    assert set(found) == {"COCO keypoints", "SPIN style"}
    people = found["COCO keypoints"]
    assert (people.people, people.with_2d, people.with_3d, people.with_smpl) == (2, 2, 0, 0)
    assert people.pictures == 0.5
    assert people.missing == tmp_path / "val2017/2.png"
    assert (found["SPIN style"].with_2d, found["SPIN style"].with_smpl) == (0, 1)
    assert str(people.missing) in found_table(list(found.values()))


def test_synthetic_people_are_counted(people: Path) -> None:
    counts = {f.path.name: f.people for f in check(people)}
    assert set(counts) == {"train", "heldout"}
    assert min(counts.values()) > 0


def test_a_damaged_set_is_reported_beside_the_others(tmp_path: Path) -> None:
    coco(tmp_path)
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    problems = {f.name: f.problem for f in check(tmp_path)}
    assert problems["COCO keypoints"] is None
    assert "cut.npz" in problems["SPIN style"]


def test_nothing_there_says_what_to_get_from_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceError) as told:
        check(tmp_path)
    for whom in (
        "cocodataset", "virtualhumans", "vcai", "imar", "3DMPPE", "eth-ait", "bedlam.is",
        "agora_evaluation", "dataset_extras", "HybrIK", "train.synthetic",
    ):  # fmt: skip
        assert whom in str(told.value), whom
    with pytest.raises(SourceError, match="no such file"):
        check(tmp_path / "none")
    monkeypatch.setattr(sys, "argv", ["train", "data", "check", str(tmp_path)])
    with pytest.raises(SystemExit, match="no data set recognised"):
        command_line.main()


def test_command_prints_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    coco(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", "data", "check", str(tmp_path)])
    command_line.main()
    assert "COCO keypoints" in capsys.readouterr().out
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(SystemExit):
        command_line.main()
