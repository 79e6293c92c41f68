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

from glnet_rt.contracts import Array
from train.synthetic import actions
from train.synthetic.anatomy import JOINT, X, Y, Z, angles_to_rotmats, clip_to_limits, turn
from train.synthetic.limbs import (
    GESTURES,
    HEAD,
    NECK,
    SIDES,
    bell,
    draw_arms,
    draw_hands,
    draw_trunk,
    flat_feet,
    free_arm,
    gait,
    gesture,
    place_noisily,
    posed_joints,
    relaxed_arm,
    side_joint,
    standing_legs,
)

Rng = np.random.Generator
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


def _stand(rng: Rng, angles: Array, rest: Array) -> Array:
    lean = rng.normal(0, 3)
    draw_trunk(rng, angles, rng.normal(4, 8))
    standing_legs(rng, angles)
    flat_feet(rng, angles, lean)
    draw_arms(rng, angles, rest, hang=0.62, both=0.18)
    return turn(X, lean) @ turn(Z, rng.normal(0, 2))


def _gesturing(rng: Rng, angles: Array, rest: Array) -> Array:
    lean = rng.normal(1, 5)
    draw_trunk(rng, angles, rng.normal(6, 11), 1.4)
    standing_legs(rng, angles)
    flat_feet(rng, angles, lean)
    draw_arms(rng, angles, rest, hang=0.12, both=0.25)
    return turn(X, lean) @ turn(Z, rng.normal(0, 3))


def _walk(rng: Rng, angles: Array, rest: Array) -> Array:
    return _moving(rng, angles, rest, rng.uniform(0.35, 1.25), 0.0)


def _run(rng: Rng, angles: Array, rest: Array) -> Array:
    return _moving(rng, angles, rest, rng.uniform(1.2, 2.2), rng.uniform(0.5, 1.1))


def _moving(rng: Rng, angles: Array, rest: Array, stride: float, bounce: float) -> Array:
    angles += gait(rng.uniform(0, 2 * np.pi), stride, bounce)
    angles += rng.normal(0, 3.5, angles.shape)
    if rng.random() < 0.25:  # carries, phones, waves
        name = GESTURES[rng.integers(len(GESTURES))]
        gesture(rng, angles, SIDES[rng.integers(2)], name, rest, 0.06)
    angles[NECK] += rng.normal(0, (10, 6, 4))
    angles[HEAD] += rng.normal(0, (10, 6, 4))
    return turn(X, 3 + 9 * bounce + rng.normal(0, 3))


def _sit(rng: Rng, angles: Array, rest: Array) -> Array:
    lean = bell(rng, -4, 12, -28, 30)
    draw_trunk(rng, angles, rng.normal(14, 12))
    spread = rng.normal(9, 9)
    hips = bell(rng, 88 + lean, 11, 60, 120)
    knees = bell(rng, 86, 20, 15, 125)
    for side in SIDES:
        angles[side_joint(side, "hip")] = (
            hips + rng.normal(0, 6),
            spread + rng.normal(0, 4),
            rng.normal(3, 9),
        )
        angles[side_joint(side, "knee"), 0] = knees + rng.normal(0, 9)
    if rng.random() < 0.15:  # one leg over the other
        side = SIDES[rng.integers(2)]
        angles[side_joint(side, "hip")] = hips + 17, -12.0, 12.0
        angles[side_joint(side, "knee"), 0] = 95 + rng.normal(0, 8)
    flat_feet(rng, angles, lean)
    if rng.random() < 0.35:
        for side in SIDES:
            gesture(rng, angles, side, "knee", rest, 0.07)
    else:
        draw_arms(rng, angles, rest, hang=0.15, both=0.3)
    return turn(X, lean) @ turn(Z, rng.normal(0, 3))


def _crouch(rng: Rng, angles: Array, rest: Array) -> Array:
    depth = rng.uniform(0.25, 1.0)
    lean = 12 + 28 * depth * rng.random()
    spread = abs(rng.normal(12, 10))
    for side in SIDES:
        hip = 118 * depth + rng.normal(0, 6)
        angles[side_joint(side, "hip")] = hip, spread + rng.normal(0, 3), rng.normal(10, 8)
        angles[side_joint(side, "knee"), 0] = 132 * depth + rng.normal(0, 8)
    if rng.random() < 0.25:  # kneeling on one knee
        side = SIDES[rng.integers(2)]
        angles[side_joint(side, "hip"), 0] = rng.normal(5, 8)
        angles[side_joint(side, "knee"), 0] = rng.normal(95, 10)
        lean *= 0.4
    draw_trunk(rng, angles, rng.normal(18, 12))
    flat_feet(rng, angles, lean)
    draw_arms(rng, angles, rest, hang=0.1, both=0.45)
    return turn(X, lean) @ turn(Z, rng.normal(0, 3))


