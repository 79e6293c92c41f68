"""BEDLAM's and AGORA's files, written here as their authors' scripts write them."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from glnet_rt.body_model import BodyModel
from glnet_rt.errors import SourceError
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.skeleton import INDEX, SMPL_JOINTS
from glnet_rt.spec import NetSpec
from train.data.augment import AugmentConfig, make_crop
from train.data.check import check
from train.data.mixture import Part
from train.data.real import orders
from train.data.real.bedlam import body_pose, read_agora, read_bedlam
from train.data.real.people import RecordSet
from train.data.real.record import HIDDEN, SEEN, UNKNOWN, project

PEOPLE = 2
NUM_SMPLX = 127  # joints of SMPL-X as its library lists them
BODY = [*range(22)]


def cameras(width: int, height: int) -> np.ndarray:
    """Intrinsics as the scripts make them: the principal point is the middle of the picture."""
    return np.array([[900.0, 0, width / 2], [0, 900.0, height / 2], [0, 0, 1]])


def scene(
    folder: Path, body: BodyModel, width: int = 1280, height: int = 720, **changes: object
) -> dict[str, np.ndarray]:
    """One file of standing people in pictures of `width` x `height`; returns its arrays."""
    rng = np.random.default_rng(11)
    poses = rng.normal(size=(PEOPLE, 165)) * 0.25  # 55 joints of three numbers
    poses[:, :3] = [np.pi, 0, 0]
    K = cameras(width, height)
    full = np.concatenate([poses[:, :66], np.zeros((PEOPLE, 6))], 1).reshape(PEOPLE, 24, 3)
    posed = body(np.zeros((PEOPLE, 10), np.float32), rotvec_to_rotmat(full).astype(np.float32))
    joints = posed.joints.astype(np.float64) + np.array([0.1, -0.1, 6.0])
    pixels = rng.uniform(0, 300, (PEOPLE, NUM_SMPLX, 3))
    pixels[..., 2] = 1
    pixels[:, :22, :2] = [project(j, K)[:22] for j in joints]
    pixels[:, 55, :2] = pixels[:, 15, :2] + 7  # the nose
    low, high = pixels[:, :22, :2].min(1), pixels[:, :22, :2].max(1)
    data = {
        "imgname": np.array(["seq_000000/seq_000000_0000.png", "seq_000000/seq_000000_0005.png"]),
        "center": (low + high) / 2,
        "scale": 1.2 * (high - low).max(1) / 200,
        "pose_cam": poses,
        "pose_world": poses + 1,
        "shape": rng.normal(size=(PEOPLE, 11)),
        "trans_cam": np.zeros((PEOPLE, 3)),
        "gtkps": pixels,
        "cam_int": np.tile(K, (PEOPLE, 1, 1)),
        "cam_ext": np.tile(np.eye(4), (PEOPLE, 1, 1)),
        "gender": np.array(["m", "f"]),
        "proj_verts": np.zeros((PEOPLE, 437, 3)),
        "sub": np.array(["rp_a", "rp_b"]),
        **changes,
    }
    data = {k: v for k, v in data.items() if v is not None}
    np.savez(folder / "scene.npz", **data)
    return data


# Joints far enough apart for their spots not to cover each other, each with its blue, green, red.
LIMBS = {
    4: (255, 0, 0), 5: (0, 255, 0), 7: (0, 0, 255), 8: (255, 255, 0), 18: (0, 255, 255),
    19: (255, 0, 255), 20: (255, 255, 255),
}  # fmt: skip


def draw(path: Path, points: np.ndarray, width: int, height: int, *, lying: bool) -> None:
    """A picture with a spot at each limb's joint, saved upright or lying."""
    picture = np.zeros((height, width, 3), np.uint8)
    for k, colour in LIMBS.items():
        cv2.circle(picture, [round(float(v)) for v in points[k, :2]], 3, colour, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    # What a quarter turn clockwise makes upright is stored turned the other way.
    cv2.imwrite(
        str(path), cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE) if lying else picture
    )


