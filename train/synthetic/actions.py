"""What people do: strokes and throws as sequences of key poses, riding, climbing, sitting on the
floor, and hands that touch the body. Families of `poses.py`, with their conventions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glnet_rt.body_model import forward_kinematics
from glnet_rt.contracts import Array
from train.synthetic.anatomy import JOINT, X, Z, angles_to_rotmats, turn
from train.synthetic.limbs import (
    HEAD,
    NECK,
    SIDES,
    SPINE,
    close_fists,
    draw_arms,
    draw_trunk,
    flat_feet,
    place_noisily,
    place_wrist,
    relaxed_arm,
    side_joint,
    standing_legs,
)

Rng = np.random.Generator
_Three = tuple[float, float, float]
_OUT, _UP_OUT = (0.7, -0.6, -0.4), (0.9, 0.2, 0.2)  # where elbows point


@dataclass(frozen=True)
class _Key:
    """An instant of a movement, for a left-handed (left-footed) person; degrees, arm lengths.

    trunk: twist to the left, flexion, bend to the right. legs: hip flexion, abduction, outward
    rotation, knee. hands: wrist from its own shoulder as if it were a left one; `other_hand` None:
    it holds on beside the main one.
    """

    lean: float
    trunk: _Three
    main_leg: tuple[float, float, float, float]
    other_leg: tuple[float, float, float, float]
    main_hand: _Three
    other_hand: _Three | None
    pole: _Three = _OUT


_KICK = (
    _Key(5, (10, 8, 0), (-22, 8, 10, 75), (12, 4, 8, 22), (0.5, -0.5, -0.35), (0.6, -0.1, 0.5)),
    _Key(-4, (-5, 10, 0), (25, 8, 12, 18), (8, 6, 8, 22), (0.5, -0.4, -0.3), (0.6, -0.2, 0.3)),
    _Key(-14, (-15, 18, 0), (84, 5, 5, 10), (0, 4, 8, 12), (0.6, -0.3, -0.3), (0.3, -0.2, 0.6)),
)
_ROUND_KICK = (
    _Key(-4, (10, 10, 5), (70, 25, 10, 110), (5, 5, 15, 15), (-0.1, 0.0, 0.5), (0.1, -0.2, 0.5)),
    _Key(-16, (0, 5, 22), (75, 50, -10, 15), (-8, 8, 25, 10), (0.4, -0.4, 0.2), (-0.1, 0.0, 0.5)),
)
_THROW = (
    _Key(-6, (32, -4, 8), (-8, 10, 15, 25), (26, 8, 8, 25), (0.45, 0.45, -0.35), (0.2, 0.0, 0.75),
         (0.8, -0.3, -0.6)),
    _Key(10, (-10, 12, -8), (-12, 8, 12, 25), (30, 6, 6, 30), (0.25, 0.75, 0.5), (0.1, -0.5, 0.3),
         _UP_OUT),
    _Key(25, (-30, 30, -5), (-5, 8, 8, 40), (33, 5, 5, 35), (-0.35, -0.4, 0.7), (0.3, -0.7, -0.2)),
)  # fmt: skip
_SHOT = (
    _Key(6, (0, 8, 0), (30, 8, 8, 45), (28, 6, 8, 45), (-0.15, 0.15, 0.5), (-0.2, 0.1, 0.45)),
    _Key(0, (0, -4, 0), (2, 5, 6, 6), (2, 4, 6, 6), (0.05, 0.9, 0.35), (0.0, 0.7, 0.4), _UP_OUT),
)
_DIG = (
    _Key(18, (0, 18, 0), (60, 14, 10, 70), (50, 12, 8, 65), (-0.33, -0.4, 0.7), None),
    _Key(8, (0, 10, 0), (30, 12, 10, 40), (25, 10, 8, 35), (-0.35, 0.0, 0.75), None),
)
_SERVE = (
    _Key(-2, (15, -5, 10), (5, 8, 15, 25), (12, 6, 8, 15), (0.25, -0.75, -0.2), (0.05, 0.85, 0.4)),
    _Key(-6, (25, -12, 12), (24, 8, 15, 50), (25, 8, 8, 50), (0.25, 0.45, -0.35), (0.1, 0.9, 0.25),
         (0.9, 0.2, -0.6)),
    _Key(6, (-10, 5, -12), (-4, 6, 10, 6), (4, 5, 8, 6), (0.12, 0.95, 0.18), (-0.15, -0.3, 0.35),
         _UP_OUT),
    _Key(20, (-30, 25, -10), (-4, 6, 10, 35), (22, 6, 8, 25), (-0.5, -0.5, 0.5), (0.2, -0.5, 0.3)),
)  # fmt: skip
_FOREHAND = (
    _Key(8, (40, 8, 0), (30, 18, 10, 40), (28, 16, 10, 38), (0.6, -0.15, -0.5), (0.1, -0.05, 0.7)),
    _Key(8, (0, 10, 0), (25, 18, 10, 35), (30, 14, 10, 38), (0.75, -0.2, 0.5), (0.4, -0.1, 0.3)),
    _Key(6, (-35, 8, 0), (12, 16, 10, 30), (30, 12, 10, 36), (-0.45, 0.25, 0.5), (0.2, -0.2, 0.45),
         (0.5, 0.2, 0.6)),
)  # fmt: skip
_BACKHAND = (
    _Key(8, (-42, 10, 0), (28, 16, 10, 40), (24, 14, 10, 36), (-0.5, -0.3, 0.35), (0.1, -0.4, 0.2)),
    _Key(8, (0, 10, 0), (30, 14, 10, 38), (22, 16, 10, 34), (0.5, -0.25, 0.65), (0.5, -0.4, 0.0)),
    _Key(4, (20, 4, 0), (30, 12, 10, 34), (10, 14, 10, 28), (0.7, 0.4, 0.2), (0.5, -0.4, -0.4)),
)
_BAT = (
    _Key(12, (42, 12, 5), (22, 18, 8, 32), (22, 16, 8, 30), (-0.05, -0.05, 0.35), None),
    _Key(14, (0, 15, 0), (18, 20, 12, 28), (24, 18, 10, 26), (-0.35, -0.45, 0.65), None),
    _Key(4, (-40, 5, 0), (6, 16, 12, 24), (16, 14, 10, 14), (-0.66, 0.1, 0.35), None),
)
_GOLF = (
    _Key(18, (0, 24, 0), (38, 14, 8, 26), (38, 14, 8, 26), (-0.36, -0.72, 0.42), None),
    _Key(16, (42, 20, 8), (34, 14, 8, 28), (36, 14, 8, 24), (-0.1, -0.1, 0.55), None),
)


def kick(rng: Rng, angles: Array, rest: Array) -> Array:
    """A ball kicked, or a fighter's kick."""
    return _instant(rng, angles, rest, _KICK if rng.random() < 0.75 else _ROUND_KICK)


