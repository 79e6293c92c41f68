"""Joint angles in anatomical words, their limits, and the arm solved for a hand position.

A pose is `angles` [24, 3] float64, degrees, row = SMPL joint. Left and right share one convention,
so a symmetric pose has equal rows. The columns mean, by joint:

    pelvis                  (unused; the root's rotation is handed over separately)
    spine1-3, neck, head    (twist to the left, flexion forward, bend to the right)
    hip                     (flexion, abduction, outward rotation)
    knee                    (flexion, rotation, -)
    ankle                   (plantar flexion, turn out, tilt)
    foot                    (toe extension, -, -)
    collar                  (protraction, elevation, -)
    shoulder                (flexion, lateral elevation, twist): (0, 0, 0) hangs, (0, 90, 0) is the
                            T-pose, (90, 0, 0) points forward, (180, 0, 0) overhead
    elbow                   (flexion, pronation, -)
    wrist, hand             (flexion, deviation, -)

Body frame: x left, y up, z forward, metres; the rest pose is a T.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.skeleton import NUM_JOINTS, SMPL_JOINTS

JOINT = {name: i for i, name in enumerate(SMPL_JOINTS)}
X, Y, Z = 0, 1, 2

# kind -> (axes of the three elementary rotations, sign of each, mirrored on the right side?,
#          limits of each angle in degrees)
_KINDS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[bool, bool, bool],
                        tuple[tuple[float, float], ...]]] = {
    "spine1": ((Y, X, Z), (1, 1, 1), (False,) * 3, ((-15, 15), (-12, 35), (-14, 14))),
    "spine2": ((Y, X, Z), (1, 1, 1), (False,) * 3, ((-15, 15), (-10, 25), (-12, 12))),
    "spine3": ((Y, X, Z), (1, 1, 1), (False,) * 3, ((-15, 15), (-10, 20), (-10, 10))),
    "neck": ((Y, X, Z), (1, 1, 1), (False,) * 3, ((-38, 38), (-28, 30), (-20, 20))),
    "head": ((Y, X, Z), (1, 1, 1), (False,) * 3, ((-38, 38), (-28, 28), (-20, 20))),
    "hip": ((X, Z, Y), (-1, 1, 1), (False, True, True), ((-25, 125), (-18, 55), (-35, 50))),
    "knee": ((X, Y, Z), (1, 1, 1), (False, True, True), ((0, 150), (-12, 12), (0, 0))),
    "ankle": ((X, Y, Z), (1, 1, 1), (False, True, True), ((-28, 48), (-15, 20), (-15, 15))),
    "foot": ((X, Y, Z), (-1, 1, 1), (False, True, True), ((-10, 45), (0, 0), (0, 0))),
    "collar": ((Y, Z, X), (-1, 1, 1), (True, True, False), ((-14, 24), (-8, 34), (0, 0))),
    "shoulder": ((X, Z, X), (-1, 1, 1), (False, True, False), ((-55, 180), (-48, 92), (-85, 85))),
    "elbow": ((Y, X, Z), (-1, 1, 1), (True, False, True), ((0, 148), (-80, 80), (0, 0))),
    "wrist": ((Z, Y, X), (-1, 1, 1), (True, True, False), ((-60, 65), (-20, 32), (0, 0))),
    "hand": ((Z, Y, X), (-1, 1, 1), (True, True, False), ((-8, 55), (-6, 6), (0, 0))),
}  # fmt: skip
_T_POSE_DEG = 90.0  # the rest pose holds the arms out: a lateral elevation of 90 degrees


def _tables() -> tuple[Array, Array, Array, Array]:
    """axes [24, 3] int64, signs [24, 3], offsets [24, 3] degrees, limits [24, 3, 2] degrees."""
    axes = np.tile(np.array([X, Y, Z]), (NUM_JOINTS, 1))
    signs, offsets = np.ones((NUM_JOINTS, 3)), np.zeros((NUM_JOINTS, 3))
    limits = np.zeros((NUM_JOINTS, 3, 2))
    for j, name in enumerate(SMPL_JOINTS[1:], start=1):
        side = -1 if name.startswith("right_") else 1
        kind = name.split("_")[-1]
        axes[j], sign, mirrored, limits[j] = _KINDS[kind]
        signs[j] = [s * (side if m else 1) for s, m in zip(sign, mirrored, strict=True)]
        if kind == "shoulder":
            offsets[j, 1] = -side * _T_POSE_DEG
    return axes, signs, offsets, limits


AXES, SIGNS, OFFSETS, LIMITS = _tables()


def clip_to_limits(angles: Array) -> Array:
    """The nearest pose [24, 3] in degrees that every joint can reach."""
    return np.clip(angles, LIMITS[..., 0], LIMITS[..., 1])


@nb.njit(cache=True, nogil=True)
def _turn(axis: int, angle: float) -> Array:
    """[3, 3] float64 rotation by `angle` rad about a coordinate axis."""
    c, s = np.cos(angle), np.sin(angle)
    out = np.zeros((3, 3))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    out[axis, axis] = 1.0
    out[a, a] = c
    out[b, b] = c
    out[a, b] = -s
    out[b, a] = s
    return out


@nb.njit(cache=True, nogil=True)
def _compose(axes: Array, radians: Array) -> Array:
    out = np.empty((axes.shape[0], 3, 3))
    for j in range(axes.shape[0]):
        out[j] = _turn(axes[j, 0], radians[j, 0]) @ (
            _turn(axes[j, 1], radians[j, 1]) @ _turn(axes[j, 2], radians[j, 2])
        )
    return out


def turn(axis: int, degrees: float) -> Array:
    """[3, 3] float64 rotation about one coordinate axis (`X`, `Y` or `Z`)."""
    return _turn(axis, np.radians(degrees))


def angles_to_rotmats(angles: Array) -> Array:
    """[24, 3] degrees -> [24, 3, 3] float64 local rotations; index 0 is the identity."""
    rotmats: Array = _compose(AXES, np.radians(SIGNS * angles + OFFSETS))
    rotmats[0] = np.eye(3)
    return rotmats


@nb.njit(cache=True, nogil=True)
def arm_angles_for(target: Array, pole: Array, upper_m: float, fore_m: float) -> Array:
    """Shoulder and elbow angles that bring the left wrist to a point; mirror x for the right arm.

    Args:
        target: [3] wrist position relative to the shoulder, collar frame, m.
        pole: [3] direction in which the elbow should stick out, collar frame.
        upper_m, fore_m: bone lengths.

    Returns:
        [4]: shoulder flexion, lateral elevation, twist; elbow flexion. Degrees, not yet clipped.
    """
    distance = max(_norm(target), 1e-9)
    length = min(max(distance, 0.12), 0.999 * (upper_m + fore_m))
    along = target / distance
    cos_inner = (upper_m**2 + length**2 - fore_m**2) / (2 * upper_m * length)
    inner = np.arccos(min(max(cos_inner, -1.0), 1.0))
    side = pole - (pole * along).sum() * along
    side = side / max(_norm(side), 1e-9)
    upper = along * np.cos(inner) + side * np.sin(inner)
    fore = along * length - upper * upper_m
    fore = fore / _norm(fore)
    cos_elbow = min(max((upper * fore).sum(), -1.0), 1.0)
    bend = fore - cos_elbow * upper
    if _norm(bend) < 1e-6:  # a straight arm bends either way: away from the pole
        bend = -side
    bend = bend / _norm(bend)
    # The shoulder's rotation has columns (upper, bend x upper, bend): undo it as X, Z, X turns.
    middle_x = bend[1] * upper[2] - bend[2] * upper[1]
    beta = np.degrees(np.arccos(min(max(upper[0], -1.0), 1.0)))
    flexion = -np.degrees(np.arctan2(-upper[2], -upper[1]))
    twist = np.degrees(np.arctan2(-bend[0], middle_x))
    if flexion < -110:  # reaching up and back, not down and back
        flexion += 360
    return np.array([flexion, 90.0 - beta, twist, np.degrees(np.arccos(cos_elbow))])


@nb.njit(cache=True, nogil=True)
def _norm(vector: Array) -> float:
    return float(np.sqrt((vector * vector).sum()))
