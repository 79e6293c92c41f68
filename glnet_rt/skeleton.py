"""Joint names, the kinematic tree, the 36 keypoints and their 7 parts: every index lives here.

Letters used in shapes across the package: B people, J = 24 SMPL joints, K = 36 keypoints,
P = 7 parts, V vertices, F faces.
"""

from __future__ import annotations

import numpy as np

SMPL_JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2",
    "left_ankle", "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar",
    "right_collar", "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
    "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip

# Rest vertices that close the chains, so that every one of the 24 joints has a bone to point along.
LEAVES = ("head_top", "left_fingertip", "right_fingertip", "left_toe", "right_toe")

# Keypoints which COCO annotates and which are no SMPL joint. COCO's own hips sit lower and wider.
COCO_ONLY = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_coco_hip", "right_coco_hip",
)  # fmt: skip

SKELETON = SMPL_JOINTS + LEAVES  # 29, what inverse kinematics reads
KEYPOINTS = SKELETON + COCO_ONLY  # 36, what the network regresses

NUM_JOINTS = len(SMPL_JOINTS)
NUM_SKELETON = len(SKELETON)
NUM_KEYPOINTS = len(KEYPOINTS)
NUM_TWISTS = NUM_JOINTS - 1  # the root has no twist: its rotation comes from three bones

INDEX = {name: i for i, name in enumerate(KEYPOINTS)}


def indices(names: tuple[str, ...]) -> tuple[int, ...]:
    """Keypoint indices of `names`, in their order."""
    return tuple(INDEX[name] for name in names)


# Parent of each of the 29 skeleton points; -1 marks the root.
PARENTS = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21,
    15, 22, 23, 10, 11,
)  # fmt: skip
SMPL_PARENTS = PARENTS[:NUM_JOINTS]

# The bone that carries each joint's swing and twist; spine3 follows the neck. The root has three.
BONE_CHILD = (
    -1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 27, 28, 15, 16, 17, 24, 18, 19, 20, 21, 22, 23, 25, 26,
)  # fmt: skip
ROOT_CHILDREN = indices(("left_hip", "right_hip", "spine1"))

PARTS: dict[str, tuple[int, ...]] = {
    "face": indices(
        ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "neck", "head", "head_top")
    ),
    "shoulder": indices(
        ("left_shoulder", "right_shoulder", "spine3", "left_collar", "right_collar")
    ),
    "left_arm": indices(("left_elbow", "left_wrist", "left_hand", "left_fingertip")),
    "right_arm": indices(("right_elbow", "right_wrist", "right_hand", "right_fingertip")),
    "hip": indices(
        ("pelvis", "spine1", "spine2", "left_hip", "right_hip", "left_coco_hip", "right_coco_hip")
    ),
    "left_leg": indices(("left_knee", "left_ankle", "left_foot", "left_toe")),
    "right_leg": indices(("right_knee", "right_ankle", "right_foot", "right_toe")),
}
NUM_PARTS = len(PARTS)
# Keypoints listed part after part, as hop 2 predicts them; PART_ORDER_INVERSE brings them back.
PART_ORDER = tuple(k for part in PARTS.values() for k in part)
PART_ORDER_INVERSE = tuple(int(i) for i in np.argsort(PART_ORDER))

COCO_17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_coco_hip", "right_coco_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
COCO_FROM_KEYPOINTS = indices(COCO_17)

# The 17 joints of Human3.6M, left side first, as `J_regressor_h36m` lists them, and the 14 of LSP.
H36M_17 = (
    "pelvis", "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle",
    "spine", "neck_nose", "jaw", "head", "left_shoulder", "left_elbow", "left_wrist",
    "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip
LSP_FROM_H36M = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)


def _mirror(names: tuple[str, ...]) -> tuple[int, ...]:
    """Index of each name's left/right counterpart; a middle joint is its own."""
    swap = {"left_": "right_", "right_": "left_"}

    def other(name: str) -> str:
        for side, opposite in swap.items():
            if name.startswith(side):
                return opposite + name[len(side) :]
        return name

    return tuple(names.index(other(name)) for name in names)


FLIP_JOINTS = _mirror(SMPL_JOINTS)
FLIP_KEYPOINTS = _mirror(KEYPOINTS)
FLIP_TWISTS = tuple(j - 1 for j in FLIP_JOINTS[1:])
