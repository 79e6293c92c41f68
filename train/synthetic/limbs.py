"""Limbs by purpose: a hand sent to a point, relaxed arms, level soles, a spine bent as a whole.

All of it writes into `angles` [24, 3] degrees (`anatomy.py`), not yet within limits.
"""

from __future__ import annotations

import numpy as np

from glnet_rt.body_model import forward_kinematics
from glnet_rt.contracts import Array
from train.synthetic.anatomy import JOINT, Y, Z, angles_to_rotmats, arm_angles_for, turn

Rng = np.random.Generator
SPINE = (JOINT["spine1"], JOINT["spine2"], JOINT["spine3"])
NECK, HEAD = JOINT["neck"], JOINT["head"]
SIDES = ("left", "right")


def side_joint(side: str, joint: str) -> int:
    return JOINT[f"{side}_{joint}"]


def bell(rng: Rng, mean: float, sd: float, low: float, high: float) -> float:
    """A normal draw, clipped."""
    return float(min(max(rng.normal(mean, sd), low), high))


# Wrist positions of the left arm relative to its shoulder, in arm lengths (upper arm + forearm),
# body axes, with the direction of the elbow.
WRIST_TARGETS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "hip": ((0.15, -0.72, 0.04), (1.0, 0.0, -0.5)),
    "pocket": ((0.13, -0.90, 0.14), (0.5, 0.0, -1.0)),
    "belly": ((-0.24, -0.50, 0.52), (0.6, -1.0, -0.3)),
    "clasp_low": ((-0.20, -0.74, 0.46), (0.7, 0.0, -0.7)),
    "crossed": ((-0.44, -0.38, 0.50), (0.7, -1.0, 0.2)),
    "chest": ((-0.25, -0.12, 0.44), (0.9, -1.0, 0.0)),
    "chin": ((-0.24, 0.03, 0.44), (0.5, -1.0, 0.1)),
    "ear": ((-0.02, 0.26, 0.24), (0.8, -1.0, 0.3)),
    "head_top": ((-0.08, 0.62, 0.12), (1.0, 0.2, 0.3)),
    "behind_head": ((-0.06, 0.42, -0.10), (1.0, 0.4, 0.5)),
    "behind_back": ((-0.10, -0.82, -0.34), (0.8, 0.0, -1.0)),
    "wave": ((0.42, 0.50, 0.22), (1.0, -1.0, -0.2)),
    "present": ((0.30, -0.34, 0.62), (0.5, -1.0, -0.2)),
    "forward": ((-0.06, -0.02, 0.97), (0.6, -0.8, 0.0)),
    "sideways": ((0.95, 0.02, 0.12), (0.0, -0.6, -0.8)),
    "overhead": ((0.10, 0.93, 0.08), (1.0, 0.0, 0.3)),
    "high_side": ((0.60, 0.72, 0.08), (0.6, 0.0, -0.6)),
    "knee": ((0.02, -0.66, 0.66), (0.8, 0.0, -0.6)),
}
GESTURES = tuple(WRIST_TARGETS)


