"""The common re-packagings of real data sets: SPIN's and 4D-Humans' .npz, HybrIK's JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from glnet_rt.body_model import BodyModel
from glnet_rt.errors import SourceError
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.skeleton import INDEX
from train.data.real import orders
from train.data.real.hybrik import read_hybrik_3dhp, read_hybrik_3dpw, read_hybrik_h36m
from train.data.real.people import RecordSet
from train.data.real.record import SEEN, UNKNOWN, intrinsics, project
from train.data.real.spin import read_spin

RNG = np.random.default_rng(5)
PEOPLE = 3


def spin_file(folder: Path, **changes: object) -> Path:
    """Three people; each joint's x tells its index, so that a wrong order shows."""
    part = np.ones((PEOPLE, 24, 3))
    part[..., 0] = np.arange(24)
    part[:, 19:, 2] = 0  # no faces annotated
    openpose = np.ones((PEOPLE, 25, 3))
    openpose[..., 0] = 100 + np.arange(25)
    joints = np.ones((PEOPLE, 24, 4))
    joints[..., :3] = RNG.normal(size=(PEOPLE, 24, 3))
    data = {
        "imgname": np.array(["a/1.jpg", "a/2.jpg", "b/3.jpg"]),
        "center": np.full((PEOPLE, 2), 150.0),
        "scale": np.full(PEOPLE, 1.2),
        "part": part,
        "openpose": openpose,
        "S": joints,
        "pose": RNG.normal(size=(PEOPLE, 72)) * 0.2,
        "shape": RNG.normal(size=(PEOPLE, 10)),
        "gender": np.array(["m", "f", "m"]),
        "has_smpl": np.array([1, 1, 0]),
        **changes,
    }
    path = folder / "set.npz"
    np.savez(path, **{k: v for k, v in data.items() if v is not None})
    return path


def test_spin_prefers_annotated_joints_to_detected_ones(tmp_path: Path) -> None:
    first = read_spin(spin_file(tmp_path), tmp_path)[0]
    x = {name: first.keypoints_px[INDEX[name], 0] for name in ("right_ankle", "nose", "left_toe")}
    assert x == {"right_ankle": 0, "nose": 100, "left_toe": 119}
    assert first.state[INDEX["left_eye"]] == SEEN
    assert first.state[INDEX["left_hip"]] == UNKNOWN  # LSP's hip is another joint
    assert first.image == tmp_path / "a/1.jpg"


def test_spin_boxes_lose_their_margin(tmp_path: Path) -> None:
    """Scale 1.2 with SPIN's own margin of 1.2 is a person 200 px tall."""
    first = read_spin(spin_file(tmp_path), tmp_path)[0]
    np.testing.assert_allclose(first.bbox_xyxy, [50, 50, 250, 250])


def test_spin_joints_are_counted_from_the_pelvis(tmp_path: Path) -> None:
    path = spin_file(tmp_path)
    truth = np.load(path)["S"][1]
    record = read_spin(path, tmp_path)[1]
    pelvis = orders.SPIN_24.names.index("pelvis")
    np.testing.assert_allclose(record.xyz[INDEX["left_knee"]], truth[4, :3] - truth[pelvis, :3])
    assert not record.xyz[INDEX["pelvis"]].any()
    assert record.located[INDEX["left_knee"]]
    assert not record.located[INDEX["spine2"]]


def test_spin_masks_who_has_no_body_and_whose_pelvis_is_unknown(tmp_path: Path) -> None:
    joints = np.ones((PEOPLE, 24, 4))
    joints[2, 14, 3] = 0
    records = read_spin(spin_file(tmp_path, S=joints), tmp_path)
    assert [r.smpl is not None for r in records] == [True, True, False]
    assert [r.located.any() for r in records] == [True, True, False]
    everybody = read_spin(spin_file(tmp_path, has_smpl=None), tmp_path)
    assert all(r.smpl is not None for r in everybody)


def test_genders_count_only_when_asked_for(tmp_path: Path) -> None:
    path = spin_file(tmp_path)
    assert {r.smpl.gender for r in read_spin(path, tmp_path)[:2]} == {"neutral"}
    gendered = read_spin(path, tmp_path, gendered=True)
    assert [r.smpl.gender for r in gendered[:2]] == ["male", "female"]


def test_every_optional_label_may_be_absent(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("part", "openpose", "S", "pose", "shape", "gender", "has_smpl"))
    records = read_spin(spin_file(tmp_path, **nothing), tmp_path)
    assert len(records) == PEOPLE
    for record in records:
        assert record.smpl is None
        assert not record.state.any()
        assert not record.located.any()