def _reach(rng: Rng, angles: Array, rest: Array) -> Array:
    lean = rng.normal(8, 10)
    draw_trunk(rng, angles, rng.normal(10, 14), 1.6)
    standing_legs(rng, angles)
    flat_feet(rng, angles, lean)
    for side in SIDES:
        if rng.random() < 0.75:
            direction = np.array(
                [rng.normal(0.2, 0.45), rng.normal(0.25, 0.7), rng.normal(0.7, 0.5)]
            )
            target = direction / np.linalg.norm(direction) * rng.uniform(0.85, 1.0)
            place_noisily(rng, angles, side, target, np.array([0.7, -0.8, -0.2]), rest)
        else:
            relaxed_arm(rng, angles, side)
    return turn(X, lean) @ turn(Z, rng.normal(0, 5))


def _bend(rng: Rng, angles: Array, rest: Array) -> Array:
    lean = rng.uniform(15, 70)
    draw_trunk(rng, angles, rng.uniform(15, 70))
    for side in SIDES:
        hip = lean + rng.normal(4, 8)
        angles[side_joint(side, "hip")] = hip, abs(rng.normal(5, 6)), rng.normal(5, 7)
        angles[side_joint(side, "knee"), 0] = abs(rng.normal(14, 16))
        angles[side_joint(side, "hip"), 0] += 0.5 * angles[side_joint(side, "knee"), 0]
    flat_feet(rng, angles, lean)
    for side in SIDES:  # the hands work below the shoulders
        target = np.array([rng.normal(-0.05, 0.2), rng.normal(-0.45, 0.3), rng.normal(0.6, 0.3)])
        place_noisily(rng, angles, side, target, np.array([0.8, -0.3, -0.5]), rest)
    return turn(X, lean)


def _lying(rng: Rng, angles: Array, rest: Array) -> Array:
    draw_trunk(rng, angles, rng.normal(6, 12))
    for side in SIDES:
        hip = bell(rng, 18, 26, -10, 100)
        angles[side_joint(side, "hip")] = hip, abs(rng.normal(6, 8)), rng.normal(5, 9)
        angles[side_joint(side, "knee"), 0] = max(0.0, hip * rng.uniform(0.6, 1.5))
        angles[side_joint(side, "ankle"), 0] = rng.normal(20, 12)
    draw_arms(rng, angles, rest, hang=0.45, both=0.2)
    roll = (0.0, 180.0, 90.0, -90.0)[rng.choice(4, p=(0.45, 0.25, 0.15, 0.15))]
    return turn(X, -90 + rng.normal(0, 8)) @ turn(Y, roll + rng.normal(0, 14))


def _wide(rng: Rng, angles: Array, rest: Array) -> Array:
    """Every joint on its own: little sense, much variety."""
    draw_trunk(rng, angles, rng.normal(12, 20), 1.6)
    for side in SIDES:
        hip = bell(rng, 30, 34, -22, 115)
        angles[side_joint(side, "hip")] = hip, bell(rng, 14, 14, -10, 52), rng.normal(5, 14)
        angles[side_joint(side, "knee"), 0] = abs(rng.normal(30, 40))
        angles[side_joint(side, "ankle")] = rng.normal(8, 12), rng.normal(0, 7), rng.normal(0, 5)
        free_arm(rng, angles, side, rest)
    return turn(X, rng.normal(5, 16)) @ turn(Z, rng.normal(0, 10))


def _acrobatic(rng: Rng, angles: Array, rest: Array) -> Array:
    """Kicks, leaps, splits and bridges."""
    root = _wide(rng, angles, rest)
    side, other = SIDES if rng.random() < 0.5 else SIDES[::-1]
    angles[side_joint(side, "hip")] = (
        rng.uniform(50, 118),
        bell(rng, 15, 15, -10, 50),
        rng.normal(5, 12),
    )
    angles[side_joint(side, "knee"), 0] = abs(rng.normal(12, 24))
    angles[side_joint(other, "hip")] = (
        bell(rng, -5, 14, -24, 40),
        abs(rng.normal(6, 8)),
        rng.normal(8, 10),
    )
    angles[side_joint(other, "knee"), 0] = abs(rng.normal(12, 20))
    return turn(X, rng.normal(-8, 26)) @ turn(Z, rng.normal(0, 22)) @ root


