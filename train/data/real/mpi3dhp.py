"""MPI-INF-3DHP as it is published: MATLAB files beside the pictures of every sequence.

`S{1..8}/Seq{1,2}/annot.mat` (MATLAB 5) and `camera.calibration`, with the videos' frames unpacked
to `imageFrames/video_{k}/frame_%06d.jpg`; `mpi_inf_3dhp_test_set/TS{1..6}/annot_data.mat` (HDF5)
with `imageSequence/img_%06d.jpg`. Lengths are millimetres, frames are numbered from one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import SourceError
from train.data.real.faults import foreign_file, nothing_found
from train.data.real.orders import MPI_17, MPI_28
from train.data.real.record import Record

FETCH = "get it with the scripts at https://vcai.mpi-inf.mpg.de/3dhp-dataset"
CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)  # the others look from the ceiling or the floor
LINES_PER_CAMERA, FIRST_VALUE = 7, 11
TRAIN_SIZE_PX = 2048
MM = 1e-3


def read_3dhp_train(root: Path, *, every: int = 10) -> list[Record]:
    """Training people of all sequences there are, with every joint inside the picture.

    Args:
        root: holds `S1` to `S8`.
        every: of the frames of each camera, every how many-th; SPIN takes every tenth.

    Raises:
        SourceError: nothing is there, or a file is another one.
    """
    files = sorted(root.glob("S?/Seq?/annot.mat"))
    if not files:
        raise nothing_found("MPI-INF-3DHP sequences", root, "S1/Seq1/annot.mat", FETCH)
    return [record for file in files for record in _train_sequence(file, root, every)]


def _train_sequence(file: Path, root: Path, every: int) -> Iterator[Record]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    sequence = file.parent
    try:
        data = loadmat(file, variable_names=("annot2", "annot3"))
        cameras = read_calibration(sequence / "camera.calibration")
        for camera in CAMERAS:
            pixels = np.asarray(data["annot2"][camera, 0], np.float64).reshape(-1, 28, 2)
            joints = np.asarray(data["annot3"][camera, 0], np.float64).reshape(-1, 28, 3) * MM
            inside = ((pixels >= 0) & (pixels < TRAIN_SIZE_PX)).all((1, 2))
            frames = np.flatnonzero(inside)
            for frame in frames[frames % every == 0]:
                folder = sequence.relative_to(root) / "imageFrames" / f"video_{camera}"
                yield Record(
                    source="3dhp",
                    image=root / folder / f"frame_{frame + 1:06d}.jpg",
                    bbox_xyxy=None,
                    **MPI_28.labels(pixels[frame], joints[frame]),
                    K=cameras[camera],
                    tags={"sequence": str(folder), "frame": int(frame)},
                )
    except (KeyError, IndexError, ValueError, OSError, TypeError, MatReadError) as error:
        raise _other_file(file, error, "annot2, annot3: 14 cameras x frames x 28 joints") from error


def read_3dhp_test(root: Path) -> list[Record]:
    """Test people of all valid frames; `tags` hold the activity and the scaled 17 joints.

    Args:
        root: holds `mpi_inf_3dhp_test_set`.

    Raises:
        SourceError: nothing is there, or a file is another one.
    """
    files = sorted((root / "mpi_inf_3dhp_test_set").glob("TS?/annot_data.mat"))
    if not files:
        raise nothing_found(
            "MPI-INF-3DHP test set", root, "mpi_inf_3dhp_test_set/TS1/annot_data.mat", FETCH
        )
    return [record for file in files for record in _test_sequence(file)]


def _test_sequence(file: Path) -> Iterator[Record]:
    import h5py

    try:
        with h5py.File(file, "r") as data:
            valid = np.asarray(data["valid_frame"]).reshape(-1)
            pixels = np.asarray(data["annot2"], np.float64)[:, 0]
            universal = np.asarray(data["univ_annot3"], np.float64)[:, 0] * MM
            activity = np.asarray(data["activity_annotation"]).reshape(-1)
        for frame in np.flatnonzero(valid):
            # Protocols compare with the scaled joints, whose heights are all alike.
            yield Record(
                source="3dhp",
                image=file.parent / "imageSequence" / f"img_{frame + 1:06d}.jpg",
                bbox_xyxy=None,
                **MPI_17.labels(pixels[frame], universal[frame]),
                tags={
                    "sequence": file.parent.name,
                    "frame": int(frame),
                    "activity": int(activity[frame]),
                    "joints_m": universal[frame],
                },
            )
    except (KeyError, IndexError, ValueError, OSError, TypeError) as error:
        expected = "valid_frame, annot2, univ_annot3, activity_annotation: frames x 17 joints"
        raise _other_file(file, error, expected) from error


def read_calibration(file: Path) -> dict[int, Array]:
    """Camera -> intrinsics [3, 3], px. One line of header, seven lines per camera."""
    lines = file.read_text().splitlines()
    count = (len(lines) - 1) // LINES_PER_CAMERA
    rows = [lines[LINES_PER_CAMERA * c + 5][FIRST_VALUE:].split() for c in range(count)]
    return {c: np.array(row, np.float64).reshape(4, 4)[:3, :3] for c, row in enumerate(rows)}


def _other_file(file: Path, error: Exception, expected: str) -> SourceError:
    return foreign_file(f"{file} is no file of MPI-INF-3DHP", error, expected, FETCH)
