"""Clothes, hair, skin and light of one person, drawn at random."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.skeleton import INDEX
from train.synthetic import materials as m
from train.synthetic.accessories import HAIR_STYLES
from train.synthetic.materials import NUM_MATERIALS, Cuts
from train.synthetic.noise import HELD_OUT_PATTERNS, PATTERN_NAMES
from train.synthetic.shading import Cloth, Lights

Rng = np.random.Generator

_NOWHERE = 9.0  # a seam out there covers nothing (or everything), m


@dataclass(frozen=True, eq=False)
class Outfit:
    """Everything the shading and the dressing of one person need.

    Attributes:
        cuts: seams.
        cloth: colours, patterns, folds and gloss per material.
        thickness: [M] float32, m, how far each material stands off the skin.
        skirt, long_hair: whether those extra meshes are worn.
        skirt_length: 0..1 of the skirt mesh. coat_length: likewise; 0: no coat.
        hair_end: rest height, m, below which long hair is cut.
        accessory: one of `ACCESSORY_NAMES`, or empty.
    """

    cuts: Cuts
    cloth: Cloth
    thickness: Array
    skirt: bool
    long_hair: bool
    skirt_length: float
    coat_length: float
    hair_end: float
    accessory: str

    @property
    def hangs_free(self) -> bool:
        """Whether a skirt or the tails of a coat surround the legs."""
        return self.skirt or self.coat_length > 0


@dataclass(frozen=True)
class Landmarks:
    """Where the rest body has its seams: m, T-pose of the mean shape, left side."""

    points: Array

    @classmethod
    def from_keypoints(cls, keypoints: Array) -> Landmarks:
        """From the 36 keypoints [36, 3] of the mean shape in the rest pose."""
        return cls(np.asarray(keypoints, dtype=np.float64))

    def at(self, name: str) -> Array:
        """[3] position of one keypoint."""
        point: Array = self.points[INDEX[name]]
        return point


def sample_outfit(rng: Rng, marks: Landmarks, split: str, strap: int = m.NO_STRAP) -> Outfit:
    """Draw a whole appearance; `HELD_OUT_PATTERNS` appear in the held-out split alone.

    Args:
        strap: which bag's strap lies over the clothes, see `materials`.
    """
    skirt = rng.random() < 0.15
    head = _HEADS[rng.choice(len(_HEADS), p=_HEAD_SHARES)]
    cuts = _sample_cuts(rng, marks, skirt, head, strap)
    cloth = _sample_cloth(rng, split)
    if skirt and rng.random() < 0.5:  # a dress: the skirt goes on with the shirt
        _copy_cloth(cloth, m.SHIRT, m.SKIRT)
    _copy_cloth(cloth, m.JACKET if cuts.jacket > 0.5 else m.SHIRT, m.HOOD)
    coat = cuts.jacket > 0.5 and not skirt and rng.random() < 0.35
    coat_length = float(rng.uniform(0.4, 0.95)) if coat else 0.0
    hair_end = float(rng.uniform(0.17, 0.56))
    thickness = _sample_thickness(rng, cuts, head)
    return Outfit(
        cuts, cloth, thickness, skirt, head == "long", float(rng.uniform(0.35, 1.0)), coat_length,
        hair_end, _accessory_of(rng, head),
    )  # fmt: skip


def _copy_cloth(cloth: Cloth, source: int, target: int) -> None:
    for table in cloth:
        table[target] = table[source]


def _accessory_of(rng: Rng, head: str) -> str:
    if head == "cap":
        return "peak" if rng.random() < 0.85 else "peak_behind"
    if head == "brimmed":
        return "brim" if rng.random() < 0.6 else "wide_brim"
    if head == "tied":
        return HAIR_STYLES[rng.integers(len(HAIR_STYLES))]
    return ""


def _sample_thickness(rng: Rng, cuts: Cuts, head: str) -> Array:
    """[M] float32, m."""
    thickness = np.zeros(NUM_MATERIALS, np.float32)
    thickness[m.SHIRT] = 0.003 + rng.gamma(1.4, 0.006)
    thickness[m.JACKET] = thickness[m.SHIRT] + 0.006 + rng.gamma(1.5, 0.006)
    thickness[m.TROUSERS] = 0.003 + rng.gamma(1.3, 0.006)
    thickness[m.BELT] = thickness[m.TROUSERS] + 0.003
    thickness[m.SHOES] = thickness[m.SOLE] = rng.uniform(0.008, 0.016)
    thickness[m.SOCKS], thickness[m.GLOVES] = 0.003, 0.004 + 0.008 * rng.random()
    thickness[m.HAIR] = rng.uniform(0.03, 0.07) if head == "big" else rng.uniform(0.004, 0.028)
    thickness[m.HAT] = rng.uniform(0.022, 0.04) if head == "helmet" else rng.uniform(0.010, 0.028)
    thickness[m.HOOD] = rng.uniform(0.012, 0.032)
    thickness[m.STRAP] = max(thickness[m.SHIRT], thickness[m.JACKET] * cuts.jacket) + 0.004
    thickness[m.BEARD] = 0.002 + 0.006 * cuts.beard
    thickness[m.LIP] = 0.001
    return thickness


_HEADS = ("short", "long", "tied", "big", "beanie", "cap", "brimmed", "helmet", "hood")
_HEAD_SHARES = (0.46, 0.20, 0.09, 0.03, 0.04, 0.08, 0.03, 0.04, 0.03)
_HATS = ("beanie", "cap", "brimmed", "helmet")


def _sample_cuts(rng: Rng, marks: Landmarks, skirt: bool, head: str, strap: int) -> Cuts:
    shoulder, wrist = marks.at("left_shoulder"), marks.at("left_wrist")
    hip, ankle = marks.at("left_hip"), marks.at("left_ankle")
    eye, ear, nose = marks.at("left_eye"), marks.at("left_ear"), marks.at("nose")
    neck = marks.at("neck")
    arm = wrist[0] - shoulder[0]
    hat, long_hair = head in _HATS, head in ("long", "tied")
    helmet = head == "helmet"
    loose = rng.random() < 0.3
    jacket = rng.random() < 0.28
    bare_top = not jacket and rng.random() < 0.05
    sleeve = (-0.05, 0.18, 0.40, 0.62, 0.97)[rng.choice(5, p=(0.12, 0.16, 0.28, 0.08, 0.36))]
    leg = (0.30, 0.72, 1.35, 1.85, 1.99)[rng.choice(5, p=(0.10, 0.12, 0.05, 0.13, 0.60))]
    leg_y = hip[1] - leg * (hip[1] - ankle[1]) / 2 + rng.normal(0, 0.012)
    boots = rng.random() < 0.12
    barefoot = rng.random() < 0.08
    shoe_height = rng.uniform(0.1, 0.3) if boots else rng.uniform(-0.03, 0.02)
    beard = rng.random() < 0.18 and not long_hair
    return Cuts(
        sleeve_x=shoulder[0] + sleeve * arm + rng.normal(0, 0.01),
        hem_y=_NOWHERE if bare_top else hip[1] + rng.choice((-0.10, -0.02, 0.06, 0.12)),
        neck_y=neck[1] - rng.uniform(0.004, 0.05),
        neck_drop=rng.choice((0.02, 0.05, 0.12, 0.17)),
        neck_width=rng.uniform(0.05, 0.11),
        jacket=float(jacket),
        jacket_sleeve_x=shoulder[0] + arm * (0.97 if rng.random() < 0.9 else -0.02),
        jacket_hem_y=hip[1] + rng.uniform(-0.16, 0.06),
        jacket_open=rng.choice((-1.0, 0.03, 0.06, 0.1)),
        waist_y=hip[1] + rng.uniform(0.04, 0.11),
        leg_y=hip[1] - 0.12 if skirt and rng.random() < 0.8 else leg_y,
        belt=0.012 if rng.random() < 0.3 else -1.0,
        shoe_y=-_NOWHERE if barefoot else ankle[1] + shoe_height,
        sock_y=ankle[1] + rng.choice((-0.1, 0.02, 0.06, 0.2, 0.33), p=(0.3, 0.2, 0.25, 0.1, 0.15)),
        glove_x=wrist[0] - 0.03 if rng.random() < 0.06 else _NOWHERE,
        hairline=_NOWHERE if not long_hair and rng.random() < 0.07 else rng.normal(0.0, 0.01),
        hair_slope=rng.normal(0.75, 0.1) if not long_hair else rng.normal(1.1, 0.1),
        hat=float(hat),
        hat_low=-0.01 if helmet else 0.042,
        hat_slope=0.5 if helmet else 0.12,
        hood=rng.uniform(0.072, 0.09) if head == "hood" else 0.0,
        strap=float(strap),
        strap_x=(0.105 if strap == m.TWO_STRAPS else 0.1) * rng.choice((-1, 1)),
        trouser_flare=rng.uniform(0.01, 0.055) if loose and not boots else 0.0,
        sleeve_flare=rng.uniform(0.0, 0.03) if loose else 0.0,
        hem_flare=rng.uniform(0.0, 0.035) if loose else 0.0,
        beard=rng.uniform(0.3, 1.0) if beard else 0.0,
        glasses=float(rng.choice(3, p=(0.82, 0.09, 0.09))),
        open_mouth=max(0.0, rng.normal(0, 0.5)),
        head_y=neck[1] + 0.01,
        shoulder_x=shoulder[0],
        ankle_y=ankle[1],
        eye_x=eye[0], eye_y=eye[1], eye_z=eye[2], nose_y=nose[1], nose_z=nose[2], ear_z=ear[2],
        seed=int(rng.integers(1 << 20)),
    )  # fmt: skip


def _sample_cloth(rng: Rng, split: str) -> Cloth:
    color = np.empty((NUM_MATERIALS, 2, 3), np.float32)
    pattern = np.zeros(NUM_MATERIALS, np.int32)
    fold = np.zeros(NUM_MATERIALS, np.float32)
    gloss = np.full(NUM_MATERIALS, 0.02, np.float32)
    weights = _pattern_weights(split)
    for k in (m.SHIRT, m.TROUSERS, m.JACKET, m.SKIRT, m.SHOES, m.HAT, m.SOCKS, m.BELT, m.GLOVES):
        color[k, 0], color[k, 1] = cloth_color(rng), cloth_color(rng)
        fold[k] = rng.uniform(0.15, 0.75)
        gloss[k] = rng.uniform(0.0, 0.12)
        pattern[k] = rng.choice(len(PATTERN_NAMES), p=weights)
    if rng.random() < 0.45:  # jeans and plain dark trousers
        color[m.TROUSERS, 0] = _DENIM[rng.integers(len(_DENIM))] * rng.uniform(0.6, 1.2)
        color[m.TROUSERS, 1] = color[m.TROUSERS, 0] * 0.7
        pattern[m.TROUSERS] = PATTERN_NAMES.index("mottled")
    for k in (m.TROUSERS, m.SHOES, m.BELT, m.SOCKS):
        if PATTERN_NAMES[pattern[k]] == "print" or rng.random() < 0.5:
            pattern[k] = 0
    gloss[m.SHOES], fold[m.SHOES], fold[m.BELT] = rng.uniform(0, 0.6), 0.1, 0.0
    color[m.SOLE] = rng.choice((0.02, 0.25, 0.85))
    for k in (m.THING, m.TRIM, m.METAL, m.STRAP):
        color[k, 0], color[k, 1] = cloth_color(rng), cloth_color(rng)
        gloss[k] = rng.uniform(0.0, 0.5)
    color[m.STRAP] = color[m.TRIM]
    if rng.random() < 0.6:
        color[m.METAL] = rng.uniform(0.05, 0.8) + rng.normal(0, 0.02, 3)
    if rng.random() < 0.3:
        pattern[m.THING] = rng.choice(len(PATTERN_NAMES), p=weights)
        fold[m.THING] = 0.2
    _color_head(rng, color, gloss)
    frequency = rng.uniform(6, 34, NUM_MATERIALS).astype(np.float32)
    seed = rng.integers(1 << 16, size=NUM_MATERIALS).astype(np.int32)
    return Cloth(np.clip(color, 0.0, 1.0) ** 2, pattern, seed, frequency, fold, gloss)


def _color_head(rng: Rng, color: Array, gloss: Array) -> None:
    """Skin between very light and very dark, features and hair that go with it. sRGB, in place."""
    tone = rng.beta(1.0, 1.25)
    skin = _blend(_SKIN_TONES, tone) * (1 + rng.normal(0, 0.035, 3))
    color[m.SKIN, 0] = skin
    color[m.SKIN, 1] = skin * np.array([0.97, 0.90, 0.88])
    hair_choices = _HAIR[: 3 + int(4 * (1 - tone))]
    hair = hair_choices[rng.integers(len(hair_choices))] * rng.uniform(0.8, 1.15)
    if rng.random() < 0.1:
        hair = np.array([0.62, 0.61, 0.60]) * rng.uniform(0.7, 1.3)
    color[m.HAIR, 0], color[m.HAIR, 1] = hair, hair * 0.55
    color[m.BROW] = hair * 0.7
    color[m.BEARD, 0], color[m.BEARD, 1] = skin, hair * 0.8
    color[m.EYE_WHITE] = np.array([0.86, 0.84, 0.82])
    color[m.IRIS] = np.array([0.13, 0.10, 0.08]) * rng.uniform(0.5, 1.8)
    color[m.LIP] = skin * np.array([0.82, 0.58, 0.56])
    color[m.GLASSES] = rng.uniform(0.0, 0.25)
    gloss[m.SKIN] = rng.uniform(0.0, 0.22)
    gloss[m.HAIR] = rng.uniform(0.05, 0.35)
    gloss[m.EYE_WHITE] = gloss[m.IRIS] = 0.3


def _pattern_weights(split: str) -> Array:
    weights = np.array([0.47, 0.09, 0.06, 0.08, 0.12, 0.06, 0.04, 0.08, 0.0, 0.0])
    if split == "heldout":
        weights[[PATTERN_NAMES.index(n) for n in HELD_OUT_PATTERNS]] = 0.12
    result: Array = weights / weights.sum()
    return result


_SKIN_TONES = np.array(
    [[0.96, 0.82, 0.74], [0.90, 0.72, 0.60], [0.78, 0.58, 0.44], [0.58, 0.40, 0.29],
     [0.40, 0.27, 0.20], [0.26, 0.18, 0.14]]
)  # fmt: skip
_HAIR = np.array(
    [[0.07, 0.06, 0.06], [0.14, 0.10, 0.08], [0.24, 0.16, 0.11], [0.40, 0.27, 0.17],
     [0.48, 0.24, 0.12], [0.66, 0.50, 0.30], [0.82, 0.70, 0.48]]
)  # fmt: skip
_DENIM = np.array(
    [[0.20, 0.27, 0.40], [0.35, 0.45, 0.60], [0.10, 0.12, 0.18], [0.07, 0.07, 0.08],
     [0.55, 0.48, 0.38], [0.34, 0.33, 0.31]]
)  # fmt: skip


def _blend(table: Array, position: float) -> Array:
    """Linear interpolation along the rows of `table`, position in [0, 1]."""
    at = position * (len(table) - 1)
    low = min(int(at), len(table) - 2)
    blended: Array = table[low] + (at - low) * (table[low + 1] - table[low])
    return blended


def cloth_color(rng: Rng) -> Array:
    """[3] sRGB: greys, blacks and whites often, muted colours mostly, loud ones now and then."""
    if rng.random() < 0.36:
        grey = rng.choice((0.06, 0.12, 0.3, 0.55, 0.8, 0.95)) + rng.normal(0, 0.04)
        return np.clip(grey + rng.normal(0, 0.012, 3), 0.02, 1.0)
    hue, value = rng.random(), rng.uniform(0.10, 0.98)
    saturation = rng.beta(1.3, 2.4) if rng.random() < 0.75 else rng.uniform(0.5, 1.0)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def sample_lights(rng: Rng, up: Array) -> tuple[Lights, float]:
    """Sky, ground and one to three directed lights; the first one throws the shadow.

    Args:
        up: [3] the world's up in the camera frame.

    Returns:
        the lights, and the strength of light 0's shadow (0: an overcast day).
    """
    how = _LIGHTINGS[rng.choice(len(_LIGHTINGS), p=_LIGHTING_SHARES)]
    count = int(rng.choice((1, 2, 3), p=(0.4, 0.4, 0.2)))
    direction = rng.normal(0, 1, (count, 3))
    direction[:, 2] -= 0.4  # rather from the camera's side
    direction += np.outer(rng.uniform(0.3, 1.5, count), up)
    contrast = rng.beta(1.6, 1.3)  # share of the light that has a direction
    warm = rng.normal(0, 0.10)
    tint = np.array([1 + warm, 1.0, 1 - warm])
    power = rng.dirichlet(np.full(count, 1.2))
    power = np.sort(power)[::-1]
    color = 1.9 * contrast * power[:, None] * tint * (1 + rng.normal(0, 0.06, (count, 3)))
    ambient = 0.2 + 0.9 * (1 - contrast)
    sky = ambient * np.array([1 - 0.6 * warm, 1.0, 1 + 0.6 * warm])
    if how != "plain":
        sky = _special_light(rng, how, up, direction, color, sky)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    ground = sky * rng.uniform(0.25, 0.8) * (1 + rng.normal(0, 0.08, 3))
    if rng.random() < 0.4:  # a bright window or a dark wood at one side
        up = up + rng.uniform(0.2, 0.9) * _unit(rng.normal(0, 1, 3))
        up = _unit(up)
    shadow = rng.uniform(0.5, 0.95) if rng.random() < 0.65 else 0.0
    lights = Lights(
        *(np.ascontiguousarray(v, dtype=np.float32) for v in (direction, color, sky, ground, up))
    )
    return lights, shadow


_LIGHTINGS = ("plain", "low_sun", "flash", "from_behind", "coloured")
_LIGHTING_SHARES = (0.60, 0.11, 0.09, 0.12, 0.08)


def _special_light(
    rng: Rng, how: str, up: Array, direction: Array, color: Array, sky: Array
) -> Array:
    """Change directions and colours [L, 3] of the lights in place; returns the new sky [3]."""
    if how == "low_sun":
        level = rng.normal(0, 1, 3)
        level -= (level @ up) * up
        direction[0] = _unit(level) + rng.uniform(0.05, 0.4) * up
        color[0] = rng.uniform(0.9, 1.7) * np.array([1.25, 0.88, rng.uniform(0.4, 0.7)])
        return rng.uniform(0.25, 0.6) * np.array([0.85, 0.92, 1.15])
    if how == "flash":  # beside the lens
        direction[0] = np.array([0.0, 0.0, -1.0]) + rng.normal(0, 0.12, 3)
        color[0] = rng.uniform(0.9, 1.6) * (1 + rng.normal(0, 0.04, 3))
        color[1:] *= 0.3
        return sky * rng.uniform(0.15, 0.5)
    if how == "from_behind":
        direction[0] = np.array([rng.normal(0, 0.5), 0.0, 1.0]) + rng.uniform(0.1, 0.9) * up
        color[0] *= rng.uniform(1.2, 2.0) / max(float(color[0].mean()), 1e-3)
        color[1:] *= 0.4
        return sky * rng.uniform(0.5, 0.9)
    for k in range(len(color)):  # a stage, a neon sign
        hue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.3, 0.85), 1.0)
        color[k] = np.array(hue) * rng.uniform(0.6, 1.6)
    return sky * rng.uniform(0.3, 0.8)


def _unit(vector: Array) -> Array:
    unit: Array = vector / np.linalg.norm(vector)
    return unit
