"""Which material covers a point of the rest body: garments, hair, features, cut along smooth lines.

Everything is decided at a point (x, y, z) of the T-pose, so seams stay sharp at any mesh density
and need no texture coordinates. `Cuts` are the dimensions of one outfit on one body.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba as nb

from train.synthetic.noise import value_noise

MATERIAL_NAMES = (
    "skin", "shirt", "trousers", "shoes", "hair", "jacket", "socks", "belt", "hat", "gloves",
    "skirt", "eye_white", "iris", "lip", "brow", "glasses", "sole", "beard", "hood", "strap",
    "thing", "trim", "metal",
)  # fmt: skip
NUM_MATERIALS = len(MATERIAL_NAMES)
(SKIN, SHIRT, TROUSERS, SHOES, HAIR, JACKET, SOCKS, BELT, HAT, GLOVES, SKIRT, EYE_WHITE, IRIS, LIP,
 BROW, GLASSES, SOLE, BEARD, HOOD, STRAP, THING, TRIM, METAL) = range(NUM_MATERIALS)  # fmt: skip
FIRST_THING = THING  # from here on, what is no part of the person: bags, balls, chairs
NO_STRAP, TWO_STRAPS, SLANTED_STRAP = range(3)

_JIT = {"cache": True, "nogil": True, "fastmath": {"contract", "arcp", "nsz"}}


class Cuts(NamedTuple):
    """Seams of an outfit and landmarks of the body, m in the rest pose. NaN-free; float only.

    A garment that is not worn has its seam where it covers nothing.
    """

    sleeve_x: float  # the shirt covers |x| below this
    hem_y: float  # and y above this
    neck_y: float  # and y below this, at the sides of the neck
    neck_drop: float  # how far the neckline falls at the front
    neck_width: float  # half-width of the neckline
    jacket: float  # 1 where a jacket is worn over the shirt
    jacket_sleeve_x: float
    jacket_hem_y: float
    jacket_open: float  # half-width of the open front; negative: closed
    waist_y: float  # top of the trousers
    leg_y: float  # their lower end
    belt: float  # half-height; negative: none
    shoe_y: float  # shoes below this
    sock_y: float  # socks below this
    glove_x: float  # gloves beyond this
    hairline: float  # height over the eyes at which hair starts above the ear
    hair_slope: float  # how much higher it starts per metre towards the face
    hat: float  # 1 where a hat covers the hair
    hat_low: float  # height over the eyes at which it ends above the ear
    hat_slope: float  # how much higher it ends per metre towards the face
    hood: float  # half-height of its face opening, m; 0: none
    strap: float  # `NO_STRAP`, `TWO_STRAPS` of a backpack, or `SLANTED_STRAP`
    strap_x: float  # where it crosses the chest (side of the straps), m
    trouser_flare: float  # how far trousers stand off at the ankle, m
    sleeve_flare: float  # and sleeves at the wrist
    hem_flare: float  # and shirt and jacket at the hip
    beard: float  # 0..1
    glasses: float  # 0 none, 1 frames, 2 dark
    open_mouth: float  # 0..1, height of the lips
    head_y: float  # everything near the middle above this is head
    shoulder_x: float
    ankle_y: float
    eye_x: float
    eye_y: float
    eye_z: float
    nose_y: float
    nose_z: float
    ear_z: float
    seed: int


@nb.njit(**_JIT)
def material_at(x: float, y: float, z: float, cuts: Cuts) -> int:
    """Index into `MATERIAL_NAMES` of a point of the rest body."""
    ax = abs(x)
    if y > cuts.head_y and ax < 0.15:
        return _head(ax, x, y, z, cuts)
    if ax > cuts.glove_x:
        return GLOVES
    if cuts.strap > 0.5 and ax < 0.2 and y > -0.02 and _on_strap(x, ax, y, z, cuts):
        return STRAP
    if cuts.jacket > 0.5 and y > cuts.jacket_hem_y and ax < cuts.jacket_sleeve_x:
        front_gap = z > 0.0 and ax < cuts.jacket_open
        if not front_gap and y < cuts.neck_y + 0.015 + _towards_shoulder(ax):
            return JACKET
    if y > cuts.hem_y and ax < cuts.sleeve_x and _below_neckline(ax, y, z, cuts):
        return SHIRT
    if y > cuts.waist_y:
        return SKIN
    if abs(y - cuts.waist_y) < 2 * cuts.belt:
        return BELT
    if y < cuts.shoe_y:
        return SOLE if y < cuts.ankle_y - 0.068 else SHOES
    if y > cuts.leg_y:
        return TROUSERS
    if y < cuts.sock_y:
        return SOCKS
    return SKIN


@nb.njit(**_JIT)
def _on_strap(x: float, ax: float, y: float, z: float, cuts: Cuts) -> bool:
    """Over both shoulders and down the chest, or from one shoulder to the other hip."""
    if cuts.strap < 1.5:
        return abs(ax - abs(cuts.strap_x)) < 0.021 and y > 0.26 and z > -0.05
    along = x * math.copysign(1.0, cuts.strap_x) - abs(cuts.strap_x)
    return abs(along - 0.55 * (y - 0.48)) < 0.02


@nb.njit(**_JIT)
def _below_neckline(ax: float, y: float, z: float, cuts: Cuts) -> bool:
    edge = cuts.neck_y + _towards_shoulder(ax)
    if z < 0.0:
        return y < edge
    inward = max(0.0, 1.0 - ax / cuts.neck_width)
    return y < edge - cuts.neck_drop * min(1.0, z * 18.0) * inward


@nb.njit(**_JIT)
def _towards_shoulder(ax: float) -> float:
    """How much higher than at the neck cloth may lie: all of the shoulder's top is covered."""
    return 2.0 * max(0.0, ax - 0.07)


