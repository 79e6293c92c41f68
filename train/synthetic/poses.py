"""Families of human poses, drawn within joint limits and without limbs inside the body.

A family draws anatomical angles (`anatomy.py`) and the attitude of the root in a world with y up;
arms are mostly placed by where the hand is (hip, chin, pocket, a random point in reach), because
hands have purposes and shoulder angles do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba as nb
import numpy as np

from glnet_rt.body_model import forward_kinematics
from glnet_rt.contracts import Array
from train.synthetic.anatomy import (
    JOINT,
    X,
    Y,
    Z,
    angles_to_rotmats,
    arm_angles_for,
    clip_to_limits,
    turn,
)

Rng = np.random.Generator
SPINE = (JOINT["spine1"], JOINT["spine2"], JOINT["spine3"])
NECK, HEAD = JOINT["neck"], JOINT["head"]
SIDES = ("left", "right")
_ATTEMPTS = 10  # a draft with a limb inside the body is drawn again this often


@dataclass(frozen=True, eq=False)
class Pose:
    """One pose.

    Attributes:
        angles: [24, 3] float64, degrees, see `anatomy`; within limits.
        root: [3, 3] float64, world-from-body attitude of the pelvis, y up, before the yaw.
        kind: index into `FAMILY_NAMES`.
    """

    angles: Array
    root: Array
    kind: int

    @property
    def rotmats(self) -> Array:
        """[24, 3, 3] float64 local rotations; index 0 is the root's attitude."""
        rotmats = angles_to_rotmats(self.angles)
        rotmats[0] = self.root
        return rotmats


def _j(side: str, joint: str) -> int:
    return JOINT[f"{side}_{joint}"]


def _bell(rng: Rng, mean: float, sd: float, low: float, high: float) -> float:
    """A normal draw, clipped."""
    return float(min(max(rng.normal(mean, sd), low), high))


# Wrist positions of the left arm relative to its shoulder, in arm lengths (upper arm + forearm),
# body axes, with the direction of the elbow.
_WRIST_TARGETS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
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
_GESTURES = tuple(_WRIST_TARGETS)


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
    shoulder, elbow, wrist = (rest[_j("left", n)] for n in ("shoulder", "elbow", "wrist"))
    upper, fore = float(np.linalg.norm(elbow - shoulder)), float(np.linalg.norm(wrist - elbow))
    reach = target * (upper + fore)
    protraction, elevation = _collar_for(reach / max(float(np.linalg.norm(reach)), 1e-6))
    protraction += collar_noise[0]
    elevation += collar_noise[1]
    angles[_j(side, "collar"), :2] = protraction, elevation
    collar = turn(Y, -protraction) @ turn(Z, elevation)
    solved = arm_angles_for(collar.T @ reach, collar.T @ pole, upper, fore)
    angles[_j(side, "shoulder")] = solved[:3]
    angles[_j(side, "elbow"), 0] = solved[3]


def _place_noisily(
    rng: Rng, angles: Array, side: str, target: Array, pole: Array, rest: Array
) -> None:
    collar_noise = (float(rng.normal(0, 3)), float(rng.normal(0, 3)))
    place_wrist(angles, side, target, pole, rest, collar_noise)


def _collar_for(direction: Array) -> tuple[float, float]:
    """Protraction and elevation, degrees, of a collar whose arm points along a unit `direction`."""
    elevation = 32.0 * max(float(direction[1]), 0.0) ** 0.8 - 3.0 * max(-float(direction[1]), 0.0)
    return 12.0 * float(direction[2]) - 4.0 * max(float(direction[0]), 0.0), elevation


def _hang(rng: Rng, angles: Array, side: str) -> None:
    """A relaxed arm beside the body."""
    angles[_j(side, "collar"), :2] = rng.normal(0, 3), rng.normal(-1, 3)
    angles[_j(side, "shoulder")] = rng.normal(2, 9), abs(rng.normal(9, 7)) + 3, rng.normal(0, 18)
    angles[_j(side, "elbow"), 0] = abs(rng.normal(14, 12))


