"""Bags, balls, rackets, boards, chairs: rigid things that people wear, hold, ride and stand behind.

A thing is made of solids in a frame of its own and carried by a joint, by both hands, or by where
the person stands. It is drawn through the person's z-buffer, so it hides what lies behind it to the
pixel; it is no part of the person: not in the mask, not in the surface map, not in the box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from glnet_rt.contracts import Array
from train.synthetic.anatomy import JOINT
from train.synthetic.materials import METAL, NO_STRAP, SLANTED_STRAP, THING, TRIM, TWO_STRAPS
from train.synthetic.solids import Solid, ball, bars, box, dome, join, ring, rod

Rng = np.random.Generator

_X, _Y, _Z = np.eye(3)
_SIDES = (("left", 1.0), ("right", -1.0))
_PALM = np.array([0.02, -0.033, 0.0])  # from the left hand's joint, rest axes: thumb to z, palm -y
_SOLE_M = 0.026  # how far the lower side of a shoe lies under the joint of the foot


@dataclass(frozen=True, eq=False)
class Stance:
    """A posed skeleton, for things that must agree with it.

    Attributes:
        maps: [24, 3, 4], shaped rest point -> camera orientation, relative to the pelvis, m.
        rest, joints: [24, 3] m, at rest (shaped) and posed, in the two frames of `maps`.
        up: [3] the world's up in the frame of `joints`.
        lowest: height of the lowest vertex along `up`, m.
    """

    maps: Array
    rest: Array
    joints: Array
    up: Array
    lowest: float

    def at(self, joint: str) -> Array:
        """[3, 4] frame of one joint: rest axes, origin in the joint."""
        j = JOINT[joint]
        frame: Array = self.maps[j].astype(np.float64)
        frame[:, 3] = self.joints[j]
        return frame

    def joint(self, name: str) -> Array:
        """[3] posed joint."""
        found: Array = self.joints[JOINT[name]]
        return found

    def height(self, name: str) -> float:
        """Of a joint along `up`, m."""
        return float(self.joint(name) @ self.up)

    def grip(self, side: str, sign: float) -> Array:
        """[3, 4] frame in the fist: x along the fingers, z out at the thumb."""
        frame = self.at(f"{side}_hand")
        frame[:, 3] += frame[:, :3] @ (_PALM * (sign, 1, 1))
        frame[:, 0] *= sign
        frame[:, 1] *= sign  # keeps it right-handed: the palm is at -y (left) or +y (right)
        return frame

    def heading(self, origin: Array) -> Array:
        """[3, 4] upright frame: x to the person's left, y up, z where the pelvis faces."""
        ahead = self.maps[0][:, 2] - (self.maps[0][:, 2] @ self.up) * self.up
        ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-6)
        return np.column_stack([np.cross(self.up, ahead), self.up, ahead, origin])


@dataclass(frozen=True, eq=False)
class Thing:
    """A thing in place: kind, solid in its own frame, and `posed` [V, 3] float32 as `Stance`."""

    kind: int
    solid: Solid
    posed: Array


Build = Callable[[Rng, Stance], tuple[Solid, Array] | None]


def _v(x: float, y: float, z: float) -> Array:
    return np.array([x, y, z])