def throw(rng: Rng, angles: Array, rest: Array) -> Array:
    """A throw, a basketball shot, a volleyball dig."""
    return _instant(rng, angles, rest, (_THROW, _THROW, _SHOT, _DIG)[rng.integers(4)])


def swing(rng: Rng, angles: Array, rest: Array) -> Array:
    """Tennis, baseball, golf."""
    strokes = (_SERVE, _SERVE, _FOREHAND, _FOREHAND, _BACKHAND, _BAT, _BAT, _GOLF)
    close_fists(rng, angles)
    return _instant(rng, angles, rest, strokes[rng.integers(len(strokes))])


def _instant(rng: Rng, angles: Array, rest: Array, keys: tuple[_Key, ...]) -> Array:
    """Somewhere between two successive keys, by a left- or right-handed person."""
    first = int(rng.integers(len(keys) - 1))
    share = rng.uniform(0, 1)
    before, after = keys[first], keys[first + 1]

    def mix(name: str, spread: float) -> Array:
        a, b = np.array(getattr(before, name), float), np.array(getattr(after, name), float)
        mixed: Array = a + share * (b - a) + rng.normal(0, spread, a.shape)
        return mixed

    main, other = SIDES if rng.random() < 0.25 else SIDES[::-1]
    mirror = 1.0 if main == "left" else -1.0
    twist, flexion, bend = mix("trunk", 5.0) * (mirror, 1, mirror)
    for joint, part in zip(SPINE, (0.4, 0.35, 0.25), strict=True):
        angles[joint] = twist * part, flexion * part, bend * part
    look = -0.7 * twist + rng.normal(0, 10)  # the eyes stay on the ball
    nod, tilt = rng.normal(0, 8) - 0.3 * flexion, rng.normal(0, 6)
    angles[NECK] = angles[HEAD] = 0.5 * look, 0.5 * nod, 0.5 * tilt
    for side, name in ((main, "main_leg"), (other, "other_leg")):
        leg = mix(name, 6.0)
        angles[side_joint(side, "hip")] = leg[:3]
        angles[side_joint(side, "knee"), 0] = max(0.0, leg[3])
    lean = float(mix("lean", 3.0))
    flat_feet(rng, angles, lean)
    hand, pole = mix("main_hand", 0.06), mix("pole", 0.15)
    place_noisily(rng, angles, main, hand, pole, rest)
    if before.other_hand is None:
        apart = 2 * rest[JOINT["left_shoulder"], 0] / _arm_length(rest)
        beside = np.array([-hand[0] - apart, hand[1] - 0.16, hand[2]])
        place_noisily(rng, angles, other, beside, np.array(_OUT), rest)
    else:
        place_noisily(rng, angles, other, mix("other_hand", 0.08), np.array(_OUT), rest)
    return turn(X, lean) @ turn(Z, rng.normal(0, 4))