def _gesture(rng: Rng, angles: Array, side: str, name: str, rest: Array, spread: float) -> None:
    target, pole = (np.array(v) for v in _WRIST_TARGETS[name])
    target = target + rng.normal(0, spread, 3)
    _place_noisily(rng, angles, side, target, pole + rng.normal(0, 0.25, 3), rest)


def _free_arm(rng: Rng, angles: Array, side: str, rest: Array) -> None:
    """The hand anywhere in reach, rather in front than behind and rather out than across."""
    direction = rng.normal(0, 1, 3) + np.array([0.35, -0.1, 0.55])
    target = direction / np.linalg.norm(direction) * rng.uniform(0.45, 0.99)
    pole = np.array([0.8, -0.8, -0.4]) + rng.normal(0, 0.5, 3)
    _place_noisily(rng, angles, side, target, pole, rest)


def _arms(rng: Rng, angles: Array, rest: Array, hang: float, both: float) -> None:
    """Fill both arms: hanging with probability `hang`, else gestures, alike with `both`."""
    symmetric = rng.random() < both
    name = _GESTURES[rng.integers(len(_GESTURES))]
    for side in SIDES:
        choice = rng.random()
        if symmetric and choice < 0.9:
            _gesture(rng, angles, side, name, rest, 0.05)
        elif rng.random() < hang:
            _hang(rng, angles, side)
        elif choice < 0.55:
            other = _GESTURES[rng.integers(len(_GESTURES))]
            _gesture(rng, angles, side, other, rest, 0.08)
        else:
            _free_arm(rng, angles, side, rest)


def _hands(rng: Rng, angles: Array) -> None:
    """Forearm turn, wrist and finger curl: independent of everything else."""
    for side in SIDES:
        angles[_j(side, "elbow"), 1] = rng.normal(0, 28)
        angles[_j(side, "wrist"), :2] = rng.normal(4, 15), rng.normal(4, 9)
        angles[_j(side, "hand"), :2] = abs(rng.normal(14, 13)), 0.0


def _trunk(rng: Rng, angles: Array, flexion: float, spread: float = 1.0) -> None:
    """Spread a whole-spine flexion (degrees), bend and twist over three joints; turn the head."""
    twist, bend = rng.normal(0, 9 * spread), rng.normal(0, 6 * spread)
    for joint, share in zip(SPINE, (0.4, 0.35, 0.25), strict=True):
        angles[joint] = twist * share, flexion * share, bend * share
    look, nod, tilt = rng.normal(0, 20), rng.normal(2, 13), rng.normal(0, 8)
    angles[NECK] = 0.5 * look, 0.5 * nod, 0.5 * tilt
    angles[HEAD] = 0.5 * look, 0.5 * nod, 0.5 * tilt


def _flat_feet(rng: Rng, angles: Array, lean: float) -> None:
    """Turn the ankles so that the soles are level, as far as they reach."""
    for side in SIDES:
        pitch = lean - angles[_j(side, "hip"), 0] + angles[_j(side, "knee"), 0]
        angles[_j(side, "ankle")] = -pitch + rng.normal(0, 4), rng.normal(4, 6), rng.normal(0, 3)
        angles[_j(side, "foot"), 0] = 0.0


def _standing_legs(rng: Rng, angles: Array) -> None:
    stance = abs(rng.normal(4, 6))
    for side in SIDES:
        hip = _bell(rng, 3, 7, -18, 30)
        angles[_j(side, "hip")] = hip, stance + rng.normal(0, 3), rng.normal(6, 8)
        angles[_j(side, "knee"), 0] = max(0.0, hip) + abs(rng.normal(0, 6))
    if rng.random() < 0.3:  # the weight on one leg
        side = SIDES[rng.integers(2)]
        bend = rng.uniform(10, 40)
        angles[_j(side, "hip"), 0] += 0.6 * bend
        angles[_j(side, "knee"), 0] += 1.1 * bend


