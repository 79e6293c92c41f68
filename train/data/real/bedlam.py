"""BEDLAM's `.npz` files, and AGORA's, which its authors pack alike: SMPL-X bodies.

SMPL-X turns SMPL's first 22 joints as SMPL does, so that those rotations are labels; it has fingers
in place of SMPL's two hands, and its betas are numbers of another shape space, so that neither
hands nor betas are. Depths would need SMPL-X itself and are not labels either. Pixels are those of
SMPL-X's own joints.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import SourceError
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.skeleton import NUM_JOINTS
from train.data.real.faults import foreign_file
from train.data.real.orders import SMPLX
from train.data.real.record import (
    HIDDEN,
    SEEN,
    JointOrder,
    Record,
    SmplLabel,
    nothing_located,
    xyxy_from_square,
)
from train.data.real.spin import SCALE_PX, SPIN_MARGIN, arrays_of

FETCH_BEDLAM = "get all_npz_12_training and the pictures at https://bedlam.is.tue.mpg.de"
FETCH_AGORA = (
    "get agora-bfh.npz and the 1280x720 pictures at https://bedlam.is.tue.mpg.de, or turn AGORA's "
    "dataframes into an .npz with agora_processing_code/dataframe_agora_smplx_release.py of "
    "https://github.com/pixelite1201/agora_evaluation"
)
WANTED = ("imgname", "center", "scale", "pose_cam", "gtkps", "cam_int")
ONLY_BEDLAM2 = "hand_det_conf"
BODY_JOINTS = 22


def read_bedlam(file: Path, images: Path) -> list[Record]:
    """Every person of one scene.

    Args:
        file: the .npz.
        images: folder that `imgname` counts from, the scene's `png`.

    Raises:
        SourceError: the file is missing, or is another one.
    """
    return _read(file, images, "bedlam", FETCH_BEDLAM)


def read_agora(file: Path, images: Path) -> list[Record]:
    """Every person of one file.

    Args:
        file: the .npz. AGORA's own dataframes are pickles of pandas' classes, which cannot be read
            without running them, and hold no poses.
        images: folder that `imgname` counts from, with pictures of 1280 x 720.

    Raises:
        SourceError: the file is missing, or is another one, such as a dataframe.
    """
    if file.suffix == ".pkl":
        raise SourceError(
            f"{file.name} is a pickled dataframe, which is not read",
            got="a pickle that calls what it names, pandas' classes among it",
            expected="an .npz of imgname, pose_cam, gtkps, cam_int",
            fix=FETCH_AGORA,
        )
    return _read(file, images, "agora", FETCH_AGORA)


def _read(file: Path, images: Path, source: str, fetch: str) -> list[Record]:
    data = arrays_of(file, (*WANTED, ONLY_BEDLAM2), fetch)
    if ONLY_BEDLAM2 in data:
        raise SourceError(
            f"{file.name} is of BEDLAM2, whose joints have another order",
            got=f"the key {ONLY_BEDLAM2}",
            expected="a file of BEDLAM",
            fix=fetch,
        )
    try:
        return [_record(data, i, images, source) for i in range(len(data["imgname"]))]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise foreign_file(
            f"{file.name} is no file of BEDLAM or AGORA",
            error,
            f"{', '.join(WANTED)} of N people",
            fetch,
        ) from error


def _record(data: dict[str, Array], i: int, images: Path, source: str) -> Record:
    K = np.array(data["cam_int"][i], np.float64).reshape(3, 3)
    points, state = _keypoints(data["gtkps"][i], 2 * K[:2, 2])
    xyz, located = nothing_located()
    side = float(data["scale"][i]) * SCALE_PX / SPIN_MARGIN
    return Record(
        source=source,
        image=images / str(data["imgname"][i]),
        bbox_xyxy=xyxy_from_square(np.array(data["center"][i], np.float64).reshape(2), side),
        keypoints_px=points,
        state=state,
        xyz=xyz,
        located=located,
        smpl=body_pose(data["pose_cam"][i]),
        K=K,
        # Close-ups are rendered with the camera on its side, and labelled as if it stood.
        portrait=bool(K[1, 2] > K[0, 2]),
        tags={"row": i},
    )


def _keypoints(joints: Array, size_px: Array) -> tuple[Array, Array]:
    """[36, 2] px and [36] state of SMPL-X's joints [J, 2 or 3]; hidden outside the picture."""
    known = JointOrder(SMPLX.names[: len(joints)])
    if len(known) < BODY_JOINTS:
        raise ValueError(f"gtkps has {len(known)} joints, fewer than the body's {BODY_JOINTS}")
    pixels = np.array(joints, np.float64)[: len(known), :2]
    inside = ((pixels >= 0) & (pixels < size_px)).all(1)
    return known.keypoints(pixels, np.where(inside, SEEN, HIDDEN))


def body_pose(rotvec: Array) -> SmplLabel:
    """What SMPL-X's pose [66 or more] tells of SMPL's 24 rotations: the first 22."""
    rotmats = np.tile(np.eye(3), (NUM_JOINTS, 1, 1))
    body = np.array(rotvec, np.float64)[: 3 * BODY_JOINTS].reshape(BODY_JOINTS, 3)
    rotmats[:BODY_JOINTS] = rotvec_to_rotmat(body)
    return SmplLabel(rotmats, betas=None, known=np.arange(NUM_JOINTS) < BODY_JOINTS)