def test_hmr_dialect_counts_boxes_in_pixels(tmp_path: Path) -> None:
    body = np.ones((PEOPLE, 25, 3))
    body[..., 0] = 100 + np.arange(25)
    extra = np.ones((PEOPLE, 19, 3))
    extra[..., 0] = np.arange(19)
    spatial = np.concatenate([RNG.normal(size=(PEOPLE, 19, 3)), np.ones((PEOPLE, 19, 1))], -1)
    path = spin_file(
        tmp_path, part=None, openpose=None, S=None, pose=None, shape=None, has_smpl=None,
        scale=np.array([[200.0, 100.0]] * PEOPLE), body_keypoints_2d=body,
        extra_keypoints_2d=extra, extra_keypoints_3d=spatial,
        body_pose=np.zeros((PEOPLE, 72)), betas=np.zeros((PEOPLE, 10)),
        has_body_pose=np.array([1, 0, 1]),
    )  # fmt: skip
    records = read_spin(path, tmp_path)
    np.testing.assert_allclose(records[0].bbox_xyxy, [50, 100, 250, 200])
    assert [r.smpl is not None for r in records] == [True, False, True]
    assert records[0].keypoints_px[INDEX["right_ankle"], 0] == 0
    assert records[0].keypoints_px[INDEX["nose"], 0] == 100
    knee = spatial[0, 4, :3] - spatial[0, 14, :3]
    np.testing.assert_allclose(records[0].xyz[INDEX["left_knee"]], knee)


@pytest.mark.parametrize(
    "broken", [{"center": None}, {"part": np.ones((PEOPLE, 23, 3))}, {"scale": np.ones(2)}]
)
def test_what_is_no_spin_file_is_named(tmp_path: Path, broken: dict[str, object]) -> None:
    with pytest.raises(SourceError, match="no SPIN-style file"):
        read_spin(spin_file(tmp_path, **broken), tmp_path)