def spot(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where [H, W, 3] RGB shows a colour given as blue, green, red: the middle, [2] px."""
    away = np.abs(image.astype(int) - np.array(colour[::-1])).max(-1)
    return np.argwhere(away < 30).mean(0)[::-1]


@pytest.mark.parametrize(
    ("width", "height", "lying"),
    [(1280, 720, False), (720, 1280, True), (720, 1280, False)],
    ids=["landscape", "close-up, as it comes", "close-up, turned already"],
)
def test_labels_lie_on_what_the_picture_shows(
    tmp_path: Path, body: BodyModel, width: int, height: int, lying: bool
) -> None:
    """To the pixel, whichever way the picture is stored."""
    data = scene(tmp_path, body, width, height)
    for name, points in zip(data["imgname"], data["gtkps"], strict=True):
        draw(tmp_path / str(name), points, width, height, lying=lying)
    people = RecordSet(read_bedlam(tmp_path / "scene.npz", tmp_path), {"neutral": body}, size=512)
    for index, record in enumerate(people.records):
        np.testing.assert_allclose(record.keypoints_px[BODY], data["gtkps"][index, :22, :2])
        sample = people[index]
        for k, colour in LIMBS.items():
            told = (sample.uv[k] + 0.5) * 512 - 0.5
            np.testing.assert_allclose(spot(sample.image, colour), told, atol=1.5)
        crop = make_crop(sample, NetSpec(input_size=64), AugmentConfig(), np.random.default_rng(1))
        assert crop.has_betas == 0
        np.testing.assert_array_equal(np.flatnonzero(crop.has_rotation == 0), [22, 23])


def test_a_folder_called_closeup_is_turned_only_where_its_camera_stands(
    tmp_path: Path, body: BodyModel
) -> None:
    """One of BEDLAM's folders is called close-up and holds upright pictures."""
    folder = tmp_path / "20221017_1_250_batch01hand_closeup_suburb_a_6fps"
    folder.mkdir()
    scene(folder, body)
    assert not any(r.portrait for r in read_bedlam(folder / "scene.npz", folder))
    scene(folder, body, 720, 1280)
    assert all(r.portrait for r in read_bedlam(folder / "scene.npz", folder))


def test_first_22_rotations_are_labels_and_nothing_else_of_the_body(
    tmp_path: Path, body: BodyModel
) -> None:
    data = scene(tmp_path, body)
    record = read_bedlam(tmp_path / "scene.npz", tmp_path)[1]
    rotmats = rotvec_to_rotmat(data["pose_cam"][1, :66].reshape(22, 3))
    np.testing.assert_allclose(record.smpl.rotmats[:22], rotmats)
    np.testing.assert_array_equal(record.smpl.rotmats[22:], np.tile(np.eye(3), (2, 1, 1)))
    np.testing.assert_array_equal(record.smpl.known, [True] * 22 + [False] * 2)
    assert record.smpl.betas is None
    _, _, _, located = RecordSet([record], {"neutral": body}).keypoints(record)
    assert not located.any()  # no depth can be told without SMPL-X
    assert record.bbox_xyxy == pytest.approx(
        [*(data["center"][1] - data["scale"][1] * 200 / 2.4),
         *(data["center"][1] + data["scale"][1] * 200 / 2.4)]
    )  # fmt: skip


def test_pixels_are_of_the_joints_both_models_share(tmp_path: Path, body: BodyModel) -> None:
    data = scene(tmp_path, body)
    data["gtkps"][0, 7, 0] = -3.0  # an ankle outside the picture
    np.savez(tmp_path / "scene.npz", **data)
    record = read_bedlam(tmp_path / "scene.npz", tmp_path)[0]
    assert orders.SMPLX.names[:22] == SMPL_JOINTS[:22]
    for name, joint in (("left_wrist", 20), ("nose", 55), ("left_eye", 57), ("right_toe", 63)):
        np.testing.assert_array_equal(record.keypoints_px[INDEX[name]], data["gtkps"][0, joint, :2])
    assert record.state[INDEX["left_ankle"]] == HIDDEN
    assert record.state[INDEX["right_ankle"]] == SEEN
    for name in ("left_hand", "right_hand", "left_fingertip", "head_top", "left_coco_hip"):
        assert record.state[INDEX[name]] == UNKNOWN


def test_fewer_points_are_enough(tmp_path: Path, body: BodyModel) -> None:
    data = scene(tmp_path, body)
    scene(tmp_path, body, gtkps=data["gtkps"][:, :24])
    assert read_bedlam(tmp_path / "scene.npz", tmp_path)[0].state[INDEX["nose"]] == UNKNOWN


def test_twists_hardly_depend_on_the_shape_that_is_not_known(body: BodyModel) -> None:
    """Of the mean shape's bones; those of other bodies point almost the same way."""
    rng = np.random.default_rng(0)
    people = RecordSet([], {"neutral": body})
    angles = []
    for _ in range(50):
        label = body_pose(rng.normal(size=66) * 0.4)
        mean = people.pose(label)[1]
        own = people.pose(dataclasses.replace(label, betas=rng.normal(size=10)))[1]
        cosine = (mean * own).sum(-1)
        angles.append(np.degrees(np.arccos(cosine.clip(-1, 1)))[:21])
    assert np.mean(angles) < 1.0


@pytest.mark.parametrize("count", [10, 11])
def test_agora_tells_the_same_without_a_translation(
    tmp_path: Path, body: BodyModel, count: int
) -> None:
    """Children's shapes have one number more, so that the shapes may be objects; none is read."""
    shapes = np.empty(PEOPLE, object)
    shapes[:] = [np.zeros(10), np.zeros(count)]
    absent = dict.fromkeys(("trans_cam", "gender", "sub"))
    data = scene(tmp_path, body, shape=shapes, bfh=np.array([True, False]), **absent)
    records = read_agora(tmp_path / "scene.npz", tmp_path)
    assert {r.source for r in records} == {"agora"}
    np.testing.assert_allclose(records[0].keypoints_px[BODY], data["gtkps"][0, :22, :2])
    assert [r.image.name for r in records] == [Path(str(n)).name for n in data["imgname"]]


def test_both_are_recognised_and_mixed(
    tmp_path: Path, body: BodyModel, part_of: Callable[..., Part]
) -> None:
    for name, trans in (("bedlam", np.zeros((PEOPLE, 3))), ("agora", None)):
        (tmp_path / name).mkdir()
        scene(tmp_path / name, body, trans_cam=trans)
        (found,) = check(tmp_path / name, tmp_path / "pictures")
        assert found.name == name.upper()
        assert (found.people, found.with_2d, found.with_3d, found.with_smpl) == (2, 2, 0, 2)
        assert found.missing == tmp_path / "pictures/seq_000000/seq_000000_0000.png"
        part = part_of(tmp_path, kind=name, path=f"{name}/scene.npz", images="pictures")
        assert [r.source for r in part.people.records] == [name] * 2
        assert part.people.records[0].image == found.missing


def test_a_dataframe_is_recognised_and_not_opened(tmp_path: Path) -> None:
    """A pickle that would make a folder if it were read."""

    class DataFrame:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "run"),)

    file = tmp_path / "train_0_withjv.pkl"
    file.write_bytes(pickle.dumps(DataFrame()) + b"pandas.core.frame")
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"a": 1}))
    (found,) = check(tmp_path)
    assert found.name == "AGORA"
    assert "dataframe_agora_smplx_release" in found.problem
    assert not (tmp_path / "run").exists()