def _stand(rng: Rng, angles: Array, rest: Array) -> Array:
    lean = rng.normal(0, 3)
    _trunk(rng, angles, rng.normal(4, 8))
    _standing_legs(rng, angles)
    _flat_feet(rng, angles, lean)
    _arms(rng, angles, rest, hang=0.62, both=0.18)
    return turn(X, lean) @ turn(Z, rng.normal(0, 2))


def _gesturing(rng: Rng, angles: Array, rest: Array) -> Array:
    lean = rng.normal(1, 5)
    _trunk(rng, angles, rng.normal(6, 11), 1.4)
    _standing_legs(rng, angles)
    _flat_feet(rng, angles, lean)
    _arms(rng, angles, rest, hang=0.12, both=0.25)
    return turn(X, lean) @ turn(Z, rng.normal(0, 3))


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
        angles[_j(side, "hip")] = hip, 2.0, 4.0
        angles[_j(side, "knee"), 0] = knee
        angles[_j(side, "ankle"), 0] = 10 * stride * float(np.sin(p + 3.6))
        angles[_j(side, "foot"), 0] = 20 * max(0.0, float(-np.sin(p + 0.4))) * min(stride, 1.0)
        angles[_j(side, "shoulder")] = 4 - 22 * stride * np.sin(p), 9 + 4 * bounce, 6.0
        angles[_j(side, "elbow"), 0] = 16 + 66 * bounce - 12 * np.sin(p)
        angles[_j(side, "collar"), :2] = -4 * np.sin(p), 0.0
    pelvis_turn = 5 * stride * float(np.sin(phase))
    for joint, share in zip(SPINE, (0.4, 0.35, 0.25), strict=True):
        angles[joint] = pelvis_turn * 1.6 * share, (4 + 8 * bounce) * share, 0.0
    angles[NECK, 0] = -pelvis_turn * 0.4
    return angles


def _walk(rng: Rng, angles: Array, rest: Array) -> Array:
    return _moving(rng, angles, rest, rng.uniform(0.35, 1.25), 0.0)


def _run(rng: Rng, angles: Array, rest: Array) -> Array:
    return _moving(rng, angles, rest, rng.uniform(1.2, 2.2), rng.uniform(0.5, 1.1))


def _moving(rng: Rng, angles: Array, rest: Array, stride: float, bounce: float) -> Array:
    angles += gait(rng.uniform(0, 2 * np.pi), stride, bounce)
    angles += rng.normal(0, 3.5, angles.shape)
    if rng.random() < 0.25:  # carries, phones, waves
        name = _GESTURES[rng.integers(len(_GESTURES))]
        _gesture(rng, angles, SIDES[rng.integers(2)], name, rest, 0.06)
    angles[NECK] += rng.normal(0, (10, 6, 4))
    angles[HEAD] += rng.normal(0, (10, 6, 4))
    return turn(X, 3 + 9 * bounce + rng.normal(0, 3))


def _sit(rng: Rng, angles: Array, rest: Array) -> Array:
    lean = _bell(rng, -4, 12, -28, 30)
    _trunk(rng, angles, rng.normal(14, 12))
    spread = rng.normal(9, 9)
    hips = _bell(rng, 88 + lean, 11, 60, 120)
    knees = _bell(rng, 86, 20, 15, 125)
    for side in SIDES:
        angles[_j(side, "hip")] = (
            hips + rng.normal(0, 6),
            spread + rng.normal(0, 4),
            rng.normal(3, 9),
        )
        angles[_j(side, "knee"), 0] = knees + rng.normal(0, 9)
    if rng.random() < 0.15:  # one leg over the other
        side = SIDES[rng.integers(2)]
        angles[_j(side, "hip")] = hips + 17, -12.0, 12.0
        angles[_j(side, "knee"), 0] = 95 + rng.normal(0, 8)
    _flat_feet(rng, angles, lean)
    if rng.random() < 0.35:
        for side in SIDES:
            _gesture(rng, angles, side, "knee", rest, 0.07)
    else:
        _arms(rng, angles, rest, hang=0.15, both=0.3)
    return turn(X, lean) @ turn(Z, rng.normal(0, 3))