def _arm_length(rest: Array) -> float:
    shoulder, elbow, wrist = (rest[JOINT[f"left_{n}"]] for n in ("shoulder", "elbow", "wrist"))
    return float(np.linalg.norm(elbow - shoulder) + np.linalg.norm(wrist - elbow))


def board(rng: Rng, angles: Array, rest: Array) -> Array:
    """Sideways on a skateboard, a snowboard, a surfboard: soles level, arms out."""
    lean, spread, depth = rng.normal(8, 8), rng.uniform(9, 24), rng.uniform(0.1, 1.0)
    ahead = 1.0 if rng.random() < 0.5 else -1.0
    draw_trunk(rng, angles, rng.uniform(0, 35), 0.6)
    for joint in SPINE:
        angles[joint, 0] += ahead * rng.uniform(0, 12)
    angles[NECK, 0] = angles[HEAD, 0] = ahead * rng.uniform(5, 36)
    for side in SIDES:
        hip = 12 + 62 * depth + rng.normal(0, 5) + lean
        angles[side_joint(side, "hip")] = hip, spread + rng.normal(0, 2), rng.normal(14, 7)
        angles[side_joint(side, "knee"), 0] = 14 + 72 * depth + rng.normal(0, 6)
        target = np.array([rng.uniform(0.4, 0.9), rng.normal(-0.15, 0.35), rng.normal(0.15, 0.3)])
        place_noisily(rng, angles, side, target, np.array(_OUT), rest)
    flat_feet(rng, angles, lean)
    return turn(X, lean + rng.normal(0, 8)) @ turn(Z, rng.normal(0, 12))


def ski(rng: Rng, angles: Array, rest: Array) -> Array:
    """Downhill: shins forward, hands with the poles before the body."""
    lean, depth, shift = rng.uniform(8, 28), rng.uniform(0.15, 1.0), rng.normal(0, 8)
    draw_trunk(rng, angles, rng.uniform(5, 40) * (0.4 + depth), 0.5)
    close_fists(rng, angles)
    for side, sign in zip(SIDES, (1, -1), strict=True):
        angles[side_joint(side, "hip")] = 22 + 68 * depth + sign * shift + lean, 4.0, 2.0
        angles[side_joint(side, "knee"), 0] = 28 + 72 * depth + sign * shift
        target = np.array([rng.normal(0.28, 0.15), rng.normal(-0.45, 0.2), rng.normal(0.6, 0.15)])
        place_noisily(rng, angles, side, target, np.array([0.8, -0.4, -0.4]), rest)
    flat_feet(rng, angles, lean)
    return turn(X, lean) @ turn(Z, rng.normal(0, 14))


