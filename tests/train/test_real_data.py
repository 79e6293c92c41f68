"""Real data sets: their files as they are published, read exactly."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from glnet_rt.body_model import BodyModel
from glnet_rt.camera import project
from glnet_rt.errors import SourceError
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.skeleton import COCO_FROM_KEYPOINTS, INDEX, NUM_KEYPOINTS
from glnet_rt.spec import NetSpec
from train.data.augment import NO_AUGMENTATION, make_crop
from train.data.real import orders
from train.data.real.coco import read_coco
from train.data.real.people import RecordSet, box_of
from train.data.real.record import HIDDEN, SEEN, UNKNOWN, Record, SmplLabel, nothing_located
from train.data.real.threedpw import read_3dpw

SHARED = Path(__file__).resolve().parents[3] / "shared/data/real"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"no real data rows in {SHARED}")


def coco_file(folder: Path, **changes: object) -> Path:
    """One picture with one person of 17 numbered keypoints, a crowd and a person without any."""
    keypoints = [v for k in range(17) for v in (10.0 + k, 20.0 + 2 * k, k % 3)]
    person = {
        "id": 7, "image_id": 3, "category_id": 1, "bbox": [-4.0, 10.0, 60.0, 100.0], "area": 900.0,
        "iscrowd": 0, "num_keypoints": 11, "keypoints": keypoints,
    }  # fmt: skip
    others = [
        {**person, "id": 8, "iscrowd": 1},
        {**person, "id": 9, "num_keypoints": 0, "keypoints": [0] * 51},
        {**person, "id": 10, "area": 0.0},
    ]
    image = {"id": 3, "file_name": "a.png", "width": 50, "height": 90}
    data = {"images": [image], "annotations": [{**person, **changes}, *others]}
    path = folder / "person_keypoints_val2017.json"
    path.write_text(json.dumps(data))
    cv2.imwrite(str(folder / "a.png"), np.full((90, 50, 3), (10, 20, 200), np.uint8))
    return path


def test_coco_keeps_people_that_can_be_learned_from(tmp_path: Path) -> None:
    (record,) = read_coco(coco_file(tmp_path), tmp_path)
    assert record.tags == {"annotation": 7, "image_id": 3}
    np.testing.assert_array_equal(record.bbox_xyxy, [0, 10, 50, 90])  # cut to the picture
    for k, keypoint in enumerate(COCO_FROM_KEYPOINTS):
        assert record.state[keypoint] == (UNKNOWN, HIDDEN, SEEN)[k % 3]
        expected = [10 + k, 20 + 2 * k] if k % 3 else [0, 0]
        np.testing.assert_array_equal(record.keypoints_px[keypoint], expected)
    elsewhere = sorted(set(range(NUM_KEYPOINTS)) - set(COCO_FROM_KEYPOINTS))
    assert not record.state[elsewhere].any()
    assert record.state[INDEX["left_hip"]] == UNKNOWN  # COCO's hips are keypoints of their own
    assert not record.located.any()


def test_coco_crop_shows_what_the_labels_say(tmp_path: Path, body: BodyModel) -> None:
    people = RecordSet(read_coco(coco_file(tmp_path), tmp_path), {})
    sample = people[0]
    assert not sample.has_rotation.any()
    assert sample.has_betas == 0
    assert not sample.located.any()
    # The square is 1.5 times 80 px around (24.5, 49.5); red is inside the picture, black outside.
    np.testing.assert_allclose(
        sample.uv[INDEX["left_eye"]], [(11 - 24.5) / 120, (22 - 49.5) / 120], atol=1e-6
    )
    assert tuple(sample.image[160, 160]) == (200, 20, 10)
    assert not sample.image[160, 60].any()
    crop = make_crop(sample, NetSpec(input_size=64), NO_AUGMENTATION, np.random.default_rng(0))
    assert crop.has_scale == 0
    assert not crop.depth_weight.any()
    assert crop.uv_weight[INDEX["left_eye"]] == 1
    assert crop.uv_weight[INDEX["nose"]] == 0


@pytest.mark.parametrize("broken", [{"keypoints": [1, 2]}, {"bbox": None}, {"image_id": 99}])
def test_what_is_no_coco_file_is_named(tmp_path: Path, broken: dict[str, object]) -> None:
    with pytest.raises(SourceError, match="no COCO keypoint file"):
        read_coco(coco_file(tmp_path, **broken), tmp_path)


def test_missing_and_damaged_files_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cocodataset"):
        read_coco(tmp_path / "person_keypoints_val2017.json", tmp_path)
    cut = tmp_path / "cut.json"
    cut.write_text('{"images": [')
    with pytest.raises(SourceError, match="no JSON"):
        read_coco(cut, tmp_path)
    with pytest.raises(SourceError, match="virtualhumans"):
        read_3dpw(tmp_path, "test")
    people = RecordSet(read_coco(coco_file(tmp_path), tmp_path), {})
    (tmp_path / "a.png").unlink()
    with pytest.raises(SourceError, match="unpack the pictures"):
        people[0]
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match="damaged"):
        people[0]


@needs_shared
def test_real_coco_rows() -> None:
    for split, count in (("val2017", 11), ("train2017", 20)):
        records = read_coco(
            SHARED / f"coco/annotations/person_keypoints_{split}.json", SHARED / "coco" / split
        )
        assert len(records) == count
        inside = []
        for record in records:
            assert record.image.exists()
            points = record.keypoints_px[record.state > UNKNOWN]
            low, high = record.bbox_xyxy[:2] - 3, record.bbox_xyxy[2:] + 3
            inside += ((points >= low) & (points <= high)).all(1).tolist()
        assert np.mean(inside) > 0.95  # a box follows the outline, which may be cut by something


def test_orders_name_every_joint_once() -> None:
    for name, order in vars(orders).items():
        if isinstance(order, orders.JointOrder):
            assert len(set(order.names)) == len(order), name
            source, target = order.pairs()
            assert len(source) == len(target) >= 11, name
    assert len(orders.COCO) == 17
    assert len(orders.OPENPOSE_18) == 18


@needs_shared
class TestThreedpw:
    """On a file that has the structure of the published ones, with its traps."""

    root = SHARED / "formats/3dpw_synthetic"

    def test_frames_are_dropped_by_camera_and_by_2d_joints(self) -> None:
        def frames(evaluation: bool) -> list[tuple[object, object]]:
            records = read_3dpw(self.root, "test", evaluation=evaluation)
            return [(r.tags["person"], r.tags["frame"]) for r in records]

        first = [(0, i) for i in range(5)]
        assert frames(False) == [*first, (1, 0), (1, 1), (1, 2), (1, 3)]
        assert frames(True) == [*first, (1, 0), (1, 2), (1, 3)]

    def test_reading_changes_nothing_and_rows_number_the_pictures(self) -> None:
        once, again = read_3dpw(self.root, "test"), read_3dpw(self.root, "test")
        for a, b in zip(once, again, strict=True):
            np.testing.assert_array_equal(a.smpl.rotmats, b.smpl.rotmats)
            assert a.image.name == f"image_{a.tags['frame']:05d}.jpg"
            assert a.smpl.betas.shape == (10,)
        assert {r.smpl.gender for r in once} == {"male", "female"}

    def test_body_stands_where_the_2d_joints_are(self, body: BodyModel) -> None:
        """The file's own 3D joints, seen by its camera, lie on its 2D joints; so does the label."""
        people = RecordSet(
            read_3dpw(self.root, "test", evaluation=True), {"male": body, "female": body}
        )
        for index, record in enumerate(people.records):
            points, state, xyz, located = people.keypoints(record)
            assert located.all()
            assert np.abs(xyz[0]).max() < 1e-6
            annotated = record.state > UNKNOWN
            np.testing.assert_array_equal(points[annotated], record.keypoints_px[annotated])
            middle = record.keypoints_px[annotated].mean(0)
            size = np.ptp(record.keypoints_px[annotated], axis=0).max()
            assert np.linalg.norm(points[INDEX["pelvis"]] - middle) < 0.5 * size, index
            assert (state > UNKNOWN).all()

    def test_people_without_2d_joints_get_the_box_of_their_body(self, body: BodyModel) -> None:
        people = RecordSet(read_3dpw(self.root, "test"), {"male": body, "female": body})
        (record,) = (r for r in people.records if not r.state.any())
        assert (record.tags["person"], record.tags["frame"]) == (1, 1)
        points, state, _, _ = people.keypoints(record)
        x0, y0, x1, y1 = box_of(record, points, state)
        assert (points >= [x0, y0]).all()
        assert (points <= [x1, y1]).all()
        assert 100 < y1 - y0 < 2000

    def test_missing_body_models_are_named(self, body: BodyModel) -> None:
        with pytest.raises(SourceError, match="female"):
            RecordSet(read_3dpw(self.root, "test"), {"male": body})


