"""`python -m benchmarks.accuracy`: one command, every protocol whose data is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import pytest

from benchmarks import accuracy
from glnet_rt.body_model import BodyModel
from tests.train.conftest import BODY
from tests.train.test_evaluate_bodies import SIZE, hybrik_3dpw, paint, poses, read_one
from tests.train.test_evaluate_coco import coco_folder, untrained
from train.checkpoint import save_weights
from train.evaluate_bodies import boxes_of
from train.recover import FLIPS


@pytest.fixture
def weights(tmp_path: Path, body: BodyModel) -> Path:
    """An untrained network's, with a learning curve beside them."""
    path = tmp_path / "new.safetensors"
    save_weights(path, untrained(body), {"images": 0})
    (tmp_path / "new-curve.csv").write_text("images,pa_mpjpe_mm\n10,200.5\n")
    return path


def run(monkeypatch: pytest.MonkeyPatch, weights: Path, *options: object) -> dict[str, object]:
    """What the command writes beside the weights."""
    folder = weights.parent / "results"
    arguments = ["accuracy", "--weights", weights, "--results", folder, *options]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    accuracy.main()
    return json.loads((folder / "accuracy.json").read_text())


def test_everything_there_is_goes_into_one_file_and_one_page(
    tmp_path: Path, people: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco_folder(tmp_path / "coco", "val2017", 7)
    hybrik_3dpw(tmp_path, *poses(2))
    _, real_set = read_one(tmp_path, {"kind": "hybrik-3dpw", "path": "3dpw.json"})
    paint(real_set.people.records, boxes_of(real_set.people), SIZE)
    values = run(
        monkeypatch, weights, "--heldout", people / "heldout", "--count", 8, "--coco",
        tmp_path / "coco", "--data", tmp_path / "sets.json", "--sheet", tmp_path / "sheet.jpg",
    )  # fmt: skip
    assert values["weights"] == {"file": "new.safetensors", "images": 0}
    assert values["synthetic"]["people"] == 8
    assert set(values["coco"]["splits"]) == {"val2017"}
    (row,) = values["sets"]
    assert row["set"] == "hybrik-3dpw"
    assert values["curve"] == [{"images": 10, "pa_mpjpe_mm": 200.5}]
    assert values["skipped"] == []
    for flip in FLIPS:
        assert row[flip]["mpjpe_mm"] > 50  # an untrained network's
    page = (tmp_path / "results/accuracy.md").read_text()
    for protocol in (values["synthetic"], values["coco"], row):
        assert protocol["protocol"] in page
    tables = [line.count("|") for line in page.splitlines() if line.startswith("|")]
    assert len(tables) > 20
    assert "| hybrik-3dpw, all, flip test | 2 |" in page
    sheet = cv2.imread(str(tmp_path / "sheet.jpg"))
    assert sheet.shape[1] == 4 * sheet.shape[0] * 240 // 260  # two people, two tiles each
    assert sheet.std() > 20


def test_what_is_not_there_is_said(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "DEVELOPERS_COCO", weights.parent / "nowhere")
    values = run(monkeypatch, weights, "--no-synthetic")
    assert not {"synthetic", "coco", "sets"} & set(values)
    assert [note.split(":")[0] for note in values["skipped"]] == [
        "COCO keypoints", "synthetic people", "3D sets",
    ]  # fmt: skip
    page = (weights.parent / "results/accuracy.md").read_text()
    assert page.count("Skipped: ") == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--coco", "nowhere"), "cocodataset"),
        (("--sheet", "sheet.jpg"), "cocodataset"),
        (("--data", "nowhere.json"), "write one"),
        (("--body", "nowhere.npz"), "does not exist"),
    ],
)
def test_what_was_asked_for_must_be_there(
    weights: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, str], says: str
) -> None:
    monkeypatch.setattr(accuracy, "DEVELOPERS_COCO", weights.parent / "nowhere")
    with pytest.raises(SystemExit, match=says):
        run(monkeypatch, weights, "--no-synthetic", "--body", BODY, *options)
    assert not (weights.parent / "results").exists()
