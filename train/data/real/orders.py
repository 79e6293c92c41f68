"""Joint orders of the real data sets, by name.

A name from `glnet_rt.skeleton.KEYPOINTS` says that the joint is taken for that keypoint: limbs, and
the pelvis as the root that depths are counted from. Joints that look alike but are defined
elsewhere (marker-based hips, LSP's neck) bear names of their own and supervise nothing.
"""

from __future__ import annotations

from glnet_rt.skeleton import COCO_17, SKELETON, SMPL_JOINTS
from train.data.real.record import JointOrder

COCO = JointOrder(COCO_17)

# 3DPW's poses2d. Neck is the middle of the shoulders and none of ours; hips are COCO's.
OPENPOSE_18 = JointOrder(
    (
        "nose", "shoulder_middle", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder",
        "left_elbow", "left_wrist", "right_coco_hip", "right_knee", "right_ankle", "left_coco_hip",
        "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear",
    )
)  # fmt: skip

OPENPOSE_25 = JointOrder(
    (
        "nose", "shoulder_middle", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder",
        "left_elbow", "left_wrist", "hip_middle", "right_coco_hip", "right_knee", "right_ankle",
        "left_coco_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear",
        "left_ear", "left_toe", "left_small_toe", "left_heel", "right_toe", "right_small_toe",
        "right_heel",
    )
)  # fmt: skip

# `part` and `S` of SPIN's files; the pelvis is their root.
SPIN_24 = JointOrder(
    (
        "right_ankle", "right_knee", "right_lsp_hip", "left_lsp_hip", "left_knee", "left_ankle",
        "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist", "lsp_neck", "head_top", "pelvis", "thorax", "h36m_spine", "h36m_jaw",
        "h36m_head", "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    )
)  # fmt: skip

SMPL_24 = JointOrder(SMPL_JOINTS)
HYBRIK_29 = JointOrder(SKELETON)  # 24, crown, middle fingers, big toes

# SMPL-X: SMPL's first 22, then points of its own of face and hands; its knuckles are none of ours.
SMPLX = JointOrder(
    (
        *SMPL_JOINTS[:22], "jaw", "left_eyeball", "right_eyeball",
        *(f"left_knuckle_{i}" for i in range(15)), *(f"right_knuckle_{i}" for i in range(15)),
        "nose", "right_eye", "left_eye", "right_ear", "left_ear", "left_toe", "left_small_toe",
        "left_heel", "right_toe", "right_small_toe", "right_heel",
    )
)  # fmt: skip

# Human3.6M's 17: the regressor's order (HybrIK, SPIN), and that of the recorded skeleton (3DMPPE).
H36M_LEFT_FIRST = JointOrder(
    (
        "pelvis", "left_h36m_hip", "left_knee", "left_ankle", "right_h36m_hip", "right_knee",
        "right_ankle", "h36m_spine", "h36m_neck", "h36m_nose", "h36m_head", "left_shoulder",
        "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
    )
)  # fmt: skip
H36M_RIGHT_FIRST = JointOrder(
    (
        "pelvis", "right_h36m_hip", "right_knee", "right_ankle", "left_h36m_hip", "left_knee",
        "left_ankle", "h36m_spine", "h36m_neck", "h36m_nose", "h36m_head", "left_shoulder",
        "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
    )
)  # fmt: skip

# MPI-INF-3DHP: 28 joints in training, 17 in its test set.
MPI_28 = JointOrder(
    (
        "mpi_spine3", "mpi_spine4", "mpi_spine2", "mpi_spine", "pelvis", "mpi_neck", "mpi_head",
        "head_top", "left_clavicle", "left_shoulder", "left_elbow", "left_wrist", "left_mpi_hand",
        "right_clavicle", "right_shoulder", "right_elbow", "right_wrist", "right_mpi_hand",
        "left_mpi_hip", "left_knee", "left_ankle", "left_mpi_foot", "left_mpi_toe",
        "right_mpi_hip", "right_knee", "right_ankle", "right_mpi_foot", "right_mpi_toe",
    )
)  # fmt: skip
MPI_17 = JointOrder(
    (
        "head_top", "mpi_neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder",
        "left_elbow", "left_wrist", "right_mpi_hip", "right_knee", "right_ankle", "left_mpi_hip",
        "left_knee", "left_ankle", "pelvis", "mpi_spine", "mpi_head",
    )
)  # fmt: skip
