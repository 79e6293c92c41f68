"""Swing-twist inverse kinematics: 29 positions and 23 twists to 24 rotations (GLNet §3.1).

A joint's rotation relative to its parent is R = R_swing R_twist: first the twist about the rest
bone, then the shortest rotation that brings the rest bone onto the predicted one.
Differs from the paper, which writes R_twist R_swing: that holds only for a twist about the target
bone.

`train/model/kinematics.py` holds the differentiable twin; a test keeps the two equal.
Everything is computed in float64 and returned in the dtype of the first argument.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from glnet_rt.contracts import Array
from glnet_rt.errors import ContractError
from glnet_rt.skeleton import (
    BONE_CHILD,
    NUM_JOINTS,
    NUM_SKELETON,
    NUM_TWISTS,
    PARENTS,
    ROOT_CHILDREN,
)

# Beyond this the drifted parent says more about the bone than the predicted joint: see `_target`.
FALLBACK_M = 0.015
# Shorter than this, metres, a bone has no direction worth following.
TINY_M = 1e-8
# sin of the swing below which an opposite bone leaves the swing axis open, and one is chosen.
TINY_SINE = 1e-6
# The dominant quaternion is reached by N -> N² this often: exact for eigenvalue gaps above 1e-4.
SQUARINGS = 20

_PARENT = np.array(PARENTS, dtype=np.int64)
_CHILD = np.array(BONE_CHILD, dtype=np.int64)
_ROOT_CHILD = np.array(ROOT_CHILDREN, dtype=np.int64)

Vector = tuple[float, float, float]
UP: Vector = (0.0, 1.0, 0.0)
NOWHERE: Vector = (0.0, 0.0, 0.0)


def inverse_kinematics(skeleton_xyz: Array, twist: Array, rest: Array) -> Array:
    """Joint rotations that pose the rest skeleton like the predicted one.

    Bone lengths come from `rest`; of `skeleton_xyz` only directions are followed, so a skeleton
    with wrong bone lengths still gives a valid body. Zero-length bones give no swing.

    Args:
        skeleton_xyz: [B, 29, 3] float32 or float64, m, camera frame, any origin.
        twist: [B, 23, 2], (cos, sin) of the twist of joints 1..23; normalised here.
        rest: [B, 29, 3], m, joints of the unposed body.

    Returns:
        [B, 24, 3, 3], dtype of `skeleton_xyz`: rotation of each joint relative to its parent;
        index 0 is the global orientation, camera from body.

    Raises:
        ContractError: an argument has the wrong shape.
    """
    batch = len(skeleton_xyz)
    points = as_float64("skeleton_xyz", skeleton_xyz, (batch, NUM_SKELETON, 3))
    turns = as_float64("twist", twist, (batch, NUM_TWISTS, 2))
    bones = as_float64("rest", rest, (batch, NUM_SKELETON, 3))
    rotmats = np.empty((batch, NUM_JOINTS, 3, 3))
    _inverse_kinematics(points, turns, bones, rotmats)
    return rotmats.astype(skeleton_xyz.dtype, copy=False)


def twist_from_rotations(rotmats: Array, rest: Array) -> Array:
    """The twist `inverse_kinematics` needs to give `rotmats` back: its training target.

    Where a joint turns its bone to point exactly backwards, the swing axis is a convention; both
    functions share it, so the twist stays defined.

    Args:
        rotmats: [B, 24, 3, 3] float, rotation of each joint relative to its parent.
        rest: [B, 29, 3], m, joints of the unposed body.

    Returns:
        [B, 23, 2] float32, (cos, sin) of the twist of joints 1..23 about their rest bones.

    Raises:
        ContractError: an argument has the wrong shape.
    """
    batch = len(rotmats)
    local = as_float64("rotmats", rotmats, (batch, NUM_JOINTS, 3, 3))
    bones = as_float64("rest", rest, (batch, NUM_SKELETON, 3))
    twist = np.empty((batch, NUM_TWISTS, 2))
    _twist_from_rotations(local, bones, twist)
    return twist.astype(np.float32)


def as_float64(name: str, value: Array, shape: tuple[int, ...]) -> Array:
    """`value` as a C-contiguous float64 array; the kernels trust its shape."""
    if value.shape != shape:
        raise ContractError(
            f"{name} has the wrong shape",
            got=list(value.shape),
            expected=list(shape),
            fix="keep the batch axis, also for one person: value[None]",
        )
    return np.ascontiguousarray(value, dtype=np.float64)


# Kernels. Vectors are 3-tuples, so that they live in registers; matrices are written in place.
_jit = njit(cache=True, nogil=True)


@_jit
def _inverse_kinematics(points: Array, twist: Array, rest: Array, rotmats: Array) -> None:
    placed = np.empty((NUM_JOINTS, 3))  # joints as reconstructed so far
    world = np.empty((NUM_JOINTS, 3, 3))  # camera from joint
    for person in range(len(points)):
        _best_rotation(rest[person], points[person], world[0])
        _descend(points[person], twist[person], rest[person], rotmats[person], placed, world)


@_jit
def _descend(
    points: Array, twist: Array, rest: Array, rotmats: Array, placed: Array, world: Array
) -> None:
    swing = np.empty((3, 3))
    turn = np.empty((3, 3))
    # Element by element: whole-row assignments cost numba seconds of compilation.
    for i in range(3):
        placed[0, i] = points[0, i]
        for j in range(3):
            rotmats[0, i, j] = world[0, i, j]
    for joint in range(1, NUM_JOINTS):
        parent, child = _PARENT[joint], _CHILD[joint]
        to_camera = world[parent]
        _place(placed, joint, parent, _rotate(to_camera, _minus(rest, joint, rest, parent)))
        bone = _minus(rest, child, rest, joint)
        axis = _unit(bone, UP)
        length = _norm(bone)
        target = _target(points, child, joint, placed, length)
        direction = _unit(_rotate_back(to_camera, target), axis)
        if length < TINY_M:
            direction = axis
        _swing(axis, direction, swing)
        axis_turn(axis, twist[joint - 1, 0], twist[joint - 1, 1], turn)
        matmul(swing, turn, rotmats[joint])
        matmul(to_camera, rotmats[joint], world[joint])


@_jit
def _twist_from_rotations(local: Array, rest: Array, twist: Array) -> None:
    swing = np.empty((3, 3))
    for person in range(len(local)):
        bones = rest[person]
        for joint in range(1, NUM_JOINTS):
            rotation = local[person, joint]
            axis = _unit(_minus(bones, _CHILD[joint], bones, joint), UP)
            _swing(axis, _unit(_rotate(rotation, axis), axis), swing)
            # R_swingᵀ R turns about the axis: its trace is 1 + 2 cos, its skew part sin · axis.
            trace, sin = 0.0, 0.0
            for k in range(3):
                i, j = (k + 1) % 3, (k + 2) % 3
                for row in range(3):
                    trace += swing[row, k] * rotation[row, k]
                    sin += axis[k] * swing[row, j] * rotation[row, i]
                    sin -= axis[k] * swing[row, i] * rotation[row, j]
            cos, sin = _unit_turn(trace - 1.0, sin)
            twist[person, joint - 1, 0] = cos
            twist[person, joint - 1, 1] = sin


@_jit
def _place(placed: Array, joint: int, parent: int, offset: Vector) -> None:
    placed[joint, 0] = placed[parent, 0] + offset[0]
    placed[joint, 1] = placed[parent, 1] + offset[1]
    placed[joint, 2] = placed[parent, 2] + offset[2]


@_jit
def _target(points: Array, child: int, joint: int, placed: Array, length: float) -> Vector:
    """The bone to aim at, camera frame: from the reconstructed joint to the predicted child.

    Aiming from the reconstructed joint keeps errors from adding up along the limb. Where it would
    end more than FALLBACK_M from where the predicted bone, cut to length, ends, the reconstruction
    has drifted and the predicted direction is followed as it is.
    """
    aimed = _minus(points, child, placed, joint)
    predicted = _minus(points, child, points, joint)
    unit = _unit(predicted, NOWHERE)
    gap = (
        aimed[0] - length * unit[0],
        aimed[1] - length * unit[1],
        aimed[2] - length * unit[2],
    )
    return predicted if _norm(gap) > FALLBACK_M else aimed


@_jit
def _swing(t: Vector, p: Vector, out: Array) -> None:
    """Shortest rotation from unit `t` to unit `p`; valid up to and at p = -t."""
    w = cross(t, p)
    cos = _dot(t, p)
    if cos >= 0.0:
        _rotation_between(w, cos, out)
        return
    # Half a turn about an axis across the bone takes t to -t; the rest of the way is short, hence
    # well conditioned. Along t x p, the two add up to the shortest rotation.
    sine = _norm(w)
    axis = _perpendicular(t)
    if sine > TINY_SINE:
        along = _dot(w, t)
        axis = _unit((w[0] - along * t[0], w[1] - along * t[1], w[2] - along * t[2]), axis)
    _rotation_between((-w[0], -w[1], -w[2]), -cos, out)
    for i in range(3):
        onto = 2.0 * (out[i, 0] * axis[0] + out[i, 1] * axis[1] + out[i, 2] * axis[2])
        for j in range(3):
            out[i, j] = onto * axis[j] - out[i, j]


@_jit
def _rotation_between(w: Vector, cos: float, out: Array) -> None:
    """Rodrigues' formula for the axis `w` of length sin, free of division by the sine; cos >= 0."""
    k = 1.0 / (1.0 + cos)
    for i in range(3):
        for j in range(3):
            out[i, j] = k * w[i] * w[j]
        out[i, i] += cos
    _add_skew(w, 1.0, out)


