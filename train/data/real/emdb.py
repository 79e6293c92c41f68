"""EMDB: `P*/<sequence>/P*_<sequence>_data.pkl` and `P*/<sequence>/images/%05d.jpg`.

SMPL parameters are in the world frame and `extrinsics` are world-to-camera. Pictures are numbered
by the rows of the arrays. Frames in which the person is out of view are masked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt._restricted_pickle import load
from glnet_rt.errors import ArtifactError
from train.data.real.faults import foreign_file, nothing_found
from train.data.real.orders import SMPL_24
from train.data.real.record import SEEN, Record, SmplLabel, nothing_located, rooted_in_camera

FETCH = "ask for it at https://eth-ait.github.io/emdb and unpack it as it comes"
PARTS = ("emdb1", "emdb2")


def read_emdb(root: Path, part: str | None = None) -> list[Record]:
    """People of all good frames.

    Args:
        root: holds `P0` to `P9`.
        part: `emdb1` or `emdb2`, the sequences that results are reported on; default: all.

    Raises:
        SourceError: nothing is there, or a file is another one.
    """
    files = sorted(root.glob("P*/*/*_data.pkl"))
    if not files:
        raise nothing_found("EMDB sequences", root, "P0/00_mvs_a/P0_00_mvs_a_data.pkl", FETCH)
    return [record for file in files for record in read_sequence(file, part)]


def read_sequence(file: Path, part: str | None = None) -> Iterator[Record]:
    """The person of one sequence, frame after frame."""
    try:
        data = load(file.read_bytes(), file.name)
        if part is not None and not data[part]:
            return
        without_box = set(np.asarray(data["bboxes"]["invalid_idxs"]).astype(int).reshape(-1))
        for frame in np.flatnonzero(np.asarray(data["good_frames_mask"]).astype(bool)):
            yield _record(data, int(frame), file, frame not in without_box)
    except (ArtifactError, KeyError, IndexError, TypeError, ValueError) as error:
        raise foreign_file(
            f"{file.name} is no EMDB sequence",
            error,
            "smpl, camera, kp2d, bboxes, good_frames_mask",
            FETCH,
        ) from error


def _record(data: dict[str, Any], frame: int, file: Path, has_box: bool) -> Record:
    pixels = np.asarray(data["kp2d"][frame], np.float64).reshape(24, 2)
    points, state = SMPL_24.keypoints(pixels, np.full(24, SEEN))
    xyz, located = nothing_located()  # of the body, which the label's parameters pose
    box = np.asarray(data["bboxes"]["bboxes"][frame], np.float64).reshape(4)
    return Record(
        source="emdb",
        image=file.parent / "images" / f"{frame:05d}.jpg",
        bbox_xyxy=box if has_box else None,
        keypoints_px=points,
        state=state,
        xyz=xyz,
        located=located,
        smpl=_camera_smpl(data, frame),
        K=np.asarray(data["camera"]["intrinsics"], np.float64).reshape(3, 3),
        tags={
            "sequence": str(data["name"]),
            "frame": frame,
            **{part: bool(data[part]) for part in PARTS},
        },
    )


def _camera_smpl(data: dict[str, Any], frame: int) -> SmplLabel:
    smpl = data["smpl"]
    return rooted_in_camera(
        np.concatenate([smpl["poses_root"][frame], smpl["poses_body"][frame]]),
        np.asarray(data["camera"]["extrinsics"][frame], np.float64).reshape(4, 4),
        betas=np.array(smpl["betas"], np.float64).reshape(-1)[:10],
        gender=str(data["gender"]),
        transl_m=np.array(smpl["trans"][frame], np.float64),
    )