def _crouch(rng: Rng, angles: Array, rest: Array) -> Array:
    depth = rng.uniform(0.25, 1.0)
    lean = 12 + 28 * depth * rng.random()
    spread = abs(rng.normal(12, 10))
    for side in SIDES:
        hip = 118 * depth + rng.normal(0, 6)
        angles[_j(side, "hip")] = hip, spread + rng.normal(0, 3), rng.normal(10, 8)
        angles[_j(side, "knee"), 0] = 132 * depth + rng.normal(0, 8)
    if rng.random() < 0.25:  # kneeling on one knee
        side = SIDES[rng.integers(2)]
        angles[_j(side, "hip"), 0] = rng.normal(5, 8)
        angles[_j(side, "knee"), 0] = rng.normal(95, 10)
        lean *= 0.4
    _trunk(rng, angles, rng.normal(18, 12))
    _flat_feet(rng, angles, lean)
    _arms(rng, angles, rest, hang=0.1, both=0.45)
    return turn(X, lean) @ turn(Z, rng.normal(0, 3))


def _reach(rng: Rng, angles: Array, rest: Array) -> Array:
    lean = rng.normal(8, 10)
    _trunk(rng, angles, rng.normal(10, 14), 1.6)
    _standing_legs(rng, angles)
    _flat_feet(rng, angles, lean)
    for side in SIDES:
        if rng.random() < 0.75:
            direction = np.array(
                [rng.normal(0.2, 0.45), rng.normal(0.25, 0.7), rng.normal(0.7, 0.5)]
            )
            target = direction / np.linalg.norm(direction) * rng.uniform(0.85, 1.0)
            _place_noisily(rng, angles, side, target, np.array([0.7, -0.8, -0.2]), rest)
        else:
            _hang(rng, angles, side)
    return turn(X, lean) @ turn(Z, rng.normal(0, 5))


def _bend(rng: Rng, angles: Array, rest: Array) -> Array:
    lean = rng.uniform(15, 70)
    _trunk(rng, angles, rng.uniform(15, 70))
    for side in SIDES:
        hip = lean + rng.normal(4, 8)
        angles[_j(side, "hip")] = hip, abs(rng.normal(5, 6)), rng.normal(5, 7)
        angles[_j(side, "knee"), 0] = abs(rng.normal(14, 16))
        angles[_j(side, "hip"), 0] += 0.5 * angles[_j(side, "knee"), 0]
    _flat_feet(rng, angles, lean)
    for side in SIDES:  # the hands work below the shoulders
        target = np.array([rng.normal(-0.05, 0.2), rng.normal(-0.45, 0.3), rng.normal(0.6, 0.3)])
        _place_noisily(rng, angles, side, target, np.array([0.8, -0.3, -0.5]), rest)
    return turn(X, lean)


def _lying(rng: Rng, angles: Array, rest: Array) -> Array:
    _trunk(rng, angles, rng.normal(6, 12))
    for side in SIDES:
        hip = _bell(rng, 18, 26, -10, 100)
        angles[_j(side, "hip")] = hip, abs(rng.normal(6, 8)), rng.normal(5, 9)
        angles[_j(side, "knee"), 0] = max(0.0, hip * rng.uniform(0.6, 1.5))
        angles[_j(side, "ankle"), 0] = rng.normal(20, 12)
    _arms(rng, angles, rest, hang=0.45, both=0.2)
    roll = (0.0, 180.0, 90.0, -90.0)[rng.choice(4, p=(0.45, 0.25, 0.15, 0.15))]
    return turn(X, -90 + rng.normal(0, 8)) @ turn(Y, roll + rng.normal(0, 14))