@_jit
def axis_turn(axis: Vector, cos: float, sin: float, out: Array) -> None:
    """Rotation about a unit axis by the angle of (cos, sin); (0, 0) turns nothing."""
    cos, sin = _unit_turn(cos, sin)
    for i in range(3):
        for j in range(3):
            out[i, j] = (1.0 - cos) * axis[i] * axis[j]
        out[i, i] += cos
    _add_skew(axis, sin, out)


@_jit
def _unit_turn(cos: float, sin: float) -> tuple[float, float]:
    length = math.hypot(cos, sin)
    if length < 1e-12:
        return 1.0, 0.0
    return cos / length, sin / length


@_jit
def _best_rotation(rest: Array, points: Array, out: Array) -> None:
    """Rotation that best brings the root's three rest bones onto the predicted ones.

    Horn's quaternion: the eigenvector of the largest eigenvalue of a symmetric 4x4 matrix N, here
    by squaring N (shifted to be positive) until that eigenvalue alone is left. No SVD, so that the
    torch twin can be exported; never a reflection.
    """
    s = np.zeros((3, 3))
    total = 0.0
    for child in _ROOT_CHILD:
        a = _minus(rest, child, rest, 0)
        b = _minus(points, child, points, 0)
        total += _norm(a) * _norm(b)
        for i in range(3):
            for j in range(3):
                s[i, j] += a[i] * b[j]
    if total < TINY_M * TINY_M:
        axis_turn(UP, 1.0, 0.0, out)
        return
    n = np.empty((4, 4))
    _horn_matrix(s, n)
    for i in range(4):
        n[i, i] += total  # all eigenvalues lie in [-total, total]
    square = np.empty((4, 4))
    for _ in range(SQUARINGS):
        trace = n[0, 0] + n[1, 1] + n[2, 2] + n[3, 3]
        for i in range(4):
            for j in range(4):
                square[i, j] = n[i, j] / trace
        for i in range(4):
            for j in range(4):
                n[i, j] = 0.0
                for k in range(4):
                    n[i, j] += square[i, k] * square[k, j]
    pivot = 0
    for i in range(1, 4):
        if n[i, i] > n[pivot, pivot]:
            pivot = i
    _unitquat_to_rotmat(n[pivot], out)


