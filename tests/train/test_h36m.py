"""Human3.6M's own files and 3DMPPE's of it, written here as their publishers write them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from glnet_rt.errors import SourceError
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.skeleton import INDEX
from train.data.check import check
from train.data.mixture import Part
from train.data.real.h36m import read_h36m, read_metadata
from train.data.real.mppe import read_3dmppe
from train.data.real.record import UNKNOWN, intrinsics, project
from train.evaluate_bodies import KINDS

cdflib = pytest.importorskip("cdflib")
h5py = pytest.importorskip("h5py")

CAMERAS = ("54138969", "55011271", "58860488", "60457274")
SUBJECTS = tuple(range(1, 12))
FRAMES = 7
RNG = np.random.default_rng(7)
# The set's own names of subject 9's recordings, by action and subaction.
NINTH = {
    (1, 1): "_ALL 1", (2, 1): "Directions 1", (5, 1): "Greeting 1", (5, 2): "Greeting",
    (10, 1): "SittingDown", (10, 2): "SittingDown 1", (13, 1): "Waiting 1", (13, 2): "Waiting",
}  # fmt: skip
# Where the recorded skeleton of 32 has them: right leg, left leg, then arms left and right.
RECORDED = {
    "pelvis": 11, "left_knee": 7, "left_ankle": 8, "right_knee": 2, "right_ankle": 3,
    "left_shoulder": 17, "left_elbow": 18, "left_wrist": 19, "right_shoulder": 25,
    "right_elbow": 26, "right_wrist": 27,
}  # fmt: skip


def metadata_file(root: Path) -> dict[str, np.ndarray]:
    """`metadata.xml` with the set's structure; returns the intrinsics it holds."""
    poses = RNG.normal(size=(len(CAMERAS), len(SUBJECTS), 6)) * 1000
    lenses = RNG.uniform(1140, 1150, (len(CAMERAS), 9))
    lenses[:, 2:4] = RNG.uniform(505, 520, (len(CAMERAS), 2))
    w0 = " ".join(f"{v:.6f}" for v in [*poses.reshape(-1), *lenses.reshape(-1)])
    header = "".join(f"<td>S{s}</td>" for s in SUBJECTS)
    rows = [f"<tr><td/><td/>{header}</tr>"]
    for (action, subaction), name in NINTH.items():
        # Other subjects' recordings bear other numbers.
        cells = "".join(f"<td>{name if s == 9 else f'Other {s}'}</td>" for s in SUBJECTS)
        rows.append(f"<tr><td>{action}</td><td>{subaction}</td>{cells}</tr>")
    rows.append("<tr><td/><td/>" + "<td>[1002 1000;1000 1000]</td>" * len(SUBJECTS) + "</tr>")
    cameras = "".join(f"<item>{c}</item>" for c in CAMERAS)
    (root / "metadata.xml").write_text(
        f"<metadata><mapping>{''.join(rows)}</mapping>"
        f"<dbcameras><index2id>{cameras}</index2id></dbcameras><w0>[{w0}]</w0></metadata>"
    )
    return {c: intrinsics(r[:2], r[2:4]) for c, r in zip(CAMERAS, lenses, strict=True)}