def _wide(rng: Rng, angles: Array, rest: Array) -> Array:
    """Every joint on its own: little sense, much variety."""
    _trunk(rng, angles, rng.normal(12, 20), 1.6)
    for side in SIDES:
        hip = _bell(rng, 30, 34, -22, 115)
        angles[_j(side, "hip")] = hip, _bell(rng, 14, 14, -10, 52), rng.normal(5, 14)
        angles[_j(side, "knee"), 0] = abs(rng.normal(30, 40))
        angles[_j(side, "ankle")] = rng.normal(8, 12), rng.normal(0, 7), rng.normal(0, 5)
        _free_arm(rng, angles, side, rest)
    return turn(X, rng.normal(5, 16)) @ turn(Z, rng.normal(0, 10))


def _acrobatic(rng: Rng, angles: Array, rest: Array) -> Array:
    """Kicks, leaps, splits and bridges."""
    root = _wide(rng, angles, rest)
    side, other = SIDES if rng.random() < 0.5 else SIDES[::-1]
    angles[_j(side, "hip")] = rng.uniform(50, 118), _bell(rng, 15, 15, -10, 50), rng.normal(5, 12)
    angles[_j(side, "knee"), 0] = abs(rng.normal(12, 24))
    angles[_j(other, "hip")] = _bell(rng, -5, 14, -24, 40), abs(rng.normal(6, 8)), rng.normal(8, 10)
    angles[_j(other, "knee"), 0] = abs(rng.normal(12, 20))
    return turn(X, rng.normal(-8, 26)) @ turn(Z, rng.normal(0, 22)) @ root


def _lunge(rng: Rng, angles: Array, rest: Array) -> Array:
    """Fencer's lunge; seen in the held-out split alone."""
    lean = rng.normal(8, 8)
    front, back = SIDES if rng.random() < 0.5 else SIDES[::-1]
    depth = rng.uniform(0.4, 1.0)
    _trunk(rng, angles, rng.normal(6, 8))
    angles[_j(front, "hip")] = 25 + 65 * depth + lean, rng.normal(4, 4), rng.normal(6, 6)
    angles[_j(front, "knee"), 0] = 25 + 65 * depth
    angles[_j(back, "hip")] = -22 * depth + 0.5 * lean, rng.normal(6, 4), rng.normal(10, 8)
    angles[_j(back, "knee"), 0] = 8 + 25 * abs(rng.normal())
    _flat_feet(rng, angles, lean)
    _arms(rng, angles, rest, hang=0.2, both=0.4)
    return turn(X, lean)


Family = Callable[[Rng, Array, Array], Array]
_FAMILIES: dict[str, tuple[Family, float, float]] = {  # function, share in train, in held-out
    "stand": (_stand, 0.21, 0.18),
    "gesture": (_gesturing, 0.18, 0.16),
    "walk": (_walk, 0.13, 0.12),
    "run": (_run, 0.06, 0.06),
    "sit": (_sit, 0.10, 0.10),
    "crouch": (_crouch, 0.06, 0.06),
    "reach": (_reach, 0.07, 0.07),
    "bend": (_bend, 0.05, 0.05),
    "lying": (_lying, 0.03, 0.03),
    "wide": (_wide, 0.08, 0.08),
    "acrobatic": (_acrobatic, 0.03, 0.03),
    "lunge": (_lunge, 0.0, 0.06),
}
FAMILY_NAMES = tuple(_FAMILIES)
HELD_OUT_FAMILIES = tuple(name for name, (_, train, _) in _FAMILIES.items() if train == 0)
_SHARES = {
    "train": np.array([f[1] for f in _FAMILIES.values()]),
    "heldout": np.array([f[2] for f in _FAMILIES.values()]),
}


def sample_pose(rng: Rng, rest: Array, split: str) -> Pose:
    """Draw a family by the split's shares, then a pose of it whose limbs keep clear of the body.

    Args:
        rest: [24, 3] rest joints, m, of the body that will wear the pose.
        split: `train` or `heldout`.
    """
    shares = _SHARES[split]
    kind = int(rng.choice(len(shares), p=shares / shares.sum()))
    return sample_family(rng, rest, kind)


