"""Joint orders of the real data sets, by name.

A name from `glnet_rt.skeleton.KEYPOINTS` says that the joint is taken for that keypoint: limbs, and
the pelvis as the root that depths are counted from. Joints that look alike but are defined
elsewhere (marker-based hips, LSP's neck) bear names of their own and supervise nothing.
"""

from __future__ import annotations

from glnet_rt.skeleton import COCO_17, SKELETON, SMPL_JOINTS
from train.data.real.record import JointOrder

COCO = JointOrder(COCO_17)
SMPL_24 = JointOrder(SMPL_JOINTS)
SMPL_29 = JointOrder(SKELETON)

# 3DPW's poses2d. Neck is the middle of the shoulders and none of ours; hips are COCO's.
OPENPOSE_18 = JointOrder(
    (
        "nose", "shoulder_middle", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder",
        "left_elbow", "left_wrist", "right_coco_hip", "right_knee", "right_ankle", "left_coco_hip",
        "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear",
    )
)  # fmt: skip

# SPIN-style files: the first 25 are OpenPose's BODY_25 ...
OPENPOSE_25 = JointOrder(
    (
        "nose", "shoulder_middle", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder",
        "left_elbow", "left_wrist", "hip_middle", "right_coco_hip", "right_knee", "right_ankle",
        "left_coco_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear",
        "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
        "right_small_toe", "right_heel",
    )
)  # fmt: skip

# ... and these are the 24 annotated joints of `part` and `S`.
SPIN_24 = JointOrder(
    (
        "right_ankle", "right_knee", "right_lsp_hip", "left_lsp_hip", "left_knee", "left_ankle",
        "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
        "lsp_neck", "head_top", "mpii_pelvis", "mpii_thorax", "h36m_spine", "h36m_jaw", "h36m_head",
        "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    )
)  # fmt: skip

# Human3.6M's 17 of 32 joints, left side first (SPIN, HybrIK) and right side first (3DMPPE).
_LEFT_LEG = ("h36m_left_hip", "left_knee", "left_ankle")
_RIGHT_LEG = ("h36m_right_hip", "right_knee", "right_ankle")
_TRUNK = ("h36m_spine", "h36m_neck", "h36m_jaw", "h36m_head")
_LEFT_ARM = ("left_shoulder", "left_elbow", "left_wrist")
_RIGHT_ARM = ("right_shoulder", "right_elbow", "right_wrist")
H36M_LEFT_FIRST = JointOrder(("pelvis", *_LEFT_LEG, *_RIGHT_LEG, *_TRUNK, *_LEFT_ARM, *_RIGHT_ARM))
H36M_RIGHT_FIRST = JointOrder(("pelvis", *_RIGHT_LEG, *_LEFT_LEG, *_TRUNK, *_LEFT_ARM, *_RIGHT_ARM))
# Rows of the raw files' 32 joints in the left-first order; 11 repeats the pelvis, 24 the neck.
H36M_LEFT_FIRST_OF_32 = (11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27)

# MPI-INF-3DHP: 17 of 28 training joints, and the order of the test files (which is the same).
MPI_17_OF_28 = (7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6)
MPI_17 = JointOrder(
    (
        "mpi_head_top", "mpi_neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder",
        "left_elbow", "left_wrist", "mpi_right_hip", "right_knee", "right_ankle", "mpi_left_hip",
        "left_knee", "left_ankle", "pelvis", "mpi_spine", "mpi_head",
    )
)  # fmt: skip