def test_turning_the_world_turns_root_and_pelvis(body: BodyModel) -> None:
    """A label in the world frame equals the same label given in the camera frame."""
    rng = np.random.default_rng(0)
    turn = rotvec_to_rotmat(rng.normal(size=3))
    shift = np.array([0.3, -0.2, 4.0])
    rotmats = rotvec_to_rotmat(rng.normal(size=(24, 3)) * 0.3)
    betas, transl = rng.normal(size=10), rng.normal(size=3) * 0.1
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = turn, shift
    world = body(betas[None].astype("f"), rotmats[None].astype("f"), transl[None].astype("f"))
    expected = body.keypoints(world)[0] @ turn.T + shift
    turned = rotmats.copy()
    turned[0] = turn @ rotmats[0]
    label = SmplLabel(turned, betas, "neutral", transl, frame)
    K = np.array([[900.0, 0, 320], [0, 910, 240], [0, 0, 1]])
    xyz, located = nothing_located()
    record = Record(
        "made up", Path("none"), np.array([0.0, 0, 10, 10]), np.zeros((NUM_KEYPOINTS, 2)),
        np.zeros(NUM_KEYPOINTS, np.uint8), xyz, located, label, K,
    )  # fmt: skip
    points, state, relative, _ = RecordSet([record], {"neutral": body}).keypoints(record)
    np.testing.assert_allclose(relative, expected - expected[0], atol=1e-5)
    np.testing.assert_allclose(points, project(expected, K), atol=0.02)
    assert (state == SEEN).all()
