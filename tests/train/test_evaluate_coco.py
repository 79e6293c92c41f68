"""COCO's keypoints: PCK counted by hand, splits, and what is left out and said so."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from glnet_rt.body_model import BodyModel
from glnet_rt.camera import project
from glnet_rt.errors import SourceError
from glnet_rt.skeleton import COCO_17, COCO_FROM_KEYPOINTS
from tests.train.conftest import BODY
from train.checkpoint import load_weights
from train.data.real.record import HIDDEN, SEEN, UNKNOWN
from train.evaluate_coco import (
    SHARED,
    Answers,
    CocoSplit,
    answer,
    evaluate_coco,
    figures,
    joined,
    pck_figures,
    read_splits,
)
from train.model.config import preset
from train.model.glnet import GLNet
from train.recover import FLIPS

ROOT = Path(__file__).resolve().parents[2]
PACK = ROOT.parent / "shared/data/real/coco"
needs_shared = pytest.mark.skipif(not PACK.exists(), reason=f"no real data rows in {PACK}")


def coco_folder(root: Path, split: str, first: int, people: int = 2) -> None:
    """One picture with people whose keypoints are visible, hidden and unlabelled by turns."""
    (root / "annotations").mkdir(exist_ok=True, parents=True)
    (root / split).mkdir()
    keypoints = [v for k in range(17) for v in (20.0 + 2 * k, 30.0 + 3 * k, (2, 2, 1, 0)[k % 4])]
    annotations = [
        {"id": i, "image_id": first, "category_id": 1, "bbox": [10.0, 20.0, 50.0, 80.0],
         "area": 4000.0, "iscrowd": 0, "num_keypoints": 13, "keypoints": keypoints}
        for i in range(1, people + 1)
    ]  # fmt: skip
    image = {"id": first, "file_name": f"{first}.png", "width": 96, "height": 128}
    data = {
        "images": [image], "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_17), "skeleton": []}],
    }  # fmt: skip
    (root / f"annotations/person_keypoints_{split}.json").write_text(json.dumps(data))
    picture = np.random.default_rng(first).integers(0, 255, (128, 96, 3), np.uint8)
    cv2.imwrite(str(root / split / f"{first}.png"), picture)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A COCO folder of two splits, two people each."""
    coco_folder(tmp_path, "train2017", 3)
    coco_folder(tmp_path, "val2017", 5)
    return tmp_path


def untrained(body: BodyModel) -> GLNet:
    config = preset("tiny", input_size=64, body_id=body.body_id, body_sha256=body.sha256)
    return GLNet(config).eval()


def moved(truth: Answers, joint: int, share: float) -> Answers:
    """Answers whose `joint` of everyone is off by this share of the box."""
    points = truth.keypoints_px.copy()
    points[:, joint, 1] += share * truth.side_px
    return dataclasses.replace(truth, keypoints_px=points)


def exact(splits: list[CocoSplit], body: BodyModel) -> Answers:
    """The labels themselves as answers of everyone in all splits."""
    found = joined([answer(untrained(body), body, s.people)[0] for s in splits])
    target = found.target_px
    return dataclasses.replace(found, keypoints_px=target, body_px=target[:, list(SHARED)])


def test_shared_joints_are_the_limbs() -> None:
    limbs = ("shoulder", "elbow", "wrist", "knee", "ankle")
    expected = [n for n in COCO_17 if n.split("_")[-1] in limbs]
    assert [COCO_17[i] for i in SHARED] == expected
    assert len(expected) == 10


def test_pck_counts_joints_by_what_is_labelled_of_them(folder: Path, body: BodyModel) -> None:
    splits, left_out = read_splits(folder)
    assert left_out == []
    truth = exact(splits, body)
    np.testing.assert_array_equal(truth.side_px, 80)
    state = [(SEEN, SEEN, HIDDEN, UNKNOWN)[k % 4] for k in range(17)]
    visible, labelled = state.count(SEEN), 17 - state.count(UNKNOWN)
    perfect = pck_figures(truth)
    for joints in ("keypoints", "keypoints_shared", "body_shared"):
        assert perfect[joints]["visible"]["pck_0.05"] == 1
    assert perfect["keypoints"]["visible"]["joints"] == 4 * visible
    assert perfect["keypoints"]["labelled"]["joints"] == 4 * labelled
    elbow = COCO_17.index("right_elbow")
    assert state[elbow] == SEEN
    off = pck_figures(moved(truth, elbow, 0.15))["keypoints"]
    share = 1 - 1 / visible
    assert off["visible"]["pck_0.1"] == pytest.approx(share)
    assert off["visible"]["pck_0.2"] == 1
    assert off["labelled"]["pck_0.05"] == pytest.approx(1 - 1 / labelled)
    assert off["visible_per_joint"]["right_elbow"] == {
        "joints": 4, "pck_0.05": 0, "pck_0.1": 0, "pck_0.2": 1,
    }  # fmt: skip
    hidden = COCO_17[state.index(HIDDEN)]
    assert off["visible_per_joint"][hidden] == {"joints": 0}


