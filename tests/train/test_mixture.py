"""Several data sets as one: shares, order, the file that describes them, a training on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from glnet_rt.body_model import BodyModel
from glnet_rt.errors import SourceError
from train import __main__ as command_line
from train.checkpoint import load_weights
from train.data.mixture import Mixture, Part, read_mixture
from train.model.config import as_in_the_paper


class Numbers:
    """A set whose samples are numbers."""

    def __init__(self, count: int, offset: int = 0) -> None:
        self.values = list(range(offset, offset + count))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> int:
        return self.values[index]


def mixture(**counts: tuple[int, float]) -> Mixture:
    parts = {
        name: Part(Numbers(count, 1000 * i), share)
        for i, (name, (count, share)) in enumerate(counts.items())
    }
    return Mixture(parts, length=100, seed=3)


def test_shares_hold_in_every_epoch_and_nobody_comes_twice_too_soon() -> None:
    mixed = mixture(small=(10, 0.35), large=(500, 0.45), other=(20, 0.2))
    assert len(mixed) == 100
    seen: dict[int, int] = {}
    for epoch in range(4):
        drawn = [mixed.pick(epoch, i) for i in range(100)]
        shares = np.bincount(np.array(drawn) // 1000)
        np.testing.assert_array_equal(shares, [35, 45, 20])
        for value in drawn:
            seen[value] = seen.get(value, 0) + 1
    times = [[seen.get(v, 0) for v in part.people.values] for part in mixed.parts]
    assert set(times[0]) == {14}  # 4 epochs of 35 draws are 14 walks through 10
    assert sorted(set(times[1])) == [0, 1]  # 180 of 500, each once
    assert set(times[2]) == {4}


def test_a_draw_is_a_function_of_seed_epoch_and_index() -> None:
    once, again = (mixture(a=(7, 1.0), b=(300, 2.0)) for _ in range(2))
    order = np.random.default_rng(0).permutation(300)
    forwards = {int(i): once.pick(i // 100, i % 100) for i in order}
    assert forwards == {i: again.pick(i // 100, i % 100) for i in range(300)}


def test_empty_parts_and_mixtures_are_refused() -> None:
    for parts in ({}, {"a": Part(Numbers(0), 1.0)}, {"a": Part(Numbers(3), 0.0)}):
        with pytest.raises(SourceError):
            Mixture(parts, 10, 0)


def mixture_file(folder: Path, people: Path) -> Path:
    """Synthetic people and five of COCO."""
    keypoints = [[20.0 + k, 12.0 + 2 * k, 2] for k in range(17)]
    annotations = [
        {"id": i, "image_id": i, "bbox": [5.0, 5, 50, 50], "area": 900.0, "iscrowd": 0,
         "num_keypoints": 17, "keypoints": [v for k in keypoints for v in k]}
        for i in range(5)
    ]  # fmt: skip
    pictures = [{"id": i, "file_name": "a.png", "width": 64, "height": 64} for i in range(5)]
    (folder / "coco.json").write_text(json.dumps({"images": pictures, "annotations": annotations}))
    (folder / "pictures").mkdir()
    cv2.imwrite(str(folder / "pictures/a.png"), np.full((64, 64, 3), 90, np.uint8))
    sets = [
        {"kind": "synthetic", "share": 0.75, "path": str(people / "train")},
        {"kind": "coco", "share": 0.25, "path": "coco.json", "images": "pictures"},
    ]
    file = folder / "mixture.json"
    file.write_text(json.dumps({"epoch": 16, "sets": sets}))
    return file


def test_the_papers_recipe_trains_on_a_mixture(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples with a body and without one in one batch, through the command line."""
    command = [
        "train", "fit", "--recipe", "paper", "--preset", "tiny", "--input-size", "64",
        "--data", str(mixture_file(tmp_path, people)), "--heldout", str(people / "heldout"),
        "--out", str(tmp_path / "run"), "--epochs", "1", "--batch-size", "8",
        "--evaluate-count", "4", "--float32",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    command_line.main()
    model, info = load_weights(tmp_path / "run/weights.safetensors")
    assert info["images"] == 16
    assert info["data"] == "synthetic 0: 0.75, coco 1: 0.25"
    assert model.config.spec.representation == "decomposed"
    assert model.config == as_in_the_paper(model.config)
    assert model.heatmap_head is None
    assert model.surface_head is None


def test_what_describes_no_mixture_is_named(tmp_path: Path, body: BodyModel) -> None:
    file = tmp_path / "mixture.json"
    with pytest.raises(SourceError, match="not there"):
        read_mixture(file, body, 1.25, 0)
    broken = ["{", "[]", '{"epoch": 3, "sets": [{"kind": "lsp", "share": 1, "path": "x"}]}',
              '{"epoch": 3}']  # fmt: skip
    for text in broken:
        file.write_text(text)
        with pytest.raises(SourceError, match="no mixture"):
            read_mixture(file, body, 1.25, 0)
    file.write_text('{"epoch": 3, "sets": [{"kind": "coco", "share": 1, "path": "x.json"}]}')
    with pytest.raises(SourceError, match="cocodataset"):
        read_mixture(file, body, 1.25, 0)