def cycle(rng: Rng, angles: Array, rest: Array) -> Array:
    """On a bicycle, upright to bent over the bar, the feet opposite each other on the pedals."""
    lean, flexion = rng.uniform(8, 45), rng.uniform(5, 40)
    draw_trunk(rng, angles, flexion, 0.25)
    close_fists(rng, angles)
    angles[NECK, 1] = angles[HEAD, 1] = -0.35 * (lean + 0.6 * flexion) + rng.normal(0, 6)
    phase = float(np.sin(rng.uniform(0, 2 * np.pi)))
    for side, sign in zip(SIDES, (phase, -phase), strict=True):
        hip = 0.8 * lean + 24 + 25 * (1 + sign)
        angles[side_joint(side, "hip")] = hip, rng.normal(3, 2), rng.normal(2, 3)
        angles[side_joint(side, "knee"), 0] = 34 + 38 * (1 + sign)
        angles[side_joint(side, "ankle"), 0] = rng.normal(5, 8)
    height = np.radians(min(lean + flexion - 52 + rng.normal(0, 5), 75))
    reach = rng.uniform(0.75, 0.97)
    for side in SIDES:
        target = reach * np.array([rng.uniform(-0.05, 0.12), np.sin(height), np.cos(height)])
        place_noisily(rng, angles, side, target, np.array([0.8, -0.7, -0.2]), rest)
    return turn(X, lean)


def jump(rng: Rng, angles: Array, rest: Array) -> Array:
    """In the air: spread, tucked, or stretched, the toes down."""
    how = rng.integers(3)
    draw_trunk(rng, angles, (rng.normal(0, 8), rng.normal(28, 12), rng.normal(-6, 8))[how], 1.2)
    for side in SIDES:
        hip = (rng.normal(15, 14), rng.normal(85, 18), rng.normal(-6, 9))[how]
        spread = (rng.uniform(15, 48), rng.normal(10, 8), rng.normal(6, 5))[how]
        knee = (abs(rng.normal(8, 14)), rng.normal(95, 20), abs(rng.normal(35, 35)))[how]
        angles[side_joint(side, "hip")] = hip, spread, rng.normal(8, 8)
        angles[side_joint(side, "knee"), 0] = knee
        angles[side_joint(side, "ankle"), 0] = rng.normal(28, 10)
        target = np.array([rng.normal(0.4, 0.3), rng.normal(0.45, 0.45), rng.normal(0.25, 0.3)])
        target *= rng.uniform(0.7, 0.98) / np.linalg.norm(target)
        place_noisily(rng, angles, side, target, np.array([0.8, -0.2, -0.3]), rest)
    return turn(X, rng.normal(4, 12)) @ turn(Z, rng.normal(0, 8))


def climb(rng: Rng, angles: Array, rest: Array) -> Array:
    """Hands high, one knee raised to the side, the other leg long."""
    main, other = SIDES if rng.random() < 0.5 else SIDES[::-1]
    lean = rng.normal(4, 6)
    draw_trunk(rng, angles, rng.normal(2, 8), 1.0)
    close_fists(rng, angles)
    angles[NECK, 1] = angles[HEAD, 1] = rng.normal(-12, 10)
    angles[side_joint(main, "hip")] = rng.uniform(55, 112), rng.uniform(18, 48), rng.uniform(5, 40)
    angles[side_joint(main, "knee"), 0] = rng.uniform(75, 135)
    angles[side_joint(other, "hip")] = rng.uniform(0, 45), rng.uniform(4, 28), rng.uniform(5, 30)
    angles[side_joint(other, "knee"), 0] = rng.uniform(5, 70)
    flat_feet(rng, angles, lean)
    for side, low in ((main, 0.2), (other, 0.65)):
        target = np.array([rng.normal(0.15, 0.2), rng.uniform(low, 0.95), rng.uniform(0.15, 0.5)])
        target *= min(1.0, 0.97 / float(np.linalg.norm(target)))
        place_noisily(rng, angles, side, target, np.array([0.8, -0.5, -0.1]), rest)
    return turn(X, lean) @ turn(Z, rng.normal(0, 6))