@nb.njit(**_JIT)
def _head(ax: float, x: float, y: float, z: float, cuts: Cuts) -> int:
    up, forward = y - cuts.eye_y, z - cuts.ear_z
    if cuts.hood > 0.0:
        opening = (ax / (0.75 * cuts.hood)) ** 2 + ((y - cuts.nose_y - 0.01) / cuts.hood) ** 2
        if opening > 1.0 or forward < 0.02:
            return HOOD
    if cuts.hat > 0.5 and up > cuts.hat_low + cuts.hat_slope * forward:
        return HAT
    ragged = 0.012 * (value_noise(x * 70, y * 70, z * 70, cuts.seed) - 0.5)
    if up + ragged > cuts.hairline + cuts.hair_slope * forward and y > cuts.head_y + 0.03:
        return HAIR
    if z < cuts.eye_z - 0.035:
        arm = cuts.glasses > 0.5 and abs(up - 0.004) < 0.003 and forward > 0.0
        return GLASSES if arm and ax > 0.05 else SKIN
    return _face(ax, y, up, z, cuts)


@nb.njit(**_JIT)
def _face(ax: float, y: float, up: float, z: float, cuts: Cuts) -> int:
    side = (ax - cuts.eye_x) / 0.0155
    if cuts.glasses > 0.5:
        rim = (side / 1.35) ** 2 + ((up + 0.002) / 0.0175) ** 2
        if (rim < 1.0 and cuts.glasses > 1.5) or (0.72 < rim < 1.0):
            return GLASSES
        if abs(up - 0.004) < 0.002 and ax < cuts.eye_x:
            return GLASSES
    eye = side**2 + (up / 0.0075) ** 2
    if eye < 1.0:
        return IRIS if (ax - cuts.eye_x) ** 2 + up**2 < 0.0068**2 else EYE_WHITE
    if abs(up - 0.0205 + 6.0 * (ax - cuts.eye_x - 0.004) ** 2) < 0.0034 and abs(side) < 1.45:
        return BROW
    mouth = y - (cuts.nose_y - 0.036)
    if (ax / 0.026) ** 2 + (mouth / (0.0065 + 0.006 * cuts.open_mouth)) ** 2 < 1.0:
        return LIP
    if cuts.beard > 0.0 and y < cuts.nose_y - 0.012 + 0.5 * max(0.0, ax - 0.03):
        return BEARD
    return SKIN