def _lunge(rng: Rng, angles: Array, rest: Array) -> Array:
    """Fencer's lunge; seen in the held-out split alone."""
    lean = rng.normal(8, 8)
    front, back = SIDES if rng.random() < 0.5 else SIDES[::-1]
    depth = rng.uniform(0.4, 1.0)
    draw_trunk(rng, angles, rng.normal(6, 8))
    angles[side_joint(front, "hip")] = 25 + 65 * depth + lean, rng.normal(4, 4), rng.normal(6, 6)
    angles[side_joint(front, "knee"), 0] = 25 + 65 * depth
    angles[side_joint(back, "hip")] = -22 * depth + 0.5 * lean, rng.normal(6, 4), rng.normal(10, 8)
    angles[side_joint(back, "knee"), 0] = 8 + 25 * abs(rng.normal())
    flat_feet(rng, angles, lean)
    draw_arms(rng, angles, rest, hang=0.2, both=0.4)
    return turn(X, lean)


def _blend(rng: Rng, angles: Array, rest: Array) -> Array:
    """On the way from one pose to another."""
    drafts = []
    for name in rng.choice(_BLENDED, 2, replace=False):
        draft = np.zeros_like(angles)
        root = _FAMILIES[name][0](rng, draft, rest)
        drafts.append((clip_to_limits(draft), root))
    angles[:], root = actions.blended(rng, *drafts)
    return root


Family = Callable[[Rng, Array, Array], Array]
_FAMILIES: dict[str, tuple[Family, float, float]] = {  # function, share in train, in held-out
    "stand": (_stand, 0.13, 0.11),
    "gesture": (_gesturing, 0.11, 0.10),
    "walk": (_walk, 0.09, 0.08),
    "run": (_run, 0.05, 0.05),
    "sit": (_sit, 0.08, 0.08),
    "crouch": (_crouch, 0.04, 0.04),
    "reach": (_reach, 0.04, 0.04),
    "bend": (_bend, 0.04, 0.04),
    "lying": (_lying, 0.03, 0.03),
    "wide": (_wide, 0.06, 0.06),
    "acrobatic": (_acrobatic, 0.03, 0.03),
    "kick": (actions.kick, 0.02, 0.02),
    "throw": (actions.throw, 0.03, 0.03),
    "swing": (actions.swing, 0.04, 0.03),
    "board": (actions.board, 0.03, 0.03),
    "ski": (actions.ski, 0.02, 0.02),
    "cycle": (actions.cycle, 0.03, 0.02),
    "jump": (actions.jump, 0.02, 0.02),
    "climb": (actions.climb, 0.02, 0.02),
    "floor": (actions.floor, 0.04, 0.04),
    "touch": (actions.touch, 0.05, 0.05),
    "blend": (_blend, 0.03, 0.03),
    "lunge": (_lunge, 0.0, 0.06),
}
_BLENDED = ("stand", "gesture", "walk", "run", "sit", "crouch", "reach", "bend", "kick", "throw",
            "swing", "board", "jump", "climb")  # fmt: skip
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
    """A pose of family `kind`; the last draft where none of several is free of collisions.

    Outside the held-out family, what `resembles_lunge` is never returned.
    """
    name = FAMILY_NAMES[kind]
    rest = np.ascontiguousarray(rest[: len(JOINT)], dtype=np.float64)
    drafts = 0
    while True:
        angles = np.zeros((len(JOINT), 3))
        root = _FAMILIES[name][0](rng, angles, rest)
        draw_hands(rng, angles)
        angles = clip_to_limits(angles)
        if name not in HELD_OUT_FAMILIES and resembles_lunge(angles):
            continue
        drafts += 1
        if drafts == _ATTEMPTS or penetration(posed_joints(angles, rest)) <= 0:
            return Pose(angles, root, kind)


def resembles_lunge(angles: Array) -> bool:
    """Whether a pose [24, 3] has the legs of the held-out family.

    One hip and knee bent about alike, so that the shank is upright, the other hip straight or
    stretched with a knee that is hardly bent, and neither leg to the side.
    """
    hips, knees = angles[_HIPS], angles[_KNEES, 0]
    if np.abs(hips[:, 1]).max() > 25:
        return False
    front = int(hips[1, 0] > hips[0, 0])
    back = 1 - front
    bent = hips[front, 0] > 38 and 40 < knees[front] < 105
    return bool(
        bent and abs(hips[front, 0] - knees[front]) < 32 and hips[back, 0] < 10 and knees[back] < 55
    )


_HIPS = [JOINT["left_hip"], JOINT["right_hip"]]
_KNEES = [JOINT["left_knee"], JOINT["right_knee"]]


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