def cdf_file(path: Path, values: np.ndarray) -> None:
    """One variable `Pose` of one record, [F, numbers], as the set's files hold it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    variable = {
        "Variable": "Pose", "Data_Type": 44, "Num_Elements": 1, "Rec_Vary": True,
        "Dim_Sizes": list(values.shape), "Var_Type": "zVariable",
    }  # fmt: skip
    with cdflib.cdfwrite.CDF(path, cdf_spec={"Compressed": 6}, delete=True) as file:
        file.write_var(variable, var_data=values[None].astype(np.float32))


def recording(
    root: Path, subject: int, name: str, K: np.ndarray, frames: int = FRAMES
) -> np.ndarray:
    """One recording; returns the joints [frames, 32, 3] in the camera, mm."""
    folder = root / f"S{subject}/MyPoseFeatures"
    joints = RNG.normal(size=(frames, 32, 3)) * 300 + [100, -50, 5000]
    pixels = np.stack([project(j, K) for j in joints])
    # One more frame of pixels than of positions, as some recordings have.
    longer = np.concatenate([pixels, pixels[-1:] + 99])
    cdf_file(folder / f"D2_Positions/{name}.cdf", longer.reshape(frames + 1, 64))
    cdf_file(folder / f"D3_Positions_mono/{name}.cdf", joints.reshape(frames, 96))
    # Beside them, the same in the world and scaled to one skeleton.
    cdf_file(folder / f"D3_Positions/{name}.cdf", joints.reshape(frames, 96) @ np.eye(96)[::-1])
    cdf_file(folder / f"D3_Positions_mono_universal/{name}.cdf", joints.reshape(frames, 96) * 0.9)
    return joints


def test_joints_are_camera_metres_left_side_first_and_lie_on_their_pixels(tmp_path: Path) -> None:
    K = metadata_file(tmp_path)["60457274"]
    joints = recording(tmp_path, 9, "Directions 1.60457274", K)
    records = read_h36m(tmp_path, "test")
    assert [r.tags["frame"] for r in records] == [0, 5]
    # Frames are counted from zero, pictures from one.
    names = ["S9_Directions_1.60457274_000001.jpg", "S9_Directions_1.60457274_000006.jpg"]
    assert [r.image for r in records] == [tmp_path / "images" / name for name in names]
    record, truth = records[1], joints[5] / 1000
    assert record.tags["subject"] == 9
    for name, index in RECORDED.items():
        relative = truth[index] - truth[RECORDED["pelvis"]]
        np.testing.assert_allclose(record.xyz[INDEX[name]], relative, atol=1e-6)
        pixel = project(truth, record.K)[index]
        np.testing.assert_allclose(record.keypoints_px[INDEX[name]], pixel, atol=1e-3)
    assert record.state[INDEX["left_hip"]] == UNKNOWN  # a marker's hip is another point
    assert record.located.sum() == len(RECORDED)
    seventeen = record.tags["h36m_joints_m"]
    np.testing.assert_allclose(seventeen[:4], truth[[11, 6, 7, 8]], atol=1e-6)


def test_blocked_recordings_and_compilations_are_left_out(tmp_path: Path) -> None:
    K = metadata_file(tmp_path)["54138969"]
    for name in NINTH.values():
        recording(tmp_path, 9, f"{name}.54138969", K, frames=1)
    recording(tmp_path, 11, "Greeting.54138969", K, frames=1)  # of another subject, which fits
    found = {(r.tags["subject"], r.tags["activity"]) for r in read_h36m(tmp_path, "test")}
    fitting = {"Directions 1", "Greeting 1", "SittingDown", "Waiting"}
    assert found == {(9, name) for name in fitting} | {(11, "Greeting")}


def test_protocols_choose_subjects_cameras_and_frames(tmp_path: Path) -> None:
    Ks = metadata_file(tmp_path)
    for subject in SUBJECTS:
        for camera in CAMERAS[2:]:
            recording(tmp_path, subject, f"Eating.{camera}", Ks[camera], frames=3)
    for split, subjects in (("train", {1, 5, 6, 7, 8}), ("test", {9, 11})):
        first = read_h36m(tmp_path, split)
        assert {r.tags["subject"] for r in first} == subjects
        assert {r.tags["sequence"].partition(".")[2] for r in first} == set(CAMERAS[2:])
        second = read_h36m(tmp_path, split, protocol=2, every=2)
        assert {r.tags["sequence"].partition(".")[2] for r in second} == {"60457274"}
        assert [r.tags["frame"] for r in second] == [0, 2] * len(subjects)


def test_boxes_come_from_masks_when_asked(tmp_path: Path) -> None:
    K = metadata_file(tmp_path)["60457274"]
    recording(tmp_path, 1, "Eating.60457274", K)
    folder = tmp_path / "S1/MySegmentsMat/ground_truth_bb"
    folder.mkdir(parents=True)
    with h5py.File(folder / "Eating.60457274.mat", "w") as file:
        references = file.create_dataset("Masks", (FRAMES, 1), dtype=h5py.ref_dtype)
        for frame in range(FRAMES):
            mask = np.zeros((60, 80), np.uint8)
            mask[10:31, 20 + frame : 41] = 1
            # MATLAB's files are written column by column.
            references[frame, 0] = file.create_dataset(f"#refs#/{frame}", data=mask.T).ref
    assert {r.bbox_xyxy is None for r in read_h36m(tmp_path, "train")} == {True}
    boxes = [r.bbox_xyxy for r in read_h36m(tmp_path, "train", masks=True)]
    np.testing.assert_array_equal(boxes, [[20, 10, 41, 31], [25, 10, 41, 31]])


def test_missing_and_foreign_files_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file of Human3"):
        read_h36m(tmp_path, "train")
    (tmp_path / "metadata.xml").write_text("<metadata><w0>[1 2 3]</w0></metadata>")
    with pytest.raises(SourceError, match="no file of Human3"):
        read_metadata(tmp_path / "metadata.xml")
    K = metadata_file(tmp_path)["60457274"]
    with pytest.raises(SourceError, match="imar"):
        read_h36m(tmp_path, "train")
    recording(tmp_path, 1, "Eating.60457274", K)
    with pytest.raises(SourceError, match="Masks"):
        read_h36m(tmp_path, "train", masks=True)
    file = tmp_path / "S1/MyPoseFeatures/D3_Positions_mono/Eating.60457274.cdf"
    whole = file.read_bytes()
    for damaged in (b"", b"no cdf at all", whole[:400], whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(SourceError, match="no file of Human3"):
            read_h36m(tmp_path, "train")
    cdf_file(file, np.zeros((3, 90)))
    with pytest.raises(SourceError, match="frames x 96 numbers"):
        read_h36m(tmp_path, "train")


def mppe_files(root: Path, subject: int, recordings: list[tuple[int, int]]) -> dict[str, object]:
    """One subject's three files, frames 0 to 5; returns R, t, K and the joints in the world, mm."""
    R, t = rotvec_to_rotmat(RNG.normal(size=3)), np.array([100.0, -300, 5000])
    f, c = [1145.0, 1143.8], [512.5, 515.4]
    pictures, annotations, joints, worlds = [], [], {}, {}
    for action, subaction in recordings:
        frames = joints.setdefault(str(action), {}).setdefault(str(subaction), {})
        for frame in range(6):
            number = 1000 * subject + len(pictures)
            folder = f"s_{subject:02d}_act_{action:02d}_subact_{subaction:02d}_ca_02"
            pictures.append({
                "id": number, "file_name": f"{folder}/{folder}_{frame + 1:06d}.jpg", "width": 1000,
                "height": 1002, "subject": subject, "action_idx": action, "cam_idx": 2,
                "subaction_idx": subaction, "frame_idx": frame,
            })  # fmt: skip
            annotations.append({
                "id": number, "image_id": number, "bbox": [-10.0 - frame, 20, 300, 400],
            })  # fmt: skip
            worlds[action, subaction, frame] = RNG.normal(size=(17, 3)) * 300
            frames[str(frame)] = worlds[action, subaction, frame].tolist()
    camera = {"2": {"R": R.tolist(), "t": t.tolist(), "f": f, "c": c}}
    # Their order says nothing: they are joined by id.
    data = {"images": pictures[::-1], "annotations": annotations}
    folder = root / "annotations"
    folder.mkdir(exist_ok=True)
    for name, content in (("data", data), ("camera", camera), ("joint_3d", joints)):
        (folder / f"Human36M_subject{subject}_{name}.json").write_text(json.dumps(content))
    return {"R": R, "t": t, "K": intrinsics(f, c), "worlds": worlds}


