"""A labelled person in a photograph: what every real data set's reader yields.

Readers translate files; what happens to the labels afterwards (cutting the picture, joints from
SMPL parameters, twists) is written once, in `train.data.real.people`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.skeleton import INDEX, NUM_JOINTS, NUM_KEYPOINTS

UNKNOWN, HIDDEN, SEEN = 0, 1, 2


@dataclass(frozen=True, eq=False)
class SmplLabel:
    """SMPL parameters in the camera frame (x right, y down, z forward).

    Attributes:
        rotmats: [24, 3, 3] float64, local; index 0 is camera from body. Identity where not `known`.
        betas: [10] float64, or None where the shape is told in another model's numbers, or not.
        gender: `neutral`, `male` or `female`: whose betas they are.
        transl_m: [3] float64, SMPL's translation in the label's own frame, or None where not known.
        camera_from_label: [4, 4] float64; brings that frame's points into the camera.
        pelvis_camera_m: [3] float64, where the pelvis is in the camera, for data sets that tell
            that instead of a translation.
        known: [24] bool, joints whose rotation is told.
    """

    rotmats: Array
    betas: Array | None
    gender: str = "neutral"
    transl_m: Array | None = None
    camera_from_label: Array = field(default_factory=lambda: np.eye(4))
    pelvis_camera_m: Array | None = None
    known: Array = field(default_factory=lambda: np.ones(NUM_JOINTS, bool))

    def pelvis_m(self, rest_pelvis: Array) -> Array | None:
        """[3] the pelvis in the camera, given where it rests [3] for this shape.

        A rotation of the frame turns the body about its pelvis, not about the model's origin, so
        that the translation cannot be turned by itself.
        """
        if self.transl_m is None:
            return self.pelvis_camera_m
        there = rest_pelvis + self.transl_m
        pelvis: Array = self.camera_from_label[:3, :3] @ there + self.camera_from_label[:3, 3]
        return pelvis


def rooted_in_camera(
    rotvec: Array, camera_from_world: Array, betas: Array, gender: str, transl_m: Array
) -> SmplLabel:
    """A label of SMPL's 72 numbers of pose, and its translation [3] m, both in the world frame.

    Args:
        camera_from_world: [4, 4].
    """
    rotmats = rotvec_to_rotmat(np.array(rotvec, np.float64).reshape(NUM_JOINTS, 3))
    rotmats[0] = camera_from_world[:3, :3] @ rotmats[0]
    return SmplLabel(rotmats, betas, gender, transl_m, camera_from_world)


@dataclass(frozen=True, eq=False)
class Record:
    """One person in one picture.

    Attributes:
        source: name of the data set.
        image: the picture's file.
        bbox_xyxy: [4] float64, edges, image px; None where the data set has no box.
        keypoints_px: [36, 2] float64, image px; meaningless where `state` is UNKNOWN.
        state: [36] uint8: UNKNOWN, HIDDEN or SEEN.
        xyz: [36, 3] float64, m, camera frame, relative to the pelvis.
        located: [36] bool, where `xyz` is known.
        smpl: parameters of the body, or None.
        K: [3, 3] float64 intrinsics, px, or None.
        portrait: the labels speak of an upright picture; one that is stored lying has to be turned
            a quarter clockwise first.
        tags: what protocols ask for: sequence, frame, subject, activity, annotation id.
    """

    source: str
    image: Path
    bbox_xyxy: Array | None
    keypoints_px: Array
    state: Array
    xyz: Array
    located: Array
    smpl: SmplLabel | None = None
    K: Array | None = None
    portrait: bool = False
    tags: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class JointOrder:
    """A data set's own joint order, and which of our 36 keypoints its joints are.

    Attributes:
        names: one per joint of the data set; those that are none of ours are skipped.
    """

    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def pairs(self) -> tuple[list[int], list[int]]:
        """Indices into the data set's joints, and the keypoints they are."""
        known = [(i, INDEX[name]) for i, name in enumerate(self.names) if name in INDEX]
        return [i for i, _ in known], [k for _, k in known]

    def keypoints(self, joints: Array, state: Array) -> tuple[Array, Array]:
        """Joints [J, D] with a state each [J] -> [36, D] and [36] uint8."""
        source, target = self.pairs()
        placed = np.zeros((NUM_KEYPOINTS, joints.shape[1]))
        states = np.zeros(NUM_KEYPOINTS, np.uint8)
        known = np.asarray(state)[source] > UNKNOWN
        placed[target] = np.where(known[:, None], joints[source], 0.0)
        states[target] = np.asarray(state)[source]
        return placed, states

    def located(self, joints_m: Array, known: Array) -> tuple[Array, Array]:
        """Joints [J, 3] m -> [36, 3] relative to the pelvis, and where known [36] bool."""
        pelvis = self.names.index("pelvis")
        if not known[pelvis]:
            return nothing_located()
        xyz, state = self.keypoints(joints_m - joints_m[pelvis], np.where(known, SEEN, UNKNOWN))
        return xyz, state > UNKNOWN

    def labels(self, pixels: Array, joints_m: Array) -> dict[str, Array]:
        """What a `Record` says of joints [J, 2] px and [J, 3] m that are all known."""
        points, state = self.keypoints(pixels, np.full(len(self), SEEN))
        xyz, located = self.located(joints_m, np.ones(len(self), bool))
        return {"keypoints_px": points, "state": state, "xyz": xyz, "located": located}


def nothing_located() -> tuple[Array, Array]:
    """`xyz` and `located` of a data set that labels pixels only."""
    return np.zeros((NUM_KEYPOINTS, 3)), np.zeros(NUM_KEYPOINTS, bool)


def project(joints: Array, K: Array) -> Array:
    """[J, 3] in the camera, any unit -> [J, 2] px."""
    projected = joints @ K.T
    pixels: Array = projected[:, :2] / projected[:, 2:]
    return pixels


def intrinsics(focal: Array, centre: Array) -> Array:
    """[3, 3] of focal lengths [2] and principal point [2], px."""
    K = np.eye(3)
    K[[0, 1], [0, 1]], K[:2, 2] = focal, centre
    return K


def xyxy_from_square(center: Array, side: Array) -> Array:
    """Middle [2] and side, or two sides [2] -> edges."""
    half = np.asarray(side, np.float64) / 2
    return np.concatenate([np.asarray(center) - half, np.asarray(center) + half])


def xyxy_from_xywh(box: Array) -> Array:
    """COCO's (x, y, width, height) -> edges."""
    x, y, width, height = np.asarray(box, np.float64)
    return np.array([x, y, x + width, y + height])
