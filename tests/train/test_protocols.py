"""Evaluation protocols against published evaluation code's numbers and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from glnet_rt.body_model import BodyModel
from glnet_rt.errors import SourceError
from glnet_rt.rotation import rot6d_to_rotmat, rotvec_to_rotmat
from glnet_rt.skeleton import COCO_FROM_KEYPOINTS, LSP_FROM_H36M
from train.data.augment import flipped
from train.data.real.coco import read_coco
from train.data.sample import Sample
from train.evaluate import mirror_outputs, predict
from train.model.config import preset
from train.model.glnet import GLNet
from train.protocols import coco_oks, h36m_14_errors, mpi_3dhp
from train.recover import recover

SHARED = Path(__file__).resolve().parents[3] / "shared/data/real"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"no real data rows in {SHARED}")
RNG = np.random.default_rng(8)


@needs_shared
@pytest.mark.parametrize("split", ["val2017", "train2017"])
def test_coco_figures_are_those_of_cocoeval(split: str) -> None:
    oracle = json.loads((SHARED / f"oracles/kp_expected_{split}.json").read_text())
    results = json.loads((SHARED / f"oracles/kp_results_{split}.json").read_text())
    figures = coco_oks(SHARED / f"coco/annotations/person_keypoints_{split}.json", results)
    assert set(figures) == set(oracle["expected"])
    for name, value in oracle["expected"].items():
        assert figures[name] == pytest.approx(value, abs=1e-6), name


@needs_shared
@pytest.mark.parametrize("flip", [False, True])
def test_keypoints_in_crops_are_keypoints_in_pictures(flip: bool, body: BodyModel) -> None:
    """What the network says of a crop lands where the crop was cut."""
    annotations = SHARED / "coco/annotations/person_keypoints_val2017.json"
    people = read_coco(annotations, SHARED / "coco/val2017")
    model = GLNet(preset("tiny", input_size=64)).eval()
    boxes = [person.bbox_xyxy for person in people]
    found = list(recover(model, body, people, boxes, (flip,)))
    assert len(found) == len(people)
    for (person,), (x0, y0, x1, y1) in zip(found, boxes, strict=True):
        points = person.keypoints_px[list(COCO_FROM_KEYPOINTS)]
        half = 1.25 * max(x1 - x0, y1 - y0) / 2
        # An untrained network answers about where it looks, inside the crop.
        assert (np.abs(points - [(x0 + x1) / 2, (y0 + y1) / 2]) < 1.2 * half).all()


@needs_shared
def test_results_of_other_pictures_are_refused() -> None:
    annotations = SHARED / "coco/annotations/person_keypoints_val2017.json"
    with pytest.raises(SourceError, match="do not fit"):
        coco_oks(annotations, [])
    with pytest.raises(SourceError, match="do not fit"):
        coco_oks(annotations, [{"image_id": 1, "category_id": 1, "keypoints": [], "score": 1.0}])


def test_both_orders_of_alignment() -> None:
    """Choosing first leaves fewer joints to fit, so that the error is lower or the same."""
    target = RNG.normal(size=(5, 17, 3))
    joints = target + 0.04 * RNG.normal(size=target.shape)
    chosen_first = h36m_14_errors(joints, target)
    aligned_first = h36m_14_errors(joints, target, align_all=True)
    assert (chosen_first.pa_mpjpe_mm != aligned_first.pa_mpjpe_mm).all()
    np.testing.assert_allclose(chosen_first.mpjpe_mm, aligned_first.mpjpe_mm)
    moved = 1.3 * joints @ rotvec_to_rotmat(np.array([0.3, -1.0, 2.0])).T + [1.0, 2, 3]
    for align_all in (False, True):
        turned = h36m_14_errors(moved, target, align_all=align_all)
        still = h36m_14_errors(joints, target, align_all=align_all)
        np.testing.assert_allclose(turned.pa_mpjpe_mm, still.pa_mpjpe_mm, rtol=1e-9)


def test_root_is_the_pelvis_or_the_middle_of_the_hips() -> None:
    target = RNG.normal(size=(2, 17, 3))
    joints = target.copy()
    joints[:, 0] += [0.03, 0, 0]  # only the pelvis is wrong
    by_pelvis, by_hips = (h36m_14_errors(joints, target, hip_root=h) for h in (False, True))
    np.testing.assert_allclose(by_pelvis.mpjpe_mm, 30)
    np.testing.assert_allclose(by_hips.mpjpe_mm, 0, atol=1e-9)
    joints = target.copy()
    joints[:, LSP_FROM_H36M[0]] += [0, 0.14, 0]  # one of the 14
    np.testing.assert_allclose(h36m_14_errors(joints, target).mpjpe_mm, 10)


def test_3dhp_counts_fourteen_joints_and_31_thresholds() -> None:
    target = RNG.normal(size=(1, 17, 3))
    joints = target.copy()
    joints[0, :7, 2] += 0.101  # half of the counted joints
    joints[0, 15:, 0] += 9.0  # spine and head do not count
    report = mpi_3dhp(joints, target)
    assert report.pck_percent == 100
    # Exact joints are within all thresholds but 0 (error < threshold), the others within 105..150.
    assert report.auc_percent == pytest.approx(100 * (0.5 * 30 + 0.5 * 10) / 31)
    assert report.mpjpe_mm == pytest.approx((7 * 101 + 2 * 9000) / 17)
    joints[0, :7, 2] += 0.1
    assert mpi_3dhp(joints, target).pck_percent == 50


@pytest.mark.parametrize("representation", ["direct", "decomposed"])
def test_mirrored_predictions_come_back_as_labels_do(representation: str) -> None:
    """Mirroring labels (which the crop tests hold to pixels) undoes mirroring predictions."""
    rotmats = rotvec_to_rotmat(RNG.normal(size=(24, 3)))
    twist = RNG.normal(size=(23, 2))
    label = Sample(
        image=np.zeros((4, 4, 3), np.uint8), crop_side=0.8,
        uv=RNG.normal(size=(36, 2)).astype("f"), labelled=np.ones(36, "f"), seen=np.ones(36, "f"),
        xyz=RNG.normal(size=(36, 3)).astype("f"), located=np.ones(36, "f"),
        rotmats=rotmats.astype("f"), twist=twist.astype("f"), betas=np.zeros(10, "f"),
    )  # fmt: skip
    mirror = flipped(label)
    seen_in_mirror = {
        "keypoints_uvd": torch.from_numpy(np.concatenate([mirror.uv, mirror.xyz[:, 2:]], 1))[None],
        "betas": torch.zeros(1, 10),
        "camera_scale": torch.ones(1),
    }
    if representation == "direct":
        columns = np.ascontiguousarray(mirror.rotmats[..., :2]).reshape(1, 24, 6)
        seen_in_mirror["rot6d"] = torch.from_numpy(columns)
    else:
        seen_in_mirror["twist"] = torch.from_numpy(mirror.twist)[None]
    back = mirror_outputs(seen_in_mirror)
    truth = np.concatenate([label.uv, label.xyz[:, 2:]], 1)
    np.testing.assert_allclose(back["keypoints_uvd"][0], truth, atol=1e-6)
    if representation == "direct":
        found = rot6d_to_rotmat(back["rot6d"].numpy())[0]
        np.testing.assert_allclose(found, rotmats, atol=1e-5)
    else:
        np.testing.assert_allclose(back["twist"][0], twist, atol=1e-6)


def test_flip_test_is_the_mean_of_both_mirror_images() -> None:
    model = GLNet(preset("tiny", input_size=64, representation="direct")).eval()
    image = torch.randn(2, 3, 64, 64)
    once, both = predict(model, image), predict(model, image, flip=True)
    other = mirror_outputs(
        {k: torch.from_numpy(v) for k, v in predict(model, image.flip(-1)).items()}
    )
    np.testing.assert_allclose(
        both["rot6d"], (once["rot6d"] + other["rot6d"].numpy()) / 2, atol=1e-6
    )
    symmetric = predict(model, image.flip(-1), flip=True)
    again = mirror_outputs({k: torch.from_numpy(v) for k, v in symmetric.items()})
    np.testing.assert_allclose(again["keypoints_uvd"], both["keypoints_uvd"], atol=1e-5)
