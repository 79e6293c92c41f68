"""EMDB's files, written here as the data set writes them."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from glnet_rt.body_model import BodyModel
from glnet_rt.errors import SourceError
from glnet_rt.rotation import rotvec_to_rotmat
from train.data.check import check
from train.data.mixture import Part
from train.data.real.emdb import read_emdb
from train.data.real.people import RecordSet
from train.data.real.record import project

FRAMES = 6
GOOD = np.array([True, True, False, True, True, True])
K = np.array([[960.0, 0, 720], [0, 961.0, 960], [0, 0, 1]])


def sequence(
    root: Path, body: BodyModel, name: str = "P2_19_indoor_off_mvs", protocol: int = 4, **changes
) -> dict:
    """A person who walks in the world before a camera that turns; frame 4 has no box."""
    rng = np.random.default_rng(3)
    poses = rng.normal(size=(FRAMES, 72)) * 0.3
    betas, trans = rng.normal(size=10) * 0.5, rng.normal(size=(FRAMES, 3)) * 0.2
    extrinsics = np.tile(np.eye(4), (FRAMES, 1, 1))
    extrinsics[:, :3, :3] = rotvec_to_rotmat(rng.normal(size=(FRAMES, 3)))
    extrinsics[:, :3, 3] = [0.2, -0.1, 5.0]
    rotmats = rotvec_to_rotmat(poses.reshape(FRAMES, 24, 3)).astype(np.float32)
    shape = np.tile(betas, (FRAMES, 1)).astype(np.float32)
    world = body(shape, rotmats, trans.astype(np.float32)).joints.astype(np.float64)
    camera = world @ extrinsics[:, :3, :3].transpose(0, 2, 1) + extrinsics[:, None, :3, 3]
    data = {
        "gender": "female",
        "name": name,
        "emdb1": True,
        "emdb2": np.bool_(False),
        "n_frames": FRAMES,
        "good_frames_mask": GOOD,
        "camera": {"intrinsics": K, "extrinsics": extrinsics, "width": 1440, "height": 1920},
        "smpl": {
            "poses_root": poses[:, :3],
            "poses_body": poses[:, 3:],
            "trans": trans,
            "betas": betas,
        },
        "kp2d": np.stack([project(joints, K) for joints in camera]),
        "bboxes": {
            "bboxes": np.arange(FRAMES)[:, None] + np.array([100.0, 200.0, 300.0, 500.0]),
            "invalid_idxs": np.array([2, 4]),
        },
        **changes,
    }
    subject, _, rest = name.partition("_")
    folder = root / subject / rest
    folder.mkdir(parents=True)
    (folder / f"{name}_data.pkl").write_bytes(pickle.dumps(data, protocol))
    return data


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_only_good_frames_are_read_and_rows_number_the_pictures(
    tmp_path: Path, body: BodyModel, protocol: int
) -> None:
    sequence(tmp_path, body, protocol=protocol)
    records = read_emdb(tmp_path)
    assert [r.tags["frame"] for r in records] == [0, 1, 3, 4, 5]
    assert records[2].image == tmp_path / "P2/19_indoor_off_mvs/images/00003.jpg"
    np.testing.assert_array_equal(records[2].bbox_xyxy, [103, 203, 303, 503])
    assert [r.bbox_xyxy is None for r in records] == [False, False, False, True, False]
    assert records[0].tags["emdb1"] is True
    assert records[0].tags["emdb2"] is False


def test_bodies_are_turned_into_the_camera_and_lie_on_their_pixels(
    tmp_path: Path, body: BodyModel
) -> None:
    """The file's own pixels and those of the posed label agree to a hundredth of a pixel."""
    data = sequence(tmp_path, body)
    people = RecordSet(read_emdb(tmp_path), {"female": body})
    for record in people.records:
        truth = data["kp2d"][record.tags["frame"]]
        np.testing.assert_array_equal(record.keypoints_px[:24], truth)
        unlabelled = dataclasses.replace(record, state=np.zeros(36, np.uint8))
        points, state, _, located = people.keypoints(unlabelled)
        assert state.all()
        assert located.all()
        np.testing.assert_allclose(points[:24], truth, atol=0.01)
        assert record.smpl.known.all()


def test_parts_are_told_apart(tmp_path: Path, body: BodyModel) -> None:
    sequence(tmp_path, body)
    sequence(tmp_path, body, "P0_09_outdoor_walk", emdb1=False, emdb2=True)
    for part, name in (("emdb1", "P2_19_indoor_off_mvs"), ("emdb2", "P0_09_outdoor_walk")):
        assert {r.tags["sequence"] for r in read_emdb(tmp_path, part)} == {name}
    assert len(read_emdb(tmp_path)) == 10


def test_it_is_recognised_and_mixed_where_the_models_are_named(
    tmp_path: Path, body: BodyModel, part_of: Callable[..., Part]
) -> None:
    sequence(tmp_path, body)
    (found,) = check(tmp_path)
    assert (found.name, found.people, found.with_3d, found.with_smpl) == ("EMDB", 5, 5, 5)
    with pytest.raises(SourceError, match="female"):
        part_of(tmp_path, kind="emdb")
    sequence(tmp_path / "neutral", body, gender="neutral")
    assert len(part_of(tmp_path, kind="emdb", path="neutral").people) == 5


def test_missing_foreign_and_code_bearing_files_are_refused(
    tmp_path: Path, body: BodyModel
) -> None:
    with pytest.raises(SourceError, match="eth-ait"):
        read_emdb(tmp_path)
    sequence(tmp_path, body)
    (file,) = tmp_path.glob("P2/*/*.pkl")
    for foreign in ({"gender": "male"}, {"smpl": pytest.raises}, [1]):
        file.write_bytes(pickle.dumps(foreign))
        with pytest.raises(SourceError, match="no EMDB sequence"):
            read_emdb(tmp_path)
    file.write_bytes(b"cut")
    with pytest.raises(SourceError, match="no EMDB sequence"):
        read_emdb(tmp_path)