def test_what_is_neither_is_named_and_nothing_is_run(tmp_path: Path, body: BodyModel) -> None:
    with pytest.raises(SourceError, match="all_npz_12_training"):
        read_bedlam(tmp_path / "none.npz", tmp_path)
    broken = [{"cam_int": None}, {"gtkps": np.zeros((PEOPLE, 17, 3))}, {"scale": np.ones((2, 2))},
              {"pose_cam": np.zeros((PEOPLE, 63))}]  # fmt: skip
    for changes in broken:
        scene(tmp_path, body, **changes)
        with pytest.raises(SourceError, match="no file of BEDLAM"):
            read_bedlam(tmp_path / "scene.npz", tmp_path)
    scene(tmp_path, body, hand_det_conf=np.ones((PEOPLE, 2)), shape=np.zeros((PEOPLE, 16)))
    with pytest.raises(SourceError, match="BEDLAM2"):
        read_bedlam(tmp_path / "scene.npz", tmp_path)
    scene(tmp_path, body, imgname=np.array([object(), object()]))
    with pytest.raises(SourceError, match="cannot be read"):
        read_bedlam(tmp_path / "scene.npz", tmp_path)
    with pytest.raises(SourceError, match="dataframe_agora_smplx_release"):
        read_agora(tmp_path / "train_0_withjv.pkl", tmp_path)
