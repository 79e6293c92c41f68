"""Human3.6M's own files, written here as the data set writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glnet_rt.errors import SourceError
from glnet_rt.skeleton import INDEX
from train.data.real.h36m import read_h36m, read_metadata
from train.data.real.record import UNKNOWN, intrinsics, project

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
    seventeen = record.tags["joints_m"]
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