def place_wrist(
    angles: Array,
    side: str,
    target: Array,
    pole: Array,
    rest: Array,
    collar_noise: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Set collar, shoulder and elbow so that the wrist is at a point, in place.

    Args:
        angles: [24, 3] degrees.
        target: [3] wrist relative to the shoulder in arm lengths, as if it were a left arm.
        pole: [3] direction of the elbow, likewise.
        rest: [24, 3] rest joints, m.
        collar_noise: degrees added to the collar's protraction and elevation.
    """
    shoulder, elbow, wrist = (rest[side_joint("left", n)] for n in ("shoulder", "elbow", "wrist"))
    upper, fore = float(np.linalg.norm(elbow - shoulder)), float(np.linalg.norm(wrist - elbow))
    reach = target * (upper + fore)
    protraction, elevation = _collar_for(reach / max(float(np.linalg.norm(reach)), 1e-6))
    protraction += collar_noise[0]
    elevation += collar_noise[1]
    angles[side_joint(side, "collar"), :2] = protraction, elevation
    collar = turn(Y, -protraction) @ turn(Z, elevation)
    solved = arm_angles_for(collar.T @ reach, collar.T @ pole, upper, fore)
    angles[side_joint(side, "shoulder")] = solved[:3]
    angles[side_joint(side, "elbow"), 0] = solved[3]


def place_noisily(
    rng: Rng, angles: Array, side: str, target: Array, pole: Array, rest: Array
) -> None:
    collar_noise = (float(rng.normal(0, 3)), float(rng.normal(0, 3)))
    place_wrist(angles, side, target, pole, rest, collar_noise)


def _collar_for(direction: Array) -> tuple[float, float]:
    """Protraction and elevation, degrees, of a collar whose arm points along a unit `direction`."""
    elevation = 32.0 * max(float(direction[1]), 0.0) ** 0.8 - 3.0 * max(-float(direction[1]), 0.0)
    return 12.0 * float(direction[2]) - 4.0 * max(float(direction[0]), 0.0), elevation


def relaxed_arm(rng: Rng, angles: Array, side: str) -> None:
    """A relaxed arm beside the body."""
    angles[side_joint(side, "collar"), :2] = rng.normal(0, 3), rng.normal(-1, 3)
    angles[side_joint(side, "shoulder")] = (
        rng.normal(2, 9),
        abs(rng.normal(9, 7)) + 3,
        rng.normal(0, 18),
    )
    angles[side_joint(side, "elbow"), 0] = abs(rng.normal(14, 12))


def gesture(rng: Rng, angles: Array, side: str, name: str, rest: Array, spread: float) -> None:
    target, pole = (np.array(v) for v in WRIST_TARGETS[name])
    target = target + rng.normal(0, spread, 3)
    place_noisily(rng, angles, side, target, pole + rng.normal(0, 0.25, 3), rest)


def free_arm(rng: Rng, angles: Array, side: str, rest: Array) -> None:
    """The hand anywhere in reach, rather in front than behind and rather out than across."""
    direction = rng.normal(0, 1, 3) + np.array([0.35, -0.1, 0.55])
    target = direction / np.linalg.norm(direction) * rng.uniform(0.45, 0.99)
    pole = np.array([0.8, -0.8, -0.4]) + rng.normal(0, 0.5, 3)
    place_noisily(rng, angles, side, target, pole, rest)


def draw_arms(rng: Rng, angles: Array, rest: Array, hang: float, both: float) -> None:
    """Fill both arms: hanging with probability `hang`, else gestures, alike with `both`."""
    symmetric = rng.random() < both
    name = GESTURES[rng.integers(len(GESTURES))]
    for side in SIDES:
        choice = rng.random()
        if symmetric and choice < 0.9:
            gesture(rng, angles, side, name, rest, 0.05)
        elif rng.random() < hang:
            relaxed_arm(rng, angles, side)
        elif choice < 0.55:
            other = GESTURES[rng.integers(len(GESTURES))]
            gesture(rng, angles, side, other, rest, 0.08)
        else:
            free_arm(rng, angles, side, rest)


def close_fists(rng: Rng, angles: Array) -> None:
    """Fingers around something."""
    for side in SIDES:
        angles[side_joint(side, "hand"), 0] = rng.uniform(34, 55)


def draw_hands(rng: Rng, angles: Array) -> None:
    """Forearm turn, wrist and finger curl: independent of everything but fists already closed."""
    for side in SIDES:
        angles[side_joint(side, "elbow"), 1] = rng.normal(0, 28)
        angles[side_joint(side, "wrist"), :2] = rng.normal(4, 15), rng.normal(4, 9)
        curl = abs(rng.normal(14, 13))
        if angles[side_joint(side, "hand"), 0] == 0.0:
            angles[side_joint(side, "hand"), 0] = curl


def draw_trunk(rng: Rng, angles: Array, flexion: float, spread: float = 1.0) -> None:
    """Spread a whole-spine flexion (degrees), bend and twist over three joints; turn the head."""
    twist, bend = rng.normal(0, 9 * spread), rng.normal(0, 6 * spread)
    for joint, share in zip(SPINE, (0.4, 0.35, 0.25), strict=True):
        angles[joint] = twist * share, flexion * share, bend * share
    look, nod, tilt = rng.normal(0, 20), rng.normal(2, 13), rng.normal(0, 8)
    angles[NECK] = 0.5 * look, 0.5 * nod, 0.5 * tilt
    angles[HEAD] = 0.5 * look, 0.5 * nod, 0.5 * tilt


def flat_feet(rng: Rng, angles: Array, lean: float) -> None:
    """Turn the ankles so that the soles are level, as far as they reach."""
    for side in SIDES:
        pitch = lean - angles[side_joint(side, "hip"), 0] + angles[side_joint(side, "knee"), 0]
        angles[side_joint(side, "ankle")] = (
            -pitch + rng.normal(0, 4),
            rng.normal(4, 6),
            rng.normal(0, 3),
        )
        angles[side_joint(side, "foot"), 0] = 0.0


def standing_legs(rng: Rng, angles: Array) -> None:
    stance = abs(rng.normal(4, 6))
    for side in SIDES:
        hip = bell(rng, 3, 7, -18, 30)
        angles[side_joint(side, "hip")] = hip, stance + rng.normal(0, 3), rng.normal(6, 8)
        angles[side_joint(side, "knee"), 0] = max(0.0, hip) + abs(rng.normal(0, 6))
    if rng.random() < 0.3:  # the weight on one leg
        side = SIDES[rng.integers(2)]
        bend = rng.uniform(10, 40)
        angles[side_joint(side, "hip"), 0] += 0.6 * bend
        angles[side_joint(side, "knee"), 0] += 1.1 * bend


def gait(phase: float, stride: float, bounce: float) -> Array:
    """One instant of a walk or run.

    Args:
        phase: radians; a whole cycle (two steps) is 2 pi.
        stride: 1 for a walk, about 1.8 for a run.
        bounce: 0 for a walk's straight arms and low knees, 1 for a run's.

    Returns:
        [24, 3] degrees, the same function of phase for both sides, half a cycle apart.
    """
    angles = np.zeros((len(JOINT), 3))
    for side, offset in zip(SIDES, (0.0, np.pi), strict=True):
        p = phase + offset
        swing = max(0.0, float(np.sin(p + 1.9)))
        hip = 6 + 24 * stride * np.sin(p)
        knee = 6 + (52 + 28 * bounce) * swing**1.3 * min(stride, 1.5) + 12 * bounce
        angles[side_joint(side, "hip")] = hip, 2.0, 4.0
        angles[side_joint(side, "knee"), 0] = knee
        angles[side_joint(side, "ankle"), 0] = 10 * stride * float(np.sin(p + 3.6))
        angles[side_joint(side, "foot"), 0] = (
            20 * max(0.0, float(-np.sin(p + 0.4))) * min(stride, 1.0)
        )
        angles[side_joint(side, "shoulder")] = 4 - 22 * stride * np.sin(p), 9 + 4 * bounce, 6.0
        angles[side_joint(side, "elbow"), 0] = 16 + 66 * bounce - 12 * np.sin(p)
        angles[side_joint(side, "collar"), :2] = -4 * np.sin(p), 0.0
    pelvis_turn = 5 * stride * float(np.sin(phase))
    for joint, share in zip(SPINE, (0.4, 0.35, 0.25), strict=True):
        angles[joint] = pelvis_turn * 1.6 * share, (4 + 8 * bounce) * share, 0.0
    angles[NECK, 0] = -pelvis_turn * 0.4
    return angles


def posed_joints(angles: Array, rest: Array) -> Array:
    """[24, 3] float64 joints, m, of a pose with an upright root, for rest joints [24, 3]."""
    _, joints = forward_kinematics(angles_to_rotmats(angles)[None], rest[None])
    return joints[0].astype(np.float64)
