"""Human3.6M as 3DMPPE packs it: `Human36M_subject{n}_{data,camera,joint_3d}.json`.

Joints are millimetres in the world, by action, subaction and frame, right leg first; the cameras'
R and t bring them into the camera. Annotations are joined to images by id.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt.contracts import Array
from train.data.real.coco import clip_box, read_json
from train.data.real.faults import foreign_file, nothing_found
from train.data.real.h36m import BLOCKED, MM, SUBJECTS
from train.data.real.orders import H36M_LEFT_FIRST, H36M_RIGHT_FIRST
from train.data.real.record import Record, intrinsics, project, xyxy_from_xywh

FETCH = "get the annotation files that https://github.com/mks0601/3DMPPE_POSENET_RELEASE links to"
STEM = "Human36M_subject"
# Protocols count the left leg first.
LEFT_FIRST = [H36M_RIGHT_FIRST.names.index(name) for name in H36M_LEFT_FIRST.names]


def read_3dmppe(root: Path, split: str, *, every: int = 5) -> list[Record]:
    """People of one split.

    Args:
        root: holds `annotations` and `images`, with `images/s_01_act_02_subact_01_ca_01/...`.
        split: `train` is subjects 1, 5, 6, 7 and 8, `test` 9 and 11; those that are there.
        every: of the frames, every how many-th; 3DMPPE tests on every 64th.

    Raises:
        SourceError: nothing is there, or a file is another one.
    """
    stems = stems_of(root, split)
    if not stems:
        raise nothing_found(
            f"file of Human3.6M's {split} subjects",
            root,
            f"annotations/{STEM}{SUBJECTS[split][0]}_data.json",
            FETCH,
        )
    return [record for stem in stems for record in _subject(stem, root / "images", every)]


def stems_of(root: Path, split: str) -> list[Path]:
    """What the paths of each subject's three files begin with, for those that are there."""
    stems = [root / f"annotations/{STEM}{subject}" for subject in SUBJECTS[split]]
    return [stem for stem in stems if Path(f"{stem}_data.json").exists()]


def _subject(stem: Path, images: Path, every: int) -> list[Record]:
    data, cameras, joints = (
        read_json(Path(f"{stem}_{part}.json"), FETCH) for part in ("data", "camera", "joint_3d")
    )
    try:
        pictures = {picture["id"]: picture for picture in data["images"]}
        pairs = [(a, pictures[a["image_id"]]) for a in data["annotations"]]
        return [
            _record(a, p, cameras[str(p["cam_idx"])], _joints_mm(joints, p), images)
            for a, p in pairs
            if p["frame_idx"] % every == 0
            and (p["subject"], p["action_idx"], p["subaction_idx"]) not in BLOCKED
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise foreign_file(
            f"{stem.name}_*.json are none of 3DMPPE's annotation files",
            error,
            "images and annotations, cameras of R, t, f and c, joints of each frame",
            FETCH,
        ) from error


def _joints_mm(joints: dict[str, Any], picture: dict[str, Any]) -> Array:
    """[17, 3] in the world."""
    action, subaction = str(picture["action_idx"]), str(picture["subaction_idx"])
    found = joints[action][subaction][str(picture["frame_idx"])]
    return np.asarray(found, np.float64).reshape(17, 3)


def _record(
    annotation: dict[str, Any],
    picture: dict[str, Any],
    camera: dict[str, Any],
    world: Array,
    images: Path,
) -> Record:
    R, t = (np.asarray(camera[key], np.float64) for key in ("R", "t"))
    joints = (world @ R.reshape(3, 3).T + t.reshape(3)) * MM
    K = intrinsics(camera["f"], camera["c"])
    return Record(
        source="h36m",
        image=images / picture["file_name"],
        bbox_xyxy=clip_box(xyxy_from_xywh(annotation["bbox"]), picture),
        **H36M_RIGHT_FIRST.labels(project(joints, K), joints),
        K=K,
        tags={
            "subject": picture["subject"],
            "activity": picture["action_idx"],
            "frame": picture["frame_idx"],
            "h36m_joints_m": joints[LEFT_FIRST],
        },
    )
