"""Joint orders of the real data sets, by name.

A name from `glnet_rt.skeleton.KEYPOINTS` says that the joint is taken for that keypoint: limbs, and
the pelvis as the root that depths are counted from. Joints that look alike but are defined
elsewhere (marker-based hips, LSP's neck) bear names of their own and supervise nothing.
"""

from __future__ import annotations

from glnet_rt.skeleton import COCO_17
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