def floor(rng: Rng, angles: Array, rest: Array) -> Array:
    """On the ground: cross-legged, legs long or drawn up, on the heels, on hands and knees."""
    how = rng.choice(6, p=(0.28, 0.16, 0.18, 0.16, 0.12, 0.10))
    lean = float(rng.normal((-2, -8, -6, 6, 82, -6)[how], 7))
    draw_trunk(rng, angles, rng.normal((18, 16, 22, 8, 6, 14)[how], 9), 0.8)
    for side, sign in zip(SIDES, (1, -1), strict=True):
        hip, spread, rotation, knee, toes = _floor_leg(rng, int(how), sign)
        angles[side_joint(side, "hip")] = hip, spread, rotation
        angles[side_joint(side, "knee"), 0] = knee
        angles[side_joint(side, "ankle"), 0] = toes
    if how == 4:
        angles[NECK, 1] = angles[HEAD, 1] = rng.normal(-15, 8)
        for side in SIDES:
            target = np.array([rng.normal(0.05, 0.06), rng.normal(-0.1, 0.12), 0.95])
            place_noisily(rng, angles, side, target, np.array([0.9, 0.0, -0.3]), rest)
    elif how in (0, 1, 2, 5) and rng.random() < 0.3:  # leaning back on the hands
        lean -= 14
        for side in SIDES:
            target = np.array(
                [rng.uniform(0.1, 0.4), rng.normal(-0.8, 0.06), rng.normal(-0.5, 0.1)]
            )
            place_noisily(rng, angles, side, target, np.array([0.5, 0.0, -1.0]), rest)
    elif rng.random() < 0.45:
        for side in SIDES:
            target = np.array([rng.normal(-0.05, 0.12), rng.normal(-0.6, 0.12), 0.62])
            place_noisily(rng, angles, side, target, np.array([0.9, -0.3, -0.3]), rest)
    else:
        draw_arms(rng, angles, rest, hang=0.15, both=0.3)
    return turn(X, lean) @ turn(Z, rng.normal(0, 4))


def _floor_leg(rng: Rng, how: int, sign: int) -> tuple[float, float, float, float, float]:
    """Hip flexion, abduction, rotation, knee, ankle of one leg."""
    if how == 0:  # cross-legged
        return (rng.normal(88, 7), rng.normal(38, 6), rng.normal(44, 4), rng.normal(122, 9),
                rng.normal(15, 8))  # fmt: skip
    if how == 1:  # legs long
        return (rng.normal(84, 7), abs(rng.normal(8, 7)), rng.normal(6, 6), abs(rng.normal(8, 9)),
                rng.normal(8, 10))  # fmt: skip
    if how == 2:  # drawn up
        return (rng.normal(108, 8), rng.normal(9, 6), rng.normal(4, 6), rng.normal(112, 12),
                rng.normal(-8, 8))  # fmt: skip
    if how == 3:  # on the heels
        return (rng.normal(62, 12), rng.normal(7, 5), rng.normal(0, 5), rng.normal(142, 5), 42.0)
    if how == 4:  # hands and knees
        return (rng.normal(88, 8), rng.normal(4, 4), rng.normal(0, 4), rng.normal(86, 10), 40.0)
    long = sign > 0  # one leg long, one drawn up
    return (rng.normal(82 if long else 102, 7), rng.normal(10, 6), rng.normal(8, 6),
            abs(rng.normal(8, 8)) if long else rng.normal(105, 12), rng.normal(8, 8))  # fmt: skip


