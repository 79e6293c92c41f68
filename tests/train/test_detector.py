"""The person detector: its scenes, targets and loss, and that it learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from glnet_rt.errors import ArtifactError, SourceError
from train.detector.evaluate import Found, count_found, evaluate
from train.detector.fit import DetectorFit, DetectorTrainer, as_batch, load_detector
from train.detector.loss import detector_loss, generalised_iou, targets_of
from train.detector.model import STRIDE, Detector, DetectorConfig
from train.detector.scenes import LEAST_VISIBLE, Scene, Scenes
from train.synthetic.dataset import SetSettings, render_set

BODY = Path(__file__).resolve().parents[2] / "glnet_rt/assets/body.npz"
SMALL = DetectorConfig(widths=(8, 8, 16, 16, 16), blocks=(1, 1, 1, 1))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few real synthetic people of both splits."""
    root = tmp_path_factory.mktemp("rendered")
    for split in ("train", "heldout"):
        render_set(root / split, SetSettings(BODY, split, 1, 64), 24)
    return root


def blocks(seed: int, size: int = 64) -> Scene:
    """Bright upright blocks on a dark ground: as easy as a scene can be."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 40, (size, size, 3)).astype(np.uint8)
    boxes = []
    for column in range(int(rng.integers(1, 3))):
        left, top = 4 + 32 * column + int(rng.integers(0, 10)), int(rng.integers(0, 24))
        wide, tall = int(rng.integers(10, 16)), int(rng.integers(24, 38))
        image[top : top + tall, left : left + wide] = rng.integers(180, 255, 3)
        boxes.append([left, top, left + wide, top + tall])
    return Scene(image, np.array(boxes, np.float32), np.ones(len(boxes), np.float32))


def test_scenes_are_a_function_of_their_number(folders: Path) -> None:
    scenes = Scenes(folders / "train", "train", 1, 96)
    again = Scenes(folders / "train", "train", 1, 96)
    seen = 0
    for index in range(12):
        scene, same = scenes.scene(index), again.scene(index)
        np.testing.assert_array_equal(scene.image, same.image)
        np.testing.assert_array_equal(scene.boxes, same.boxes)
        assert scene.image.shape == (96, 96, 3)
        np.testing.assert_array_equal(scene.boxes, scene.boxes.clip(0, 96))
        assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()
        assert ((scene.visible >= 0) & (scene.visible <= 1)).all()
        seen += len(scene.boxes)
    assert seen > 6
    assert not np.array_equal(scenes.scene(0).image, scenes.scene(1).image)


def test_splits_do_not_mix(folders: Path) -> None:
    with pytest.raises(SourceError, match="no people of this split"):
        Scenes(folders / "train", "heldout")


def test_targets_and_a_perfect_answer() -> None:
    scene = blocks(3)
    targets = targets_of([scene])
    assert int((targets.heat == 1).sum()) == len(scene.boxes)
    middle = (scene.boxes[0, :2] + scene.boxes[0, 2:]) / 2
    x, y = (int(v) for v in middle / STRIDE)
    assert targets.heat[0, y, x] == 1
    np.testing.assert_array_equal(targets.boxes[0, :, y, x], scene.boxes[0])
    assert float(targets.weight.sum()) == pytest.approx(len(scene.boxes), abs=1e-5)
    sure = torch.where(targets.heat == 1, 12.0, -12.0)[:, None]
    perfect = detector_loss(sure, targets.boxes, targets)
    assert float(sum(perfect.values())) < 1e-2
    wrong = detector_loss(-sure, targets.boxes + 8.0, targets)
    assert all(float(wrong[name]) > float(perfect[name]) + 0.1 for name in perfect)


def test_who_is_mostly_hidden_is_neither_person_nor_ground() -> None:
    scene = blocks(3)
    hidden = Scene(scene.image, scene.boxes[:1], np.array([LEAST_VISIBLE / 2], np.float32))
    targets = targets_of([hidden])
    assert int((targets.heat > 0).sum()) == 0
    assert int((targets.counted == 0).sum()) > 0


def test_generalised_iou_by_hand() -> None:
    first = torch.tensor([[0.0, 0, 4, 4], [0, 0, 2, 2]]).T[None]
    second = torch.tensor([[0.0, 0, 4, 2], [4, 0, 6, 2]]).T[None]
    got = generalised_iou(first, second)[0]
    np.testing.assert_allclose(got, [0.5, -4 / 12], atol=1e-6)


def test_counting() -> None:
    people = np.array([[0, 0, 10, 20], [30, 0, 40, 20]], float)
    told = np.array([[0, 0, 10, 19], [1, 0, 10, 20], [60, 0, 70, 20]], float)
    assert count_found(told, people) == Found(people=2, found=1, boxes=3)
    assert count_found(told, people, told[2:]) == Found(people=2, found=1, boxes=2)
    assert Found(4, 3, 6).figures() == {"recall": 0.75, "precision": 0.5}


def test_it_learns_easy_scenes() -> None:
    torch.manual_seed(0)
    model = Detector(SMALL)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for step in range(60):
        scenes = [blocks(8 * step + i) for i in range(8)]
        logits, boxes = model(as_batch(scenes))
        loss = torch.stack(list(detector_loss(logits, boxes, targets_of(scenes)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    class Easy:
        size = 64
        scene = staticmethod(blocks)

    found = evaluate(model, Easy(), range(100_000, 100_040)).figures()  # type: ignore[arg-type]
    assert found["recall"] > 0.7
    assert found["precision"] > 0.7


def test_a_run_goes_on_where_it_stopped(folders: Path, tmp_path: Path) -> None:
    def fit(run: Path, images: int) -> None:
        config = DetectorFit(
            images=images, batch_size=4, size=64, evaluate_count=4, bf16=False, cooldown=0
        )
        DetectorTrainer(config, run, folders / "train", folders / "heldout", SMALL).fit()

    fit(tmp_path / "once", 16)
    fit(tmp_path / "twice", 8)
    fit(tmp_path / "twice", 16)
    once, info = load_detector(tmp_path / "once/weights.safetensors")
    twice, _ = load_detector(tmp_path / "twice/weights.safetensors")
    assert info["images"] == 16
    for mine, theirs in zip(once.state_dict().values(), twice.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_weights_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_text(json.dumps({}))
    with pytest.raises(ArtifactError, match="detector weights"):
        load_detector(path)
