"""HybrIK's JSON files of Human3.6M, MPI-INF-3DHP and 3DPW: boxes, cameras, joints, SMPL.

In the first two, `images` and `annotations` run side by side and are not joined by id, and lengths
are millimetres; 3DPW's are joined by id and in metres. Rotations are axis-angle in the camera.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.rotation import rotvec_to_rotmat
from train.data.real.coco import clip_box, read_json
from train.data.real.faults import foreign_file
from train.data.real.orders import HYBRIK_29, MPI_17, MPI_28, SMPL_24
from train.data.real.record import (
    JointOrder,
    Record,
    SmplLabel,
    intrinsics,
    project,
    xyxy_from_xywh,
)

FETCH = "get the annotation files that https://github.com/Jeff-sjtu/HybrIK links to"
# Recordings of subject 9 whose labels do not fit the pictures.
BLOCKED = ("s_09_act_05_subact_02_ca", "s_09_act_10_subact_02_ca", "s_09_act_13_subact_01_ca")
SMALLEST_BOX_PX = 5
MM = 1e-3


def read_hybrik_h36m(annotations: Path, images: Path) -> list[Record]:
    """Human3.6M with SMPL: Sample_*_Human36M_smpl[_leaf_twist]_protocol_2.json.

    Args:
        images: folder of `s_01_act_02_subact_01_ca_01/...`.

    Raises:
        SourceError: the file is missing, or is another one.
    """

    def record(picture: dict[str, Any], annotation: dict[str, Any]) -> Record | None:
        if any(name in picture["file_name"] for name in BLOCKED):
            return None
        camera = picture["cam_param"]
        smpl = SmplLabel(
            rotmats=rotvec_to_rotmat(np.asarray(annotation["thetas"], np.float64).reshape(24, 3)),
            betas=np.asarray(annotation["betas"], np.float64).reshape(-1)[:10],
            pelvis_camera_m=np.asarray(annotation["root_coord"], np.float64).reshape(3) * MM,
        )
        joints = np.asarray(annotation["smpl_joints"], np.float64).reshape(-1, 3) * MM
        return labelled(
            "h36m", images / picture["file_name"], picture, annotation, joints, body_order(joints),
            intrinsics(camera["f"], camera["c"]), smpl, h36m_joints(annotation, MM),
        )  # fmt: skip

    return paired(annotations, record)


def read_hybrik_3dhp(annotations: Path, root: Path) -> list[Record]:
    """MPI-INF-3DHP: annotation_mpi_inf_3dhp_{train_v2,test}.json; 28 joints, in the test set 17.

    Args:
        root: holds `mpi_inf_3dhp_train_set` and `mpi_inf_3dhp_test_set`.

    Raises:
        SourceError: the file is missing, or is another one.
    """

    def record(picture: dict[str, Any], annotation: dict[str, Any]) -> Record:
        joints = np.asarray(annotation["keypoints_cam"], np.float64).reshape(-1, 3) * MM
        order, split = {28: (MPI_28, "train"), 17: (MPI_17, "test")}[len(joints)]
        K = np.asarray(picture["cam_param"]["intrinsic_param"], np.float64)[:3, :3]
        image = root / f"mpi_inf_3dhp_{split}_set" / picture["file_name"]
        tags: dict[str, object] = {}
        if split == "test":
            tags = {"activity": annotation.get("activity_id"), "joints_m": joints}
        return labelled("3dhp", image, picture, annotation, joints, order, K, None, tags)

    return paired(annotations, record)


def read_hybrik_3dpw(annotations: Path, root: Path) -> list[Record]:
    """3DPW: 3DPW_{train,validation,test}_new.json.

    Args:
        root: holds `imageFiles`.

    Raises:
        SourceError: the file is missing, or is another one.
    """

    def read(data: dict[str, Any]) -> list[Record]:
        pictures = {picture["id"]: picture for picture in data["images"]}
        records = [pw3d(pictures[a["image_id"]], a, root) for a in data["annotations"]]
        return [record for record in records if record is not None]

    return parse(annotations, read)


def pw3d(picture: dict[str, Any], annotation: dict[str, Any], root: Path) -> Record | None:
    """One person of 3DPW; None where hardly anything of the box is left inside the picture."""
    x0, y0, x1, y1 = clip_box(xyxy_from_xywh(annotation["bbox"]), picture)
    if x0 > x1 - SMALLEST_BOX_PX or y0 > y1 - SMALLEST_BOX_PX:
        return None
    joints = np.asarray(annotation["smpl_joint_cam"], np.float64).reshape(-1, 3)
    parameters, camera = annotation["smpl_param"], picture["cam_param"]
    smpl = SmplLabel(
        rotmats=rotvec_to_rotmat(np.asarray(parameters["pose"], np.float64).reshape(24, 3)),
        betas=np.asarray(parameters["shape"], np.float64).reshape(-1)[:10],
        gender={"m": "male", "f": "female"}.get(str(parameters["gender"])[:1].lower(), "neutral"),
        pelvis_camera_m=joints[0],
    )
    image = root / "imageFiles" / picture["sequence"] / picture["file_name"]
    tags = {"sequence": picture["sequence"], **h36m_joints(annotation, 1.0)}
    return labelled(
        "3dpw", image, picture, annotation, joints, body_order(joints),
        intrinsics(camera["focal"], camera["princpt"]), smpl, tags,
    )  # fmt: skip


def body_order(joints: Array) -> JointOrder:
    """SMPL's joints, with the five leaves or without."""
    return {24: SMPL_24, 29: HYBRIK_29}[len(joints)]


def labelled(
    source: str,
    image: Path,
    picture: dict[str, Any],
    annotation: dict[str, Any],
    joints: Array,
    order: JointOrder,
    K: Array,
    smpl: SmplLabel | None,
    tags: dict[str, object] | None = None,
) -> Record:
    """A record of joints [J, 3] m in the camera, all of them known."""
    return Record(
        source=source,
        image=image,
        bbox_xyxy=clip_box(xyxy_from_xywh(annotation["bbox"]), picture),
        **order.labels(project(joints, K), joints),
        smpl=smpl,
        K=K,
        tags={"image_id": annotation["image_id"], **(tags or {})},
    )


def h36m_joints(annotation: dict[str, Any], unit_m: float) -> dict[str, object]:
    """The 17 joints that protocols compare with, [17, 3] m, where the file has them."""
    if "h36m_joints" not in annotation:
        return {}
    joints = np.asarray(annotation["h36m_joints"], np.float64).reshape(17, 3)
    return {"h36m_joints_m": joints * unit_m}


def paired(
    annotations: Path, record: Callable[[dict[str, Any], dict[str, Any]], Record | None]
) -> list[Record]:
    """Records of the n-th image with the n-th annotation; None leaves one out."""

    def read(data: dict[str, Any]) -> list[Record]:
        pairs = zip(data["images"], data["annotations"], strict=True)
        return [found for pair in pairs if (found := record(*pair)) is not None]

    return parse(annotations, read)


def parse(annotations: Path, read: Callable[[dict[str, Any]], list[Record]]) -> list[Record]:
    """Read the file and say so if it is not what `read` expects."""
    data = read_json(annotations, FETCH)
    try:
        return read(data)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise foreign_file(
            f"{annotations.name} is none of HybrIK's annotation files",
            error,
            "images with cam_param, annotations with bbox, joints and SMPL parameters",
            FETCH,
        ) from error
