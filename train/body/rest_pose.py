"""From MakeHuman's A-pose to SMPL's T-pose, person by person."""

from __future__ import annotations

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.rotation import rotmat_to_rotvec, rotvec_to_rotmat, skew
from glnet_rt.skeleton import NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS
from train.body.skinning import chain, joint_maps, skin

# MakeHuman puts the hip joints 106 mm from the middle; living ones are at 85 to 95.
HIP_WIDTH_FACTOR = 0.88
FINGER_LIFT_DEG = 14.0  # MakeHuman's fingers hang; the T-pose has them nearly flat
COLLAR_SHARE = 0.18  # of the upper arm's way up, what the collar bone takes
DUAL_SHARE = 0.25  # the shape of bent joints lies between linear and dual-quaternion skinning

# Direction of each left bone in the T-pose; right ones are mirrored.
_UPPER_ARM = np.array([1.0, -0.03, -0.02])
_FOREARM = np.array([1.0, -0.03, 0.0])
_PALM = np.array([1.0, -0.06, 0.04])
_THIGH = np.array([0.09, -1.0, 0.0])
_SHIN = np.array([0.02, -1.0, -0.06])


def joints_from_cubes(vertices: Array, joint_cubes: Array) -> Array:
    """[24, 3] joints of one A-posed person: cube centres, the hips brought to a natural width."""
    joints = vertices[joint_cubes].mean(axis=1)
    for name in ("left_hip", "right_hip"):
        joints[SMPL_JOINTS.index(name), 0] *= HIP_WIDTH_FACTOR
    return np.asarray(joints, dtype=np.float64)


def t_pose_rotations(joints: Array) -> Array:
    """[24, 3, 3] float64: world rotation of every bone, A-pose -> T-pose, for [24, 3] joints."""
    world = np.broadcast_to(np.eye(3), (NUM_JOINTS, 3, 3)).copy()
    at = {name: joints[i] for i, name in enumerate(SMPL_JOINTS)}
    for side, sign in (("left", 1.0), ("right", -1.0)):

        def bone(start: str, end: str, side: str = side) -> Array:
            return np.asarray(at[f"{side}_{end}"] - at[f"{side}_{start}"])

        flip = np.array([sign, 1.0, 1.0])
        shoulder = _align(np.eye(3), bone("shoulder", "elbow"), _UPPER_ARM * flip)
        elbow = _align(shoulder, bone("elbow", "wrist"), _FOREARM * flip)
        wrist = _align(elbow, bone("wrist", "hand"), _PALM * flip)
        hip = _align(np.eye(3), bone("hip", "knee"), _THIGH * flip)
        turned = {
            "collar": rotvec_to_rotmat(COLLAR_SHARE * rotmat_to_rotvec(shoulder)),
            "shoulder": shoulder,
            "elbow": elbow,
            "wrist": wrist,
            "hand": rotvec_to_rotmat(np.array([0, 0, sign * np.radians(FINGER_LIFT_DEG)])) @ wrist,
            "hip": hip,
            "knee": _align(hip, bone("knee", "ankle"), _SHIN * flip),
        }
        for name, rotmat in turned.items():
            world[SMPL_JOINTS.index(f"{side}_{name}")] = rotmat
    return world


def to_t_pose(
    vertices: Array, joints: Array, influences: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Skin one A-posed person into the T-pose, pelvis at the origin.

    Args:
        vertices: [n, 3] float64, m, A-pose. joints: [24, 3] float64, m, A-pose.
        influences: of these vertices, from `sparse_weights`.
    Returns:
        ([n, 3] vertices, [24, 3] joints), float64, m.
    """
    world = t_pose_rotations(joints)
    posed = chain(world, joints, np.array(SMPL_PARENTS))
    posed -= posed[0]
    offsets = joint_maps(world, joints, posed)
    return skin(vertices, influences, world, offsets, DUAL_SHARE), posed


def _align(before: Array, bone: Array, direction: Array) -> Array:
    """The least further turn, after `before`, that makes `bone` point along `direction`."""
    start = before @ bone
    start = start / np.linalg.norm(start)
    end = direction / np.linalg.norm(direction)
    K = skew(np.cross(start, end))
    return np.asarray((np.eye(3) + K + K @ K / (1 + start @ end)) @ before)