@_jit
def _horn_matrix(s: Array, n: Array) -> None:
    """N of Horn (1987) from s = sum of rest bone x predicted bone; quaternions are (w, x, y, z)."""
    n[0, 0] = s[0, 0] + s[1, 1] + s[2, 2]
    n[1, 1] = s[0, 0] - s[1, 1] - s[2, 2]
    n[2, 2] = s[1, 1] - s[0, 0] - s[2, 2]
    n[3, 3] = s[2, 2] - s[0, 0] - s[1, 1]
    n[0, 1] = n[1, 0] = s[1, 2] - s[2, 1]
    n[0, 2] = n[2, 0] = s[2, 0] - s[0, 2]
    n[0, 3] = n[3, 0] = s[0, 1] - s[1, 0]
    n[1, 2] = n[2, 1] = s[0, 1] + s[1, 0]
    n[1, 3] = n[3, 1] = s[2, 0] + s[0, 2]
    n[2, 3] = n[3, 2] = s[1, 2] + s[2, 1]


@_jit
def _unitquat_to_rotmat(q: Array, out: Array) -> None:
    scale = 2.0 / (q[0] ** 2 + q[1] ** 2 + q[2] ** 2 + q[3] ** 2)
    for i in range(3):
        for j in range(3):
            out[i, j] = scale * q[i + 1] * q[j + 1]
        out[i, i] += scale * q[0] ** 2 - 1.0
    _add_skew((q[1], q[2], q[3]), scale * q[0], out)