def _backpack(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    width, height, depth = rng.uniform(0.11, 0.19), rng.uniform(0.16, 0.28), rng.uniform(0.05, 0.12)
    middle = np.array([0.0, 0.24 - height, -0.095 - depth])
    solid = join(
        box(middle, (width, height, depth), THING),
        ball(middle + _v(0, height, 0), (width, 0.05, depth), THING),
        box(middle + _v(0, -0.3 * height, -depth), (0.8 * width, 0.5 * height, 0.03), TRIM),
    )
    return solid, stance.at("spine3")


def _shoulder_bag(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    half = np.array([rng.uniform(0.04, 0.08), rng.uniform(0.09, 0.16), rng.uniform(0.10, 0.20)])
    middle = np.array([-0.175 - half[0], 0.02 - half[1], rng.uniform(-0.06, 0.06)])
    flap = box(middle + _v(-half[0], 0.4 * half[1], 0), (0.008, 0.6 * half[1], half[2]), TRIM)
    return join(box(middle, half, THING), flap), stance.at("pelvis")


def _handbag(rng: Rng, stance: Stance) -> tuple[Solid, Array] | None:
    """A bag or a case hangs from a hand below the hip."""
    side, sign = _SIDES[rng.integers(2)]
    if stance.height(f"{side}_wrist") > 0.07:
        return None
    half = np.array([rng.uniform(0.02, 0.09), rng.uniform(0.09, 0.2), rng.uniform(0.12, 0.26)])
    drop = rng.uniform(0.03, 0.16)
    arch = np.array([[0, -drop, -0.08], [0, -0.02, -0.05], [0, 0, 0], [0, -0.02, 0.05],
                     [0, -drop, 0.08]])  # fmt: skip
    solid = join(box((0, -drop - half[1], 0), half, THING), bars(arch, 0.008, TRIM))
    return solid, stance.heading(stance.grip(side, sign)[:, 3])


def _hand(rng: Rng, stance: Stance) -> tuple[str, float]:
    """The hand that does something: farther from the pelvis, mostly."""
    reach = [float(np.linalg.norm(stance.joint(f"{side}_hand"))) for side, _ in _SIDES]
    return _SIDES[int(rng.random() > 0.85) ^ int(reach[1] > reach[0])]


def _ball(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    """In one hand or between both."""
    radius = float(rng.choice((0.034, 0.037, 0.085, 0.108, 0.12)))
    solid = _striped_ball(radius)
    left, right = stance.grip("left", 1.0), stance.grip("right", -1.0)
    apart = float(np.linalg.norm(left[:, 3] - right[:, 3]))
    if apart < 0.36 and radius > 0.08:
        frame = stance.at("left_hand")
        frame[:, 3] = (left[:, 3] + right[:, 3]) / 2
        return solid, frame
    side, _ = _hand(rng, stance)
    frame = stance.at(f"{side}_hand")
    frame[:, 3] -= frame[:, 1] * (radius + 0.028)
    return solid, frame


def _striped_ball(radius: float) -> Solid:
    band = ring(np.zeros(3), _X, _Z, 0.985 * radius, 0.03 * radius, TRIM)
    return join(ball(np.zeros(3), (radius,) * 3, THING), band)


def _football(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    """On the ground or in the air near the foot that is raised."""
    heights = [stance.height(f"{side}_foot") for side, _ in _SIDES]
    side = _SIDES[int(heights[1] > heights[0])][0]
    frame = stance.heading(stance.joint(f"{side}_foot"))
    away = rng.uniform(0.12, 0.7)
    frame[:, 3] += away * frame[:, 2] + rng.normal(0, 0.15) * frame[:, 0]
    if rng.random() < 0.7:
        frame[:, 3] += (stance.lowest + 0.11 - frame[:, 3] @ stance.up) * stance.up
    return _striped_ball(0.11), frame


def _racket(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    side, sign = _hand(rng, stance)
    along = _Z + rng.uniform(0.2, 1.2) * _X
    along /= np.linalg.norm(along)
    across = np.cross(_Y, along)
    handle, radius = rng.uniform(0.10, 0.34), rng.uniform(0.08, 0.14)
    middle = along * (handle + radius)
    head = [rod(-0.07 * along, handle * along, 0.014, TRIM, sides=6)]
    if rng.random() < 0.25:  # table tennis
        head.append(rod(middle - 0.007 * _Y, middle + 0.007 * _Y, radius, THING, sides=16))
    else:
        head.append(ring(middle, along, across, radius, 0.011, THING))
        for share in (-0.6, -0.2, 0.2, 0.6):
            half = radius * np.sqrt(1 - share**2)
            for a, b in ((along, across), (across, along)):
                centre = middle + share * radius * a
                head.append(rod(centre - half * b, centre + half * b, 0.0022, METAL, sides=3))
    return join(*head), stance.grip(side, sign)


def _club(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    """A bat, a stick or a golf club in one fist or both."""
    side, sign = _hand(rng, stance)
    along = _Z + rng.uniform(-0.1, 0.7) * _X
    along /= np.linalg.norm(along)
    length = rng.uniform(0.5, 1.1)
    kind = rng.integers(3)
    if kind == 0:  # baseball
        solid = join(
            rod(-0.1 * along, 0.25 * along, 0.015, THING),
            rod(0.25 * along, 0.75 * along, 0.016, THING, 0.034),
        )
    elif kind == 1:
        foot = box(along * length, (0.05, 0.02, 0.02), METAL)
        solid = join(rod(-0.12 * along, length * along, 0.009, METAL, sides=6), foot)
    else:
        solid = rod(-rng.uniform(0.1, 0.9) * along, length * along, 0.013, TRIM)
    return solid, stance.grip(side, sign)


def _phone(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    side, sign = _SIDES[rng.integers(2)]
    return box((0, 0, 0), (0.072, 0.005, 0.037), THING), stance.grip(side, sign)


def _cup(rng: Rng, stance: Stance) -> tuple[Solid, Array] | None:
    """A cup or a bottle, in a fist whose thumb is up."""
    upright = [(side, sign) for side, sign in _SIDES if _thumb_up(stance, side, sign) > 0.6]
    if not upright:
        return None
    side, sign = upright[int(rng.integers(len(upright)))]
    radius, low, high = rng.uniform(0.028, 0.042), rng.uniform(0.04, 0.07), rng.uniform(0.05, 0.13)
    solid = rod(-low * _Z, high * _Z, 0.85 * radius, THING, radius, sides=10)
    if high > 0.09:
        solid = join(solid, rod(high * _Z, (high + 0.05) * _Z, 0.4 * radius, TRIM))
    return solid, stance.grip(side, sign)


def _thumb_up(stance: Stance, side: str, sign: float) -> float:
    return float(stance.grip(side, sign)[:, 2] @ stance.up)


def _umbrella(rng: Rng, stance: Stance) -> tuple[Solid, Array] | None:
    upright = [
        (side, sign)
        for side, sign in _SIDES
        if _thumb_up(stance, side, sign) > 0.5 and stance.height(f"{side}_hand") > 0.05
    ]
    if not upright:
        return None
    frame = stance.heading(stance.grip(*upright[int(rng.integers(len(upright)))])[:, 3])
    lean = np.array([rng.normal(0, 0.15), 1.0, rng.normal(-0.05, 0.15)])
    lean /= np.linalg.norm(lean)
    clear = stance.height("head") - float(frame[:, 3] @ stance.up) + 0.25
    length = max(rng.uniform(0.5, 0.75), clear)
    cloth = dome(length * lean, lean, rng.uniform(0.42, 0.62), rng.uniform(0.15, 0.3), THING)
    return join(rod(-0.08 * lean, length * lean, 0.008, METAL, sides=6), cloth), frame


def _disc(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    side, sign = _hand(rng, stance)
    radius = rng.uniform(0.10, 0.14)
    centre = 0.9 * radius * _X
    solid = rod(centre - 0.012 * _Y, centre + 0.012 * _Y, radius, THING, 0.9 * radius, sides=16)
    return solid, stance.grip(side, sign)


def _book(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    side, sign = _SIDES[rng.integers(2)]
    half = (rng.uniform(0.08, 0.13), rng.uniform(0.004, 0.02), rng.uniform(0.06, 0.11))
    return box((0.02, -0.02 * sign, 0.02), half, THING), stance.grip(side, sign)


def _between_hands(rng: Rng, stance: Stance) -> tuple[Solid, Array] | None:
    """A box, a drum or a barbell in both hands, as far apart as they are."""
    left, right = (stance.grip(side, sign)[:, 3] for side, sign in _SIDES)
    apart = float(np.linalg.norm(left - right))
    if not 0.22 < apart < 0.8:
        return None
    axis = (left - right) / apart
    over = stance.up - (stance.up @ axis) * axis
    if np.linalg.norm(over) < 0.5:
        return None
    over = over / np.linalg.norm(over)
    frame = np.column_stack([axis, over, np.cross(axis, over), (left + right) / 2])
    if rng.random() < 0.3:
        reach = apart / 2 + rng.uniform(0.08, 0.4)
        plate = rng.uniform(0.06, 0.22)
        ends = [rod((s * reach - 0.03) * _X, (s * reach + 0.03) * _X, plate, THING, sides=16)
                for s in (-1, 1)]  # fmt: skip
        return join(rod(-reach * _X, reach * _X, 0.014, METAL), *ends), frame
    half = np.array([apart / 2 - 0.015, rng.uniform(0.04, 0.2), rng.uniform(0.05, 0.2)])
    lid = box((0, half[1], 0), half * (1.02, 0.08, 1.02), TRIM)
    return join(box((0, 0, 0), half, THING), lid), frame


def _skis(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    """Two skis and mostly two poles, in the frame of the picture."""
    parts = []
    behind, ahead = -rng.uniform(0.6, 0.9), rng.uniform(0.7, 1.1)
    for side, sign in _SIDES:
        frame = stance.at(f"{side}_ankle")
        below = stance.rest[JOINT[f"{side}_foot"]] - stance.rest[JOINT[f"{side}_ankle"]]
        level = np.array([below[0], below[1] - _SOLE_M, 0.0])
        half = np.array([0.035, 0.009, (ahead - behind) / 2])
        parts.append(_moved(box(level + _Z * (ahead + behind) / 2, half, THING), frame))
        tip = rod(level + ahead * _Z, level + (ahead + 0.16) * _Z + 0.08 * _Y, 0.03, THING, 0.01)
        parts.append(_moved(tip, frame))
        boot = box(level + _v(0, 0.06, 0.04), (0.05, 0.055, 0.14), TRIM)
        parts.append(_moved(boot, frame))
        if rng.random() < 0.85:
            pole = rod(0.06 * _Z, -1.05 * _Z, 0.008, METAL, sides=6)
            parts.append(_moved(pole, stance.grip(side, sign)))
    return join(*parts), np.eye(3, 4)


def _moved(solid: Solid, frame: Array) -> Solid:
    return solid._replace(vertices=_placed(solid.vertices, frame))


def _placed(vertices: Array, frame: Array) -> Array:
    placed: Array = (vertices @ frame[:, :3].T + frame[:, 3]).astype(np.float32)
    return placed


def _board(rng: Rng, stance: Stance) -> tuple[Solid, Array] | None:
    """Skateboard, snowboard or surfboard under both soles, where these agree about a plane."""
    soles, tilts = [], []
    for side, _ in _SIDES:
        frame = stance.at(f"{side}_ankle")
        below = stance.rest[JOINT[f"{side}_foot"]] - stance.rest[JOINT[f"{side}_ankle"]]
        soles.append(frame[:, 3] + frame[:, :3] @ (below * (1, 1, 0.4) - _SOLE_M * _Y))
        tilts.append(frame[:, 1])
    along = soles[0] - soles[1]
    apart = float(np.linalg.norm(along))
    if apart < 0.2 or float(tilts[0] @ tilts[1]) < 0.8:
        return None
    along = along / apart
    over = tilts[0] + tilts[1]
    over = over - (over @ along) * along
    if np.linalg.norm(over) < 1.5:
        return None
    over = over / np.linalg.norm(over)
    frame = np.column_stack([along, over, np.cross(along, over), (soles[0] + soles[1]) / 2])
    kind, reach = rng.integers(3), apart / 2
    if kind == 0:
        deck = box(-0.012 * _Y, (reach + 0.12, 0.008, 0.10), THING)
        wheels = [rod((x, -0.045, -0.09), (x, -0.045, 0.09), 0.028, TRIM) for x in (-reach, reach)]
        return join(deck, *wheels), frame
    if kind == 1:
        half = (reach + rng.uniform(0.3, 0.5), 0.01, rng.uniform(0.13, 0.16))
        bindings = [box((x, 0.03, 0), (0.05, 0.035, 0.13), TRIM) for x in (-reach, reach)]
        return join(box(-0.012 * _Y, half, THING), *bindings), frame
    half = (reach + rng.uniform(0.5, 1.0), 0.035, rng.uniform(0.22, 0.3))
    return ball(-0.035 * _Y, half, THING), frame


def _bicycle(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    """Saddle, pedals and bar are where pelvis, feet and hands are; the rest follows."""
    frame = stance.heading(np.zeros(3))

    def local(point: Array) -> Array:
        inside: Array = frame[:, :3].T @ point
        return inside

    feet = [local(stance.joint(f"{side}_foot")) for side, _ in _SIDES]
    hands = [local(stance.grip(side, sign)[:, 3]) for side, sign in _SIDES]
    crank, bar = (feet[0] + feet[1]) / 2 * (0, 1, 1), (hands[0] + hands[1]) / 2 * (0, 1, 1)
    saddle, radius = np.array([0.0, -0.12, -0.03]), rng.uniform(0.28, 0.35)
    rear, front = crank + _v(0, 0.05, -0.43), crank + _v(0, 0.05, rng.uniform(0.56, 0.66))
    head = front + _v(0, 0.45 * (bar[1] - front[1]) + 0.1, -0.12)
    parts = [ring(hub, _Y, _Z, radius, 0.018, METAL) for hub in (rear, front)]
    for hub in (rear, front):
        for angle in np.arange(4) * (np.pi / 4) + rng.uniform(0, 1):
            spoke = radius * np.array([0, np.cos(angle), np.sin(angle)])
            parts.append(rod(hub - spoke, hub + spoke, 0.003, METAL, sides=3))
    tubes = ((saddle, crank), (saddle, head), (crank, head), (rear, crank), (rear, saddle),
             (head, front), (head, bar), (hands[0], bar), (bar, hands[1]))  # fmt: skip
    parts += [rod(a, b, 0.017, THING, sides=6) for a, b in tubes if np.linalg.norm(a - b) > 0.02]
    parts.append(ball(saddle + _v(0, 0.01, -0.02), (0.07, 0.03, 0.13), TRIM))
    for foot in feet:
        parts.append(box(foot + _v(0, -0.035, 0), (0.045, 0.012, 0.04), TRIM))
        parts.append(rod(crank + foot * (0.7, 0, 0), foot * (0.7, 1, 1), 0.012, METAL))
    return join(*parts), frame


def _chair(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    """A stool, a chair or a bench under the pelvis, standing where the feet do."""
    half = np.array([rng.uniform(0.2, 0.26), rng.uniform(0.012, 0.06), rng.uniform(0.18, 0.26)])
    if rng.random() < 0.25:
        half[0] = rng.uniform(0.5, 1.0)
    seat = np.array([0.0, -0.105 - half[1], 0.24 - half[2]])
    down = min(stance.lowest, seat[1] - 0.1)
    parts = [box(seat, half, THING)]
    if rng.random() < 0.35:
        parts.append(box((0, (down + seat[1]) / 2, seat[2]),
                         (0.9 * half[0], (seat[1] - down) / 2, 0.9 * half[2]), TRIM))  # fmt: skip
    else:
        for x in (-0.9, 0.9):
            for z in (-0.9, 0.9):
                corner = seat + half * (x, 0, z)
                parts.append(rod(corner, corner * (1, 0, 1) + down * _Y, 0.016, METAL, sides=6))
    if rng.random() < 0.65:
        tall = rng.uniform(0.14, 0.36)
        back = np.array([0, seat[1] + 0.1 + tall, seat[2] - half[2] - 0.02])
        parts.append(box(back, (half[0], tall, 0.02), THING))
    if rng.random() < 0.3:
        for x in (-1, 1):
            rest = seat + _v(x * (half[0] + 0.03), 0.22, 0)
            parts.append(box(rest, (0.025, 0.015, half[2]), TRIM))
            parts.append(box(rest - 0.11 * _Y, (0.015, 0.11, 0.02), METAL))
    return join(*parts), stance.heading(np.zeros(3))


def _table(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    """A table, a desk or a counter before the person."""
    sits = stance.height("pelvis") - max(stance.height("left_knee"), stance.height("right_knee"))
    top = rng.uniform(0.11, 0.26) if sits < 0.2 else rng.uniform(-0.1, 0.12)
    half = np.array([rng.uniform(0.35, 1.0), 0.018, rng.uniform(0.2, 0.45)])
    middle = np.array([rng.normal(0, 0.2), top, 0.18 + half[2] + rng.uniform(0, 0.15)])
    down = min(stance.lowest, top - 0.3)
    parts = [box(middle, half, THING)]
    for x in (-0.92, 0.92):
        for z in (-0.92, 0.92):
            corner = middle + half * (x, 0, z)
            parts.append(rod(corner, corner * (1, 0, 1) + down * _Y, 0.025, METAL, sides=6))
    if rng.random() < 0.3:  # a closed front
        front = middle + _v(0, (down - top) / 2, 0.9 * half[2])
        parts.append(box(front, (0.98 * half[0], (top - down) / 2, 0.012), TRIM))
    for _ in range(int(rng.integers(0, 3))):
        size = rng.uniform(0.03, 0.12, 3)
        spot = middle + _v(
            rng.uniform(-0.7, 0.7) * half[0],
            size[1],
            rng.uniform(-0.6, 0.6) * half[2],
        )
        parts.append(box(spot, size, TRIM))
    return join(*parts), stance.heading(np.zeros(3))


def _railing(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    ahead, top = rng.uniform(0.25, 0.6), rng.uniform(-0.25, 0.3)
    width, thick = rng.uniform(0.8, 1.6), rng.uniform(0.012, 0.035)
    parts = []
    for height in np.linspace(top, stance.lowest + 0.15, int(rng.integers(2, 5))):
        a, b = np.array([-width, height, ahead]), np.array([width, height, ahead])
        parts.append(rod(a, b, thick, THING, sides=6))
    for x in np.linspace(-width, width, int(rng.integers(2, 9))):
        post = (np.array([x, top, ahead]), np.array([x, stance.lowest, ahead]))
        parts.append(rod(*post, 0.8 * thick, METAL, sides=6))
    return join(*parts), stance.heading(np.zeros(3))


def _ladder(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    """Rails and rungs through the higher hand."""
    side, sign = max(_SIDES, key=lambda s: stance.height(f"{s[0]}_hand"))
    frame = stance.heading(stance.grip(side, sign)[:, 3])
    frame[:, 3] -= frame[:, 0] * (frame[:, 0] @ frame[:, 3])
    half, step = rng.uniform(0.22, 0.4), rng.uniform(0.26, 0.34)
    low, high = stance.lowest - stance.height(f"{side}_hand"), rng.uniform(0.3, 0.9)
    parts = [rod((x, low, 0), (x, high, 0), 0.018, METAL, sides=6) for x in (-half, half)]
    for k in range(int(low / step), int(high / step) + 1):
        parts.append(rod((-half, k * step, 0), (half, k * step, 0), 0.014, THING, sides=6))
    return join(*parts), frame


def _guitar(rng: Rng, stance: Stance) -> tuple[Solid, Array]:
    """Slung before the belly; seen in the held-out split alone."""
    side = rng.choice((-1.0, 1.0))
    lower = np.array([-0.10 * side, 0.02, 0.17])
    neck = np.array([0.85 * side, 0.3, 0.03])
    neck /= np.linalg.norm(neck)
    upper = lower + 0.19 * neck
    deck = 0.04 * _Z
    solid = join(
        rod(lower - deck, lower + deck, 0.17, THING, sides=16),
        rod(upper - deck, upper + deck, 0.13, THING, sides=16),
        rod(lower + deck, lower + 1.1 * deck, 0.05, METAL, sides=12),
        bars(np.array([upper + deck, upper + deck + 0.55 * neck]), 0.022, TRIM),
        box(upper + deck + 0.6 * neck, (0.05, 0.03, 0.012), TRIM),
    )
    return solid, stance.at("spine1")


_BUILDERS: dict[str, Build] = {
    "backpack": _backpack, "shoulder_bag": _shoulder_bag, "handbag": _handbag, "ball": _ball,
    "football": _football, "racket": _racket, "club": _club, "phone": _phone, "cup": _cup,
    "umbrella": _umbrella, "disc": _disc, "book": _book, "between_hands": _between_hands,
    "skis": _skis, "board": _board, "bicycle": _bicycle, "chair": _chair, "table": _table,
    "railing": _railing, "ladder": _ladder, "guitar": _guitar,
}  # fmt: skip
THING_NAMES = tuple(_BUILDERS)
HELD_OUT_THINGS = ("guitar",)  # never drawn for the training split
_HELD_OUT_SHARE = 0.08  # of the held-out people
_STRAPS = {"backpack": TWO_STRAPS, "shoulder_bag": SLANTED_STRAP}

# What goes with a family of poses, each with its probability; at most one is tried.
_BY_FAMILY: dict[str, dict[str, float]] = {
    "kick": {"football": 0.75},
    "throw": {"ball": 0.55, "disc": 0.2, "club": 0.08},
    "swing": {"racket": 0.5, "club": 0.4},
    "board": {"board": 0.92},
    "ski": {"skis": 0.94},
    "cycle": {"bicycle": 0.9},
    "jump": {"ball": 0.25, "board": 0.1},
    "climb": {"ladder": 0.4},
    "sit": {"chair": 0.6},
    "bend": {"table": 0.15},
}
_BAGS = {"backpack": 0.45, "shoulder_bag": 0.3, "handbag": 0.25}
_BAG_SHARE, _HAND_SHARE, _BEFORE_SHARE = 0.16, 0.24, 0.09
_HELD = {"phone": 0.2, "cup": 0.16, "umbrella": 0.14, "book": 0.1, "ball": 0.1, "racket": 0.05,
         "club": 0.09, "disc": 0.03, "between_hands": 0.13}  # fmt: skip
_BEFORE = {"table": 0.65, "railing": 0.35}
_BAG_FAMILIES = ("stand", "gesture", "walk", "run", "reach", "touch", "blend")
_STANDING = ("stand", "gesture", "reach", "touch", "sit")
_BUSY_HANDS = ("throw", "swing", "ski", "cycle", "climb")


def plan_things(rng: Rng, split: str, family: str) -> tuple[str, ...]:
    """Names of what a person in a pose of `family` has, wants, or stands behind."""
    wanted = []
    own = _BY_FAMILY.get(family, {})
    if own and rng.random() < sum(own.values()):
        wanted.append(_pick(rng, own))
    if family in _BAG_FAMILIES and rng.random() < _BAG_SHARE:
        wanted.append(_pick(rng, _BAGS))
    if family not in _BUSY_HANDS and rng.random() < _HAND_SHARE:
        wanted.append(_pick(rng, _HELD))
    if family in _STANDING and rng.random() < _BEFORE_SHARE:
        wanted.append(_pick(rng, _BEFORE))
    if split == "heldout" and rng.random() < _HELD_OUT_SHARE:
        wanted = [HELD_OUT_THINGS[rng.integers(len(HELD_OUT_THINGS))]]
    return tuple(dict.fromkeys(wanted))


def _pick(rng: Rng, shares: dict[str, float]) -> str:
    weights = np.array(list(shares.values()))
    return tuple(shares)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def strap_for(wanted: tuple[str, ...]) -> int:
    """Which strap lies on the clothes of somebody with these things."""
    return next((_STRAPS[name] for name in wanted if name in _STRAPS), NO_STRAP)


def build_things(rng: Rng, wanted: tuple[str, ...], stance: Stance) -> list[Thing]:
    """The wanted things in place; those that the pose cannot hold are left out."""
    things = []
    for name in wanted:
        built = _BUILDERS[name](rng, stance)
        if built is not None:
            solid, frame = built
            things.append(Thing(THING_NAMES.index(name), solid, _placed(solid.vertices, frame)))
    return things
