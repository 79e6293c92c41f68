"""Records of real data sets as training samples: the picture cut out, the body's joints posed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array
from glnet_rt.crop import sample_square, square_around
from glnet_rt.errors import SourceError
from glnet_rt.kinematics import twist_from_rotations
from glnet_rt.skeleton import NUM_JOINTS, NUM_KEYPOINTS, NUM_TWISTS
from train.data.real.record import SEEN, UNKNOWN, Record, SmplLabel
from train.data.sample import Sample
from train.data.shards import PICTURE_OVER_BOX

NUM_BETAS = 10
BOX_MARGIN = 1.2  # of the box around keypoints, which lie inside the body


class RecordSet:
    """Records as an indexed list of `Sample`s; pictures are read when they are asked for.

    Args:
        records: people.
        bodies: body model per gender; betas of two bodies do not mix.
        box_scale: side of the network's crop over the longer side of the box.
        size: side of the cut picture, px; above the network's input, so that crops can be scaled.

    Raises:
        SourceError: a label needs a body model that was not given.
    """

    def __init__(
        self,
        records: Sequence[Record],
        bodies: Mapping[str, BodyModel],
        box_scale: float = 1.25,
        size: int = 320,
    ) -> None:
        self.records, self.bodies, self.size = list(records), dict(bodies), size
        self.crop_side = box_scale / PICTURE_OVER_BOX
        genders = {r.smpl.gender for r in self.records if r.smpl is not None}
        missing = sorted(genders - set(self.bodies))
        if missing:
            raise SourceError(
                "labels speak of body models that were not given",
                got=f"models {sorted(self.bodies)}",
                expected=f"also {missing}",
                fix="get SMPL's models at https://smpl.is.tue.mpg.de and name their files",
            )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        """The sample of one record; the picture is read from disk."""
        record = self.records[index]
        points, state, xyz, located = self.keypoints(record)
        center_px, side_px = square_around(box_of(record, points, state), PICTURE_OVER_BOX)
        known = (state > UNKNOWN).astype(np.float32)
        rotmats, twist, betas = self.pose(record.smpl)
        smpl = record.smpl
        told = np.zeros(NUM_JOINTS) if smpl is None else smpl.known
        return Sample(
            image=cut_picture(record, center_px, side_px, self.size),
            crop_side=self.crop_side,
            uv=(((points - center_px) / side_px) * known[:, None]).astype(np.float32),
            labelled=known,
            seen=(state == SEEN).astype(np.float32),
            xyz=xyz.astype(np.float32),
            located=located.astype(np.float32),
            rotmats=rotmats.astype(np.float32),
            twist=twist.astype(np.float32),
            betas=betas.astype(np.float32),
            has_rotation=told.astype(np.float32),
            has_betas=float(smpl is not None and smpl.betas is not None),
        )

    def keypoints(self, record: Record) -> tuple[Array, Array, Array, Array]:
        """All there is to know of the 36: px [36, 2], state [36], xyz [36, 3] m, located [36].

        Annotated pixels are kept; where a body is labelled, its shape with it, it gives the others,
        and all of xyz.
        """
        points, state = record.keypoints_px.copy(), record.state.copy()
        if record.smpl is None or record.smpl.betas is None:
            return points, state, record.xyz, record.located
        body = self.bodies[record.smpl.gender]
        betas = record.smpl.betas[None].astype(np.float32)
        posed = body(betas, record.smpl.rotmats[None].astype(np.float32))
        xyz = (body.keypoints(posed) - posed.joints[:, :1])[0].astype(np.float64)
        pelvis = record.smpl.pelvis_m(body.rest_skeleton(betas)[0, 0].astype(np.float64))
        if pelvis is not None and record.K is not None:
            camera = xyz + pelvis
            projected = camera @ record.K.T
            unknown = (state == UNKNOWN) & (camera[:, 2] > 0.1)
            points[unknown] = projected[unknown, :2] / projected[unknown, 2:]
            state[unknown] = SEEN
        return points, state, xyz, np.ones(NUM_KEYPOINTS, bool)

    def pose(self, smpl: SmplLabel | None) -> tuple[Array, Array, Array]:
        """Rotations [24, 3, 3], twist [23, 2], betas [10]; of the rest pose where unknown.

        Twists turn about the bones of the body's shape, and where that is unknown of the mean one.
        """
        if smpl is None:
            twist = np.tile([1.0, 0.0], (NUM_TWISTS, 1))
            return np.tile(np.eye(3), (NUM_JOINTS, 1, 1)), twist, np.zeros(NUM_BETAS)
        betas = np.zeros(NUM_BETAS) if smpl.betas is None else smpl.betas
        rest = self.bodies[smpl.gender].rest_skeleton(betas[None].astype(np.float32))
        rotmats = smpl.rotmats[None].astype(np.float32)
        return smpl.rotmats, twist_from_rotations(rotmats, rest)[0], betas


def box_of(record: Record, points: Array, state: Array) -> Array:
    """[4] edges: the record's own box, or one around all its keypoints [36, 2] px."""
    if record.bbox_xyxy is not None:
        return record.bbox_xyxy
    known = points[state > UNKNOWN]
    low, high = known.min(0), known.max(0) + 1.0
    centre, half = (low + high) / 2, (high - low) / 2 * BOX_MARGIN
    return np.concatenate([centre - half, centre + half])


def cut_picture(record: Record, center_px: Array, side_px: float, size: int) -> Array:
    """[size, size, 3] uint8 RGB: the square around the person, black outside the picture."""
    cut = sample_square(read_picture(record), center_px, side_px, size)
    return np.ascontiguousarray(cut[..., ::-1])


def read_picture(record: Record) -> Array:
    """[H, W, 3] uint8 BGR, as the labels see it.

    Raises:
        SourceError: it is missing or damaged.
    """
    image = cv2.imread(str(record.image), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(
            f"picture of {record.source} cannot be read",
            got=str(record.image),
            expected="the data set's picture",
            fix="unpack the pictures where the reader was told they are"
            if not Path(record.image).exists()
            else "fetch the file again: it is damaged",
        )
    if record.portrait and image.shape[1] > image.shape[0]:
        return cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
    return image