def test_missing_cut_and_code_bearing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not there"):
        read_spin(tmp_path / "none.npz", tmp_path)
    path = spin_file(tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(SourceError, match="cannot be read"):
        read_spin(path, tmp_path)
    np.savez(path, imgname=np.array([object()]), center=np.zeros((1, 2)), scale=np.ones(1))
    with pytest.raises(SourceError, match="cannot be read"):
        read_spin(path, tmp_path)


def camera_joints(count: int) -> np.ndarray:
    """[count, 3] mm, some five metres away."""
    return RNG.normal(size=(count, 3)) * 300 + [100, -50, 5000]


def hybrik_file(folder: Path, pictures: list[dict], annotations: list[dict]) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": pictures, "annotations": annotations}))
    return path


def h36m_person(file_name: str, joints: int = 29) -> tuple[dict, dict]:
    smpl = camera_joints(joints)
    picture = {
        "file_name": file_name, "width": 1000, "height": 1002,
        "cam_param": {"f": [1145.0, 1144.0], "c": [512.5, 515.4]},
    }  # fmt: skip
    annotation = {
        "image_id": 4, "bbox": [400.0, 300.0, 200.0, 400.0], "smpl_joints": smpl.tolist(),
        "thetas": (RNG.normal(size=72) * 0.2).tolist(), "betas": [0.1] * 10,
        "root_coord": smpl[0].tolist(), "h36m_joints": camera_joints(17).tolist(),
    }  # fmt: skip
    return picture, annotation


@pytest.mark.parametrize("joints", [24, 29])
def test_h36m_is_paired_by_position_and_in_metres(tmp_path: Path, joints: int) -> None:
    people = [h36m_person(f"s_09_act_0{a}_subact_02_ca_01/x.jpg", joints) for a in (2, 5, 3)]
    path = hybrik_file(tmp_path, [p for p, _ in people], [a for _, a in people])
    records = read_hybrik_h36m(path, tmp_path)
    assert [r.image.parent.name[5:11] for r in records] == ["act_02", "act_03"]  # one is blocked
    record, annotation = records[1], people[2][1]
    truth = np.array(annotation["smpl_joints"])
    np.testing.assert_allclose(record.xyz[:joints], (truth - truth[0]) / 1000)
    assert record.located.sum() == joints
    np.testing.assert_allclose(record.keypoints_px[:joints], project(truth, record.K))
    marked = np.array(annotation["h36m_joints"]) / 1000
    np.testing.assert_allclose(record.tags["h36m_joints_m"], marked)


def test_bodies_stand_where_the_root_is(tmp_path: Path, body: BodyModel) -> None:
    """Keypoints without a label are seen where the posed body has them."""
    picture, annotation = h36m_person("s_01_act_02_subact_01_ca_01/x.jpg", 24)
    path = hybrik_file(tmp_path, [picture], [annotation])
    (record,) = read_hybrik_h36m(path, tmp_path)
    points, state, xyz, _ = RecordSet([record], {"neutral": body}).keypoints(record)
    pelvis = np.array(annotation["root_coord"]) / 1000
    K = intrinsics(picture["cam_param"]["f"], picture["cam_param"]["c"])
    np.testing.assert_allclose(points[INDEX["nose"]], project(xyz + pelvis, K)[INDEX["nose"]])
    assert (state == SEEN).all()


@pytest.mark.parametrize(("count", "split"), [(28, "train"), (17, "test")])
def test_3dhp_orders_differ_between_training_and_test(
    tmp_path: Path, count: int, split: str
) -> None:
    joints = camera_joints(count)
    order = orders.MPI_28 if count == 28 else orders.MPI_17
    picture = {
        "file_name": "TS1/x.jpg", "width": 2048, "height": 2048,
        "cam_param": {"intrinsic_param": [[1500.0, 0, 1024], [0, 1500, 1024], [0, 0, 1]]},
    }  # fmt: skip
    annotation = {
        "image_id": 0, "bbox": [0.0, 0, 100, 100], "keypoints_cam": joints.tolist(),
        **({"activity_id": 3} if split == "test" else {}),
    }  # fmt: skip
    (record,) = read_hybrik_3dhp(hybrik_file(tmp_path, [picture], [annotation]), tmp_path)
    assert record.image == tmp_path / f"mpi_inf_3dhp_{split}_set/TS1/x.jpg"
    assert record.smpl is None
    assert record.tags.get("activity") == (3 if split == "test" else None)
    assert ("joints_m" in record.tags) == (split == "test")
    relative = (joints - joints[order.names.index("pelvis")]) / 1000
    wrist = order.names.index("left_wrist")
    np.testing.assert_allclose(record.xyz[INDEX["left_wrist"]], relative[wrist])


def test_3dpw_is_joined_by_id_and_gendered(tmp_path: Path) -> None:
    joints = camera_joints(24) / 1000
    pose = RNG.normal(size=72) * 0.2
    pictures = [
        {
            "id": i, "file_name": f"image_0000{i}.jpg", "sequence": "walk", "width": 1080,
            "height": 1920, "cam_param": {"focal": [1900.0, 1901.0], "princpt": [540.0, 960.0]},
        }
        for i in range(2)
    ]  # fmt: skip
    annotations = [
        {
            "id": 9, "image_id": image, "bbox": box, "smpl_joint_cam": joints.tolist(),
            "smpl_param": {"pose": pose.tolist(), "shape": [0.0] * 10, "gender": "female"},
        }
        for image, box in ((1, [10.0, 10, 50, 90]), (0, [1078.0, 10, 50, 90]))
    ]  # fmt: skip
    (record,) = read_hybrik_3dpw(hybrik_file(tmp_path, pictures, annotations), tmp_path)
    assert record.image == tmp_path / "imageFiles/walk/image_00001.jpg"  # the other lies outside
    assert record.smpl.gender == "female"
    np.testing.assert_allclose(record.smpl.rotmats, rotvec_to_rotmat(pose.reshape(24, 3)))
    np.testing.assert_allclose(record.xyz[:24], joints - joints[0])


@pytest.mark.parametrize("broken", [{"smpl_joints": [1.0, 2.0]}, {"bbox": None}, {"thetas": []}])
def test_what_is_none_of_hybriks_files_is_named(tmp_path: Path, broken: dict[str, object]) -> None:
    picture, annotation = h36m_person("s_01_act_02_subact_01_ca_01/x.jpg")
    path = hybrik_file(tmp_path, [picture], [{**annotation, **broken}])
    with pytest.raises(SourceError, match="none of HybrIK's"):
        read_hybrik_h36m(path, tmp_path)
    unpaired = hybrik_file(tmp_path, [picture, picture], [annotation])
    with pytest.raises(SourceError, match="none of HybrIK's"):
        read_hybrik_h36m(unpaired, tmp_path)