# Contact points of a hand: joint, and where the wrist is from it as for a left hand, m, in the axes
# of the chest (arms, back of the neck), of the head (face) or of the pelvis.
_CONTACTS: dict[str, tuple[str, str, _Three, _Three]] = {
    "cheek": ("head", "head", (0.07, -0.10, 0.10), (0.6, -1.0, 0.1)),
    "mouth": ("head", "head", (0.03, -0.13, 0.15), (0.6, -1.0, 0.2)),
    "brow": ("head", "head", (0.11, 0.06, 0.14), (1.0, -0.5, 0.2)),
    "ear": ("head", "head", (0.13, -0.06, 0.02), (0.8, -1.0, 0.0)),
    "nape": ("neck", "spine3", (0.10, 0.06, -0.08), (1.0, 0.5, 0.2)),
    "hip": ("pelvis", "pelvis", (0.215, 0.07, 0.03), (1.0, 0.0, -0.6)),
    "small_of_back": ("spine1", "spine1", (0.13, 0.0, -0.15), (1.0, 0.0, -0.9)),
    "thigh": ("left_hip", "left_hip", (0.03, -0.27, 0.15), (0.9, 0.0, -0.5)),
    "chest": ("spine3", "spine3", (-0.02, 0.10, 0.17), (0.8, -0.8, -0.1)),
    "belly": ("spine1", "spine1", (0.05, 0.02, 0.20), (0.9, -0.2, -0.6)),
}


def touch(rng: Rng, angles: Array, rest: Array) -> Array:
    """Standing with hands on the body: folded arms, joined hands, a hand on the face or the hip."""
    lean = rng.normal(1, 4)
    draw_trunk(rng, angles, rng.normal(6, 8))
    standing_legs(rng, angles)
    flat_feet(rng, angles, lean)
    main, other = SIDES if rng.random() < 0.5 else SIDES[::-1]
    how = rng.random()
    if how < 0.22:  # folded arms
        for side, height, depth in ((main, 0.05, 0.185), (other, 0.0, 0.15)):
            _reach_point(angles, side, "spine3", "spine3", (-0.12, height, depth), (1, -1, 0), rest)
    elif how < 0.40:  # joined hands
        height, depth = rng.uniform(-0.26, 0.22), rng.uniform(0.22, 0.4)
        for side, gap in ((main, 0.035), (other, 0.03)):
            point = (gap, height, depth)
            _reach_point(angles, side, "spine3", "spine3", point, (1, -0.7, -0.2), rest)
    else:
        names = tuple(_CONTACTS)
        both = rng.random() < 0.3
        name = names[rng.integers(len(names))]
        _touch_at(rng, angles, main, name, rest)
        if both:
            _touch_at(rng, angles, other, name, rest)
        elif rng.random() < 0.4:
            _touch_at(rng, angles, other, names[rng.integers(len(names))], rest)
        else:
            relaxed_arm(rng, angles, other)
    return turn(X, lean) @ turn(Z, rng.normal(0, 2))


def _touch_at(rng: Rng, angles: Array, side: str, name: str, rest: Array) -> None:
    origin, axes, point, pole = _CONTACTS[name]
    if origin.startswith("left_"):
        origin, axes = (_on_side(side, part) for part in (origin, axes))
    near = np.array(point) + rng.normal(0, 0.012, 3)
    _reach_point(angles, side, origin, axes, tuple(near), pole, rest)


def _on_side(side: str, joint: str) -> str:
    """`left_hip` -> the same joint on `side`."""
    return joint.replace("left", side)


def _reach_point(
    angles: Array, side: str, origin: str, axes: str, point: _Three, pole: _Three, rest: Array
) -> None:
    """Send a wrist to a point of the body as it is posed so far, in place.

    Args:
        origin, axes: joints from which, and in whose rest axes, `point` [3] m is given.
    """
    mirror = np.array([1.0 if side == "left" else -1.0, 1, 1])
    world, joints = forward_kinematics(angles_to_rotmats(angles)[None], rest[None])
    place = joints[0, JOINT[origin]] + world[0, JOINT[axes]] @ (mirror * point)
    chest = world[0, JOINT["spine3"]]
    away = mirror * (chest.T @ (place - joints[0, side_joint(side, "collar")]))
    collar_to_shoulder = rest[JOINT["left_shoulder"]] - rest[JOINT["left_collar"]]
    target = (away - collar_to_shoulder) / _arm_length(rest)
    place_wrist(angles, side, target, np.array(pole, float), rest)


def blended(
    rng: Rng, first: tuple[Array, Array], second: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Angles and root somewhere between those of two poses; between limits stays within limits."""
    share = rng.uniform(0.25, 0.75)
    angles = first[0] + share * (second[0] - first[0])
    u, _, vt = np.linalg.svd((1 - share) * first[1] + share * second[1])
    return angles, u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
