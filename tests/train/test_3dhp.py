"""MPI-INF-3DHP's own files, written here as the data set writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from glnet_rt.errors import SourceError
from glnet_rt.skeleton import INDEX
from train.data.real import orders
from train.data.real.mpi3dhp import CAMERAS, read_3dhp_test, read_3dhp_train, read_calibration
from train.data.real.record import project

h5py = pytest.importorskip("h5py")
FRAMES = 21
RNG = np.random.default_rng(2)


def matrix_line(name: str, values: np.ndarray) -> str:
    return f"  {name:<9}" + " ".join(f"{v:.9g}" for v in values.reshape(-1)) + " "


def calibration_file(path: Path) -> list[np.ndarray]:
    """14 cameras of seven lines each, behind one line of header."""
    lines, cameras = ["Skeletool Camera Calibration File V1.0"], []
    for camera in range(14):
        K = np.eye(4)
        K[0, 0], K[1, 1], K[:2, 2] = 1500 + camera, 1501 + camera, (1024, 1000)
        cameras.append(K[:3, :3])
        lines += [
            f"name          {camera}", "  sensor      10 10", "  size        2048 2048",
            "  animated    0", matrix_line("intrinsic", K), matrix_line("extrinsic", np.eye(4)),
            "  radial      0",
        ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return cameras


def train_set(root: Path) -> np.ndarray:
    """One sequence; returns the joints [14, FRAMES, 28, 3] mm."""
    folder = root / "S1/Seq2"
    folder.mkdir(parents=True)
    cameras = calibration_file(folder / "camera.calibration")
    joints = RNG.normal(size=(14, FRAMES, 28, 3)) * 300 + [0, 0, 4000]
    pixels = np.stack(
        [[project(j, K) for j in person] for person, K in zip(joints, cameras, strict=True)]
    )
    pixels[1, 10, 3] = [-5.0, 100.0]  # a joint outside the picture
    cells = {"annot2": np.empty((14, 1), object), "annot3": np.empty((14, 1), object)}
    for camera in range(14):
        cells["annot2"][camera, 0] = pixels[camera].reshape(FRAMES, 56)
        cells["annot3"][camera, 0] = joints[camera].reshape(FRAMES, 84)
    savemat(folder / "annot.mat", cells)
    return joints


def test_training_frames_of_all_wall_cameras(tmp_path: Path) -> None:
    joints = train_set(tmp_path)
    records = read_3dhp_train(tmp_path)
    frames = {(r.tags["sequence"], r.tags["frame"]) for r in records}
    expected = {(f"S1/Seq2/imageFrames/video_{c}", f) for c in CAMERAS for f in (0, 10, 20)}
    assert frames == expected - {("S1/Seq2/imageFrames/video_1", 10)}
    record = next(r for r in records if r.tags["frame"] == 20 and "video_4" in str(r.image))
    assert record.image == tmp_path / "S1/Seq2/imageFrames/video_4/frame_000021.jpg"
    truth = joints[4, 20] / 1000
    names = orders.MPI_28.names
    for name in ("left_wrist", "right_ankle", "head_top"):
        relative = truth[names.index(name)] - truth[names.index("pelvis")]
        np.testing.assert_allclose(record.xyz[INDEX[name]], relative, atol=1e-9)
        pixel = project(truth, record.K)[names.index(name)]
        np.testing.assert_allclose(record.keypoints_px[INDEX[name]], pixel, atol=1e-6)
    assert not record.located[INDEX["left_hip"]]  # a marker's hip is another point


def test_calibration_counts_seven_lines_a_camera(tmp_path: Path) -> None:
    cameras = calibration_file(tmp_path / "camera.calibration")
    read = read_calibration(tmp_path / "camera.calibration")
    assert len(read) == 14
    for camera, K in enumerate(cameras):
        np.testing.assert_allclose(read[camera], K)


def write_test_set(root: Path) -> np.ndarray:
    folder = root / "mpi_inf_3dhp_test_set/TS3"
    folder.mkdir(parents=True)
    universal = RNG.normal(size=(5, 1, 17, 3)) * 300 + [0, 0, 3000]
    with h5py.File(folder / "annot_data.mat", "w") as file:
        file["valid_frame"] = np.array([[1], [0], [1], [1], [0]], np.float64)
        file["annot2"] = RNG.uniform(0, 2000, (5, 1, 17, 2))
        file["annot3"] = universal * 1.1
        file["univ_annot3"] = universal
        file["activity_annotation"] = np.array([[1], [2], [3], [4], [5]], np.float64)
    return universal


def test_test_frames_are_the_valid_ones_with_universal_joints(tmp_path: Path) -> None:
    universal = write_test_set(tmp_path)
    records = read_3dhp_test(tmp_path)
    assert [r.tags["frame"] for r in records] == [0, 2, 3]
    assert [r.tags["activity"] for r in records] == [1, 3, 4]
    assert records[1].image.name == "img_000003.jpg"
    np.testing.assert_allclose(records[2].tags["joints_m"], universal[3, 0] / 1000)
    head, pelvis = (orders.MPI_17.names.index(n) for n in ("head_top", "pelvis"))
    relative = (universal[3, 0, head] - universal[3, 0, pelvis]) / 1000
    np.testing.assert_allclose(records[2].xyz[INDEX["head_top"]], relative)


def test_missing_and_foreign_files_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="vcai"):
        read_3dhp_train(tmp_path)
    with pytest.raises(SourceError, match="vcai"):
        read_3dhp_test(tmp_path)
    train_set(tmp_path)
    savemat(tmp_path / "S1/Seq2/annot.mat", {"annot2": np.zeros(3)})
    with pytest.raises(SourceError, match="no file of MPI-INF-3DHP"):
        read_3dhp_train(tmp_path)
    write_test_set(tmp_path)
    (tmp_path / "mpi_inf_3dhp_test_set/TS3/annot_data.mat").write_bytes(b"cut")
    with pytest.raises(SourceError, match="no file of MPI-INF-3DHP"):
        read_3dhp_test(tmp_path)