def test_3dmppe_is_brought_from_the_world_into_the_camera(tmp_path: Path) -> None:
    truth = mppe_files(tmp_path, 11, [(2, 1)])
    records = read_3dmppe(tmp_path, "test")
    assert [r.tags["frame"] for r in records] == [0, 5]
    record = records[1]
    folder = "s_11_act_02_subact_01_ca_02"
    assert record.image == tmp_path / "images" / folder / f"{folder}_000006.jpg"
    np.testing.assert_array_equal(record.bbox_xyxy, [0, 20, 285, 420])  # cut to the picture
    camera = truth["worlds"][2, 1, 5] @ truth["R"].T + truth["t"]
    pixels = project(camera, truth["K"])
    # The right leg comes first here.
    for name, index in (("right_knee", 2), ("left_knee", 5), ("left_wrist", 13), ("pelvis", 0)):
        np.testing.assert_allclose(record.xyz[INDEX[name]], (camera[index] - camera[0]) / 1000)
        np.testing.assert_allclose(record.keypoints_px[INDEX[name]], pixels[index], atol=1e-6)
    left_first = camera[[0, 4, 5, 6, 1, 2, 3, *range(7, 17)]] / 1000
    np.testing.assert_allclose(record.tags["h36m_joints_m"], left_first)


