"""SPIN-style .npz files, the common re-packaging of every data set, and 4D-Humans' dialect of it.

Only `imgname`, `center` and `scale` are always there; what else a file labels differs by set.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import SourceError
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.skeleton import NUM_KEYPOINTS
from train.data.real.faults import foreign_file
from train.data.real.orders import OPENPOSE_25, SPIN_24
from train.data.real.record import (
    SEEN,
    UNKNOWN,
    JointOrder,
    Record,
    SmplLabel,
    nothing_located,
    xyxy_from_square,
)

FETCH = "get SPIN's dataset_extras (its fetch_data.sh), or write such a file with its preprocessing"
SCALE_PX = 200.0  # `scale` 1 is a box of 200 px
SPIN_MARGIN = 1.2  # SPIN's boxes are wider than the person by this; 4D-Humans' are not
GENDERS = {"m": "male", "f": "female"}


def read_spin(
    file: Path, images: Path, *, source: str = "spin", gendered: bool = False
) -> list[Record]:
    """Every person of one file.

    Args:
        file: the .npz.
        images: folder that `imgname` counts from.
        source: name of the data set, for the records.
        gendered: betas are of the gendered model that `gender` names, as in 3DPW's test set. SPIN
            trains the neutral one on whatever the file holds.

    Raises:
        SourceError: the file is missing, or lacks a name, a centre or a scale.
    """
    data = arrays_of(file)
    try:
        reader = HmrReader if "body_keypoints_2d" in data or "body_pose" in data else SpinReader
        people = reader(data, gendered)
        return [people.record(i, images, source) for i in range(len(data["imgname"]))]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise foreign_file(
            f"{file.name} is no SPIN-style file",
            error,
            "imgname [N], center [N, 2], scale [N], and labels of N people",
            FETCH,
        ) from error


def arrays_of(
    file: Path, wanted: Collection[str] | None = None, fetch: str = FETCH
) -> dict[str, Array]:
    """An .npz's arrays, all or those wanted; object arrays, which would run code, are refused."""
    try:
        with np.load(file, allow_pickle=False) as data:
            return {n: data[n] for n in data.files if wanted is None or n in wanted}
    except FileNotFoundError as error:
        raise SourceError(
            f"{file.name} is not there", got=str(file), expected="an .npz file", fix=fetch
        ) from error
    except (OSError, ValueError, BadZipFile, EOFError) as error:
        raise SourceError(
            f"{file.name} cannot be read", got=str(error), expected="a whole .npz", fix=fetch
        ) from error


class SpinReader:
    """`part` (24 annotated joints), `openpose`, `S`, `pose`, `shape`."""

    margin = SPIN_MARGIN
    unit_px = SCALE_PX
    pose_key, betas_key, has_pose_key = "pose", "shape", "has_smpl"

    def __init__(self, data: dict[str, Array], gendered: bool) -> None:
        self.data, self.gendered = data, gendered

    def keypoints(self, i: int) -> tuple[Array, Array]:
        """[36, 2] px and [36] state; detected joints only where nobody annotated one."""
        return merged(
            (SPIN_24, self.row("part", i, (24, 3))), (OPENPOSE_25, self.row("openpose", i, (25, 3)))
        )

    def located(self, i: int) -> tuple[Array, Array]:
        """[36, 3] m relative to the pelvis, and where known."""
        joints = self.row("S", i, (24, 4))
        if joints is None:
            return nothing_located()
        return SPIN_24.located(joints[:, :3], joints[:, 3] > 0)

    def row(self, name: str, i: int, shape: tuple[int, ...]) -> Array | None:
        """A copy of one person's row, or None where the file has no such label."""
        if name not in self.data:
            return None
        return np.array(self.data[name][i], np.float64).reshape(shape)

    def smpl(self, i: int) -> SmplLabel | None:
        """Pose in the camera frame and shape, where labelled."""
        pose, betas = self.row(self.pose_key, i, (24, 3)), self.data.get(self.betas_key)
        if pose is None or betas is None or not self.flag(self.has_pose_key, i):
            return None
        gender = "neutral"
        if self.gendered:
            gender = GENDERS.get(str(self.data["gender"][i]), "neutral")
        shape = np.array(betas[i], np.float64)[:10]
        return SmplLabel(rotvec_to_rotmat(pose), shape, gender)

    def flag(self, name: str, i: int) -> bool:
        """A mask's value; where there is no mask, everybody is labelled."""
        return bool(self.data[name][i]) if name in self.data else True

    def record(self, i: int, images: Path, source: str) -> Record:
        """One person."""
        points, state = self.keypoints(i)
        xyz, located = self.located(i)
        side = np.asarray(self.data["scale"][i], np.float64) * self.unit_px / self.margin
        return Record(
            source=source,
            image=images / str(self.data["imgname"][i]),
            bbox_xyxy=xyxy_from_square(self.data["center"][i], side),
            keypoints_px=points,
            state=state,
            xyz=xyz,
            located=located,
            smpl=self.smpl(i),
            tags={"row": i},
        )


class HmrReader(SpinReader):
    """4D-Humans and ProHMR: pixels instead of 200ths, OpenPose's order first, 19 more joints."""

    margin = 1.0
    unit_px = 1.0
    pose_key, betas_key, has_pose_key = "body_pose", "betas", "has_body_pose"

    # The 19 are SPIN's 24 without the five of the face, which OpenPose's 25 have.
    def keypoints(self, i: int) -> tuple[Array, Array]:
        """[36, 2] px and [36] state."""
        extra = self.row("extra_keypoints_2d", i, (19, 3))
        return merged(
            (SPIN_24, None if extra is None else np.concatenate([extra, np.zeros((5, 3))])),
            (OPENPOSE_25, self.row("body_keypoints_2d", i, (25, 3))),
        )

    def located(self, i: int) -> tuple[Array, Array]:
        """[36, 3] m relative to the pelvis, and where known."""
        extra = self.row("extra_keypoints_3d", i, (19, 4))
        if extra is None:
            return nothing_located()
        joints = np.concatenate([extra, np.zeros((5, 4))])
        return SPIN_24.located(joints[:, :3], joints[:, 3] > 0)


def merged(*labels: tuple[JointOrder, Array | None]) -> tuple[Array, Array]:
    """Keypoints [36, 2] and state [36] of several orders, earlier ones first."""
    points, state = np.zeros((NUM_KEYPOINTS, 2)), np.zeros(NUM_KEYPOINTS, np.uint8)
    for order, joints in labels:
        if joints is None:
            continue
        found, known = order.keypoints(joints[:, :2], np.where(joints[:, 2] > 0, SEEN, UNKNOWN))
        new = (state == UNKNOWN) & (known > UNKNOWN)
        points[new], state[new] = found[new], known[new]
    return points, state
