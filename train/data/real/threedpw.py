"""3DPW: `sequenceFiles/{train,validation,test}/*.pkl` and `imageFiles/<sequence>/image_%05d.jpg`.

The pickles were written by Python 2 and are read by the restricted unpickler, which runs nothing.
Poses are in the world frame; `cam_poses` are world-to-camera. `img_frame_ids` count at 60 Hz and
number no picture: row i of the arrays is `image_%05d` of i.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt._restricted_pickle import load
from glnet_rt.contracts import Array
from glnet_rt.errors import ArtifactError
from train.data.real.faults import foreign_file, nothing_found
from train.data.real.orders import OPENPOSE_18
from train.data.real.record import (
    SEEN,
    UNKNOWN,
    Record,
    SmplLabel,
    nothing_located,
    rooted_in_camera,
)

FETCH = "ask for it at https://virtualhumans.mpi-inf.mpg.de/3DPW and unpack it as it comes"
GENDERS = {"m": "male", "f": "female"}


def read_3dpw(root: Path, split: str, *, evaluation: bool = False) -> list[Record]:
    """People of one split.

    Args:
        root: holds `sequenceFiles` and `imageFiles`.
        split: `train`, `validation` or `test`.
        evaluation: also leave out frames without 2D joints, as the official evaluation does. In
            training a frame is kept where its camera is valid.

    Raises:
        SourceError: files are missing or are not 3DPW's.
    """
    files = sorted((root / "sequenceFiles" / split).glob("*.pkl"))
    if not files:
        raise nothing_found("3DPW sequences", root / "sequenceFiles" / split, "*.pkl", FETCH)
    return [record for file in files for record in read_sequence(file, root, evaluation)]


def read_sequence(file: Path, root: Path, evaluation: bool) -> Iterator[Record]:
    """The people of one sequence, person after person, frame after frame."""
    try:
        data = load(file.read_bytes(), file.name)
        sequence = str(data["sequence"])
        for person in range(len(data["poses"])):
            for frame in valid_frames(data, person, evaluation):
                yield _record(data, sequence, person, int(frame), root)
    except (ArtifactError, KeyError, IndexError, TypeError, ValueError) as error:
        raise foreign_file(
            f"{file.name} is no 3DPW sequence",
            error,
            "poses, betas, trans, genders, poses2d, cam_poses, cam_intrinsics",
            FETCH,
        ) from error


def valid_frames(data: dict[str, Any], person: int, evaluation: bool) -> Array:
    """Frames [M] in which a person's label can be trusted."""
    valid = np.asarray(data["campose_valid"][person]).astype(bool)
    seen = np.asarray(data["poses2d"][person])[:, 2] > 0
    if evaluation:
        valid = valid & seen.any(1)
    return np.flatnonzero(valid)


def _record(data: dict[str, Any], sequence: str, person: int, frame: int, root: Path) -> Record:
    x, y, confidence = np.asarray(data["poses2d"][person][frame], np.float64)
    known = confidence > 0
    points, state = OPENPOSE_18.keypoints(
        np.column_stack([x, y]), np.where(known, SEEN, UNKNOWN).astype(np.uint8)
    )
    K = np.asarray(data["cam_intrinsics"], np.float64)
    smpl = camera_smpl(data, person, frame)
    xyz, located = nothing_located()  # of the body, which the label's parameters pose
    return Record(
        source="3dpw",
        image=root / "imageFiles" / sequence / f"image_{frame:05d}.jpg",
        bbox_xyxy=None,
        keypoints_px=points,
        state=state,
        xyz=xyz,
        located=located,
        smpl=smpl,
        K=K,
        tags={"sequence": sequence, "person": person, "frame": frame},
    )


def camera_smpl(data: dict[str, Any], person: int, frame: int) -> SmplLabel:
    """Pose and shape with the root turned from the world into the camera; copies, never views."""
    return rooted_in_camera(
        data["poses"][person][frame],
        np.asarray(data["cam_poses"][frame], np.float64),
        betas=np.array(data["betas"][person], np.float64).reshape(-1)[:10],
        gender=GENDERS[str(data["genders"][person])],
        transl_m=np.array(data["trans"][person][frame], np.float64),
    )