def test_both_are_recognised_and_mixed(tmp_path: Path, part_of: Callable[..., Part]) -> None:
    K = metadata_file(tmp_path)["60457274"]
    recording(tmp_path, 1, "Eating.60457274", K)
    recording(tmp_path, 9, "Eating.60457274", K, frames=1)
    mppe_files(tmp_path, 5, [(2, 1)])
    image = tmp_path / "images/S1_Eating.60457274_000001.jpg"
    image.parent.mkdir()
    image.touch()
    found = {f.name: f for f in check(tmp_path)}
    counts = {name: (f.people, f.with_2d, f.with_3d, f.with_smpl) for name, f in found.items()}
    assert counts == {
        "Human3.6M train": (2, 2, 2, 0),
        "Human3.6M test": (1, 1, 1, 0),
        "Human3.6M train, 3DMPPE style": (2, 2, 2, 0),
    }
    assert found["Human3.6M train"].pictures == 0.5
    assert found["Human3.6M train"].missing == image.with_name("S1_Eating.60457274_000006.jpg")
    for kind in ("h36m", "3dmppe"):
        assert len(part_of(tmp_path, kind=kind).people) == 2, kind
    (tmp_path / "metadata.xml").unlink()
    problems = {f.name: f.problem for f in check(tmp_path)}
    assert "imar" in problems["Human3.6M train"]
    assert problems["Human3.6M train, 3DMPPE style"] is None


def test_both_are_judged_and_the_frontal_camera_is_found_by_either_name(tmp_path: Path) -> None:
    Ks = metadata_file(tmp_path)
    for camera in ("60457274", "55011271"):
        recording(tmp_path, 9, f"Directions 1.{camera}", Ks[camera])
    mppe_files(tmp_path, 9, [(2, 1)])
    for kind, people, frontal in (("h36m", 4, 2), ("3dmppe", 2, 0)):
        read, protocol = KINDS[kind]
        records = read(tmp_path, tmp_path, "test")
        assert len(records) == people
        assert all(protocol.fits(record) for record in records)
        members = protocol.members(records)
        assert members["all"].all()
        assert members["frontal camera"].sum() == frontal
        named = np.array(["60457274" in record.image.name for record in records])
        np.testing.assert_array_equal(members["frontal camera"], named)
    fourth = dataclasses.replace(records[0], image=Path("s_09_act_02_subact_01_ca_04/x.jpg"))
    assert protocol.members([fourth])["frontal camera"].all()


def test_3dmppe_leaves_out_what_does_not_fit_its_pictures(tmp_path: Path) -> None:
    mppe_files(tmp_path, 9, [(5, 1), (5, 2), (10, 2), (13, 1), (13, 2)])
    mppe_files(tmp_path, 11, [(5, 2)])
    mppe_files(tmp_path, 8, [(5, 2)])
    read = read_3dmppe(tmp_path, "test", every=6)
    assert [r.image.parent.name[:22] for r in read] == [
        "s_09_act_05_subact_01_", "s_09_act_13_subact_02_", "s_11_act_05_subact_02_",
    ]  # fmt: skip
    assert [r.tags["subject"] for r in read_3dmppe(tmp_path, "train")] == [8, 8]


def test_3dmppe_files_that_are_missing_or_foreign_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="3DMPPE_POSENET_RELEASE"):
        read_3dmppe(tmp_path, "train")
    mppe_files(tmp_path, 1, [(2, 1)])
    file = tmp_path / "annotations/Human36M_subject1_joint_3d.json"
    file.write_text('{"2": {}}')
    with pytest.raises(SourceError, match="none of 3DMPPE's"):
        read_3dmppe(tmp_path, "train")
    file.unlink()
    with pytest.raises(SourceError, match="joint_3d"):
        read_3dmppe(tmp_path, "train")