def sample_family(rng: Rng, rest: Array, kind: int) -> Pose:
    """A pose of family `kind`; the last draft where none of several is free of collisions."""
    family = _FAMILIES[FAMILY_NAMES[kind]][0]
    rest = np.ascontiguousarray(rest[: len(JOINT)], dtype=np.float64)
    for _ in range(_ATTEMPTS):
        angles = np.zeros((len(JOINT), 3))
        root = family(rng, angles, rest)
        _hands(rng, angles)
        angles = clip_to_limits(angles)
        if penetration(_joints(angles, rest)) <= 0:
            break
    return Pose(angles, root, kind)


def _joints(angles: Array, rest: Array) -> Array:
    """[24, 3] float64 joints, m, of a pose with an upright root, for rest joints [24, 3]."""
    _, joints = forward_kinematics(angles_to_rotmats(angles)[None], rest[None])
    return joints[0].astype(np.float64)


# Pairs of capsules that must not meet: two joints each, and the least distance of their axes, m.
_CLEARANCES = (
    ("left_knee", "left_ankle", "right_knee", "right_ankle", 0.075),
    ("left_hip", "left_knee", "right_knee", "right_ankle", 0.09),
    ("right_hip", "right_knee", "left_knee", "left_ankle", 0.09),
    ("left_elbow", "left_hand", "pelvis", "spine3", 0.135),
    ("right_elbow", "right_hand", "pelvis", "spine3", 0.135),
    ("left_elbow", "left_hand", "spine3", "neck", 0.11),
    ("right_elbow", "right_hand", "spine3", "neck", 0.11),
    ("left_wrist", "left_hand", "neck", "head", 0.10),
    ("right_wrist", "right_hand", "neck", "head", 0.10),
    ("left_elbow", "left_hand", "left_hip", "left_knee", 0.075),
    ("left_elbow", "left_hand", "right_hip", "right_knee", 0.075),
    ("right_elbow", "right_hand", "right_hip", "right_knee", 0.075),
    ("right_elbow", "right_hand", "left_hip", "left_knee", 0.075),
    ("left_elbow", "left_hand", "right_elbow", "right_hand", 0.06),
    ("left_knee", "left_ankle", "spine2", "spine3", 0.17),
    ("right_knee", "right_ankle", "spine2", "spine3", 0.17),
)  # fmt: skip
_PAIRS = np.array([[JOINT[n] for n in row[:4]] for row in _CLEARANCES])
_LEAST = np.array([row[4] for row in _CLEARANCES])


@nb.njit(cache=True, nogil=True)
def _segment_distance(p: Array, q: Array, r: Array, s: Array) -> float:
    """Least distance of the segments p-q and r-s (Ericson, Real-Time Collision Detection)."""
    d1, d2, gap = q - p, s - r, p - r
    a, e, f = (d1 * d1).sum(), (d2 * d2).sum(), (d2 * gap).sum()
    b, c = (d1 * d2).sum(), (d1 * gap).sum()
    denominator = a * e - b * b
    along = min(max((b * f - c * e) / denominator, 0.0), 1.0) if denominator > 1e-12 else 0.0
    other = (b * along + f) / e
    if other < 0.0:
        other, along = 0.0, min(max(-c / a, 0.0), 1.0)
    elif other > 1.0:
        other, along = 1.0, min(max((b - c) / a, 0.0), 1.0)
    between = gap + d1 * along - d2 * other
    return float(np.sqrt((between * between).sum()))


@nb.njit(cache=True, nogil=True)
def _deepest(joints: Array, pairs: Array, least: Array) -> float:
    worst = -1.0
    for i in range(pairs.shape[0]):
        p, q, r, s = pairs[i]
        worst = max(worst, least[i] - _segment_distance(joints[p], joints[q], joints[r], joints[s]))
    return worst


def penetration(joints: Array) -> float:
    """How deep, m, the worst pair of limbs of posed joints [24, 3] overlaps; <= 0: none."""
    return float(_deepest(joints, _PAIRS, _LEAST))