def test_exact_keypoints_have_full_marks(folder: Path, body: BodyModel) -> None:
    """With one person to a picture: two in one box cannot be told apart."""
    for split in ("train2017", "val2017"):
        path = folder / f"annotations/person_keypoints_{split}.json"
        data = json.loads(path.read_text())
        path.write_text(json.dumps({**data, "annotations": data["annotations"][:1]}))
    splits, _ = read_splits(folder)
    truth = exact(splits, body)
    files = [split.annotations for split in splits]
    report = figures(files, [truth, moved(truth, 0, 0.5)])
    assert (report["people"], report["visible"]) == (2, 2 * 9)
    assert report["plain"]["oks"]["AP"] == pytest.approx(1)
    assert 0 < report["flip test"]["oks"]["AP"] < 1


def test_splits_are_reported_apart_and_pooled(folder: Path, body: BodyModel) -> None:
    splits, _ = read_splits(folder)
    report = evaluate_coco(untrained(body), body, splits)
    assert list(report["splits"]) == ["train2017", "val2017", "pooled"]
    assert [s["people"] for s in report["splits"].values()] == [2, 2, 4]
    for flip in FLIPS:
        parts = [s[flip]["keypoints"]["visible"]["pck_0.2"] for s in report["splits"].values()]
        assert parts[2] == pytest.approx((parts[0] + parts[1]) / 2)
    alone, _ = read_splits(folder, ["val2017"])
    assert list(evaluate_coco(untrained(body), body, alone)["splits"]) == ["val2017"]


def test_body_joints_are_projected_where_the_overlay_draws_them(
    folder: Path, body: BodyModel
) -> None:
    """Shipped weights: the body stands on the network's own keypoints, roughly."""
    import glnet_rt

    model, _ = load_weights(ROOT / "weights/tiny.safetensors")
    (split,), _ = read_splits(folder, ["val2017"])
    found = answer(model, body, split.people)[0]
    with glnet_rt.load(body=BODY) as hmr:
        result = hmr(split.people[0].image, boxes=[p.bbox_xyxy for p in split.people])
    for i, person in enumerate(result.people):
        keypoints = person.keypoints_px[list(COCO_FROM_KEYPOINTS)]
        np.testing.assert_allclose(found.keypoints_px[i], keypoints, atol=0.2)
        joints = project(person.joints.astype(np.float64), person.K)[[16, 17]]  # shoulders
        np.testing.assert_allclose(found.body_px[i, :2], joints, atol=0.2)


def test_splits_without_pictures_are_left_out_and_named(folder: Path) -> None:
    (folder / "train2017/3.png").unlink()
    (folder / "train2017").rmdir()
    splits, left_out = read_splits(folder)
    assert [s.name for s in splits] == ["val2017"]
    assert left_out == ["train2017 left out: its pictures are not there"]
    with pytest.raises(SourceError, match="pictures are not there"):
        read_splits(folder, ["train2017"])


def test_absent_splits_and_folders_say_where_to_get_them(folder: Path) -> None:
    with pytest.raises(SourceError, match="cocodataset"):
        read_splits(folder / "nowhere")
    with pytest.raises(SourceError, match="test2017"):
        read_splits(folder, ["test2017"])


def test_a_picture_in_two_splits_is_refused(tmp_path: Path, body: BodyModel) -> None:
    coco_folder(tmp_path, "train2017", 3)
    coco_folder(tmp_path, "val2014", 3)
    splits, _ = read_splits(tmp_path)
    with pytest.raises(SourceError, match="several splits"):
        evaluate_coco(untrained(body), body, splits)


@needs_shared
def test_shipped_weights_on_real_rows(body: BodyModel) -> None:
    """Whether what the network learned from drawn people still finds photographed ones."""
    model, _ = load_weights(ROOT / "weights/tiny.safetensors")
    splits, _ = read_splits(PACK)
    report = evaluate_coco(model, body, splits)["splits"]["pooled"]
    assert (report["people"], report["visible"], report["labelled"]) == (31, 271, 317)
    assert report["plain"]["keypoints"]["visible"]["pck_0.2"] > 0.7
    assert report["plain"]["body_shared"]["visible"]["pck_0.2"] > 0.65