@_jit
def _add_skew(v: Vector, factor: float, out: Array) -> None:
    out[0, 1] -= factor * v[2]
    out[0, 2] += factor * v[1]
    out[1, 0] += factor * v[2]
    out[1, 2] -= factor * v[0]
    out[2, 0] -= factor * v[1]
    out[2, 1] += factor * v[0]


@_jit
def matmul(a: Array, b: Array, out: Array) -> None:
    for i in range(3):
        for j in range(3):
            out[i, j] = a[i, 0] * b[0, j] + a[i, 1] * b[1, j] + a[i, 2] * b[2, j]


@_jit
def _rotate(m: Array, v: Vector) -> Vector:
    return (
        m[0, 0] * v[0] + m[0, 1] * v[1] + m[0, 2] * v[2],
        m[1, 0] * v[0] + m[1, 1] * v[1] + m[1, 2] * v[2],
        m[2, 0] * v[0] + m[2, 1] * v[1] + m[2, 2] * v[2],
    )


@_jit
def _rotate_back(m: Array, v: Vector) -> Vector:
    return (
        m[0, 0] * v[0] + m[1, 0] * v[1] + m[2, 0] * v[2],
        m[0, 1] * v[0] + m[1, 1] * v[1] + m[2, 1] * v[2],
        m[0, 2] * v[0] + m[1, 2] * v[1] + m[2, 2] * v[2],
    )


@_jit
def _perpendicular(t: Vector) -> Vector:
    """A unit vector across unit `t`: from the coordinate axis that lies least along it."""
    x, y, z = abs(t[0]), abs(t[1]), abs(t[2])
    if x <= y and x <= z:
        return _unit((0.0, -t[2], t[1]), t)
    if y <= z:
        return _unit((t[2], 0.0, -t[0]), t)
    return _unit((-t[1], t[0], 0.0), t)


@_jit
def _unit(v: Vector, otherwise: Vector) -> Vector:
    length = _norm(v)
    if length < TINY_M:
        return otherwise
    return v[0] / length, v[1] / length, v[2] / length


@_jit
def _minus(a: Array, i: int, b: Array, j: int) -> Vector:
    """a[i] - b[j], rows of [N, 3]."""
    return a[i, 0] - b[j, 0], a[i, 1] - b[j, 1], a[i, 2] - b[j, 2]


@_jit
def cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@_jit
def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@_jit
def _norm(v: Vector) -> float:
    return math.sqrt(_dot(v, v))
