"""One Gauss-Newton step that pulls a pose towards the network's own 2D keypoints.

Rotations and keypoints come from the same network but from different layers, and keypoints are
better placed than the joints of the posed body. The step turns every joint a little, and moves the
body, so that projected joints come closer to the keypoints: each counts by how far off the network
expects it to be, and turning costs by how far off rotations are known to be (`prior_rad`). It has a
closed form, a linear system of 75 unknowns per person, and needs no learning.

The system is solved along the tree, as robots' dynamics are: what all keypoints behind a joint ask
of its parent's motion is a form of six variables, so that each joint costs one 3 x 3 system on the
way to the root and one product on the way back. The dense 75 x 75 system takes five times as long;
tests hold both equal.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from glnet_rt.contracts import Array
from glnet_rt.errors import ContractError
from glnet_rt.kinematics import Vector, as_float64, axis_turn, cross, matmul
from glnet_rt.skeleton import NUM_JOINTS, NUM_SKELETON, PARENTS

SHIFT_PRIOR_M = 1.0
NEAREST_M = 0.1  # points nearer than this say nothing that could be believed

_PARENT = np.array(PARENTS, dtype=np.int64)
_jit = njit(cache=True, nogil=True, error_model="numpy")


def kinematic_fit(
    rotmats: Array,
    rest: Array,
    pelvis: Array,
    keypoints_uv: Array,
    spread: Array,
    offset: Array,
    focal: Array | float,
    prior_rad: float,
) -> Array:
    """Rotations after one step.

    Args:
        rotmats: [B, 24, 3, 3], local; index 0 is camera from body.
        rest: [B, 29, 3] m, the unposed skeleton.
        pelvis: [B, 3] m, where it stands in the camera.
        keypoints_uv: [B, 29, 2] in the crop.
        spread: [B, 29], expected |du| + |dv| of each, above zero.
        offset: [B, 2], as for `camera.lift`.
        focal: focal length over crop side: one number, or [B, 2].
        prior_rad: standard deviation of a joint's rotation, above zero.

    Returns:
        [B, 24, 3, 3] float64.

    Raises:
        ContractError: an argument has the wrong shape, or a spread is not above zero.
    """
    batch = len(rotmats)
    if not (spread > 0).all():
        raise ContractError(
            "an expected error is not above zero",
            got=float(spread.min()),
            expected="crop sides, above zero",
            fix="the model diverged on this picture; run `glnet-rt verify`",
        )
    turned = np.empty((batch, NUM_JOINTS, 3, 3))
    _fit_all(
        as_float64("rotmats", rotmats, (batch, NUM_JOINTS, 3, 3)),
        as_float64("rest", rest, (batch, NUM_SKELETON, 3)),
        as_float64("pelvis", pelvis, (batch, 3)),
        as_float64("keypoints_uv", keypoints_uv, (batch, NUM_SKELETON, 2)),
        as_float64("spread", spread, (batch, NUM_SKELETON)),
        as_float64("offset", offset, (batch, 2)),
        np.full((batch, 2), focal, np.float64),
        1 / prior_rad**2,
        turned,
    )
    return turned


@_jit
def _fit_all(
    local: Array,
    rest: Array,
    pelvis: Array,
    uv: Array,
    spread: Array,
    offset: Array,
    focal: Array,
    stiffness: float,
    turned: Array,
) -> None:
    world = np.empty((NUM_JOINTS, 3, 3))
    points = np.empty((NUM_SKELETON, 3))
    asked = np.empty((NUM_JOINTS + 1, 6, 7))  # of each joint, and last of the shift: see `_ask`
    solved = np.empty((NUM_JOINTS + 1, 3, 10))  # see `_settle`
    turns = np.empty((NUM_JOINTS, 3))
    for person in range(len(local)):
        _pose(local[person], rest[person], pelvis[person], world, points)
        asked[:] = 0.0
        for k in range(NUM_SKELETON):
            if points[k, 2] >= NEAREST_M:  # the pelvis hangs on no joint, hence on [-1]: the shift
                _ask(
                    points, k, uv[person, k], spread[person, k], offset[person], focal[person],
                    asked[_PARENT[k]],
                )  # fmt: skip
        for joint in range(NUM_JOINTS - 1, -1, -1):
            place = _from_pelvis(points, joint)
            _settle(place, stiffness, asked[joint], solved[joint], asked[_PARENT[joint]])
        _descend(points, asked[NUM_JOINTS], solved, turns)
        _turn(local[person], world, turns, turned[person])


@_jit
def _pose(local: Array, rest: Array, pelvis: Array, world: Array, points: Array) -> None:
    """Camera from joint of all 24, and all 29 points."""
    world[0] = local[0]
    points[0] = pelvis
    for k in range(1, NUM_SKELETON):
        parent = _PARENT[k]
        for a in range(3):
            total = points[parent, a]
            for b in range(3):
                total += world[parent, a, b] * (rest[k, b] - rest[parent, b])
            points[k, a] = total
        if k < NUM_JOINTS:
            matmul(world[parent], local[k], world[k])


@_jit
def _ask(
    points: Array, k: int, uv: Array, spread: float, offset: Array, focal: Array, asked: Array
) -> None:
    """Add both rows of a keypoint to what is asked of the motion x of the joint it hangs on.

    A motion is six numbers: a turn in the camera's frame, radians, and how it and the shift move
    what is at the pelvis, metres. Of `asked`, [6, 7], the first six columns are A and the last is
    b: the keypoints' weighted squares are x . A x / 2 - b . x, but for a constant.
    """
    depth = points[k, 2]
    place = _from_pelvis(points, k)
    weight = 1 / spread**2
    for axis in range(2):
        slope = focal[axis] / depth
        fall = -slope * points[k, axis] / depth
        residual = uv[axis] - (slope * points[k, axis] - offset[axis])
        # Of the projection by the point itself, and by a turn about the pelvis.
        gradient = (slope if axis == 0 else 0.0, slope if axis == 1 else 0.0, fall)
        lever = cross(place, gradient)
        row = (*lever, *gradient, residual)
        for i in range(6):
            for j in range(7):
                asked[i, j] += weight * row[i] * row[j]


@_jit
def _settle(place: Vector, stiffness: float, asked: Array, solved: Array, parent: Array) -> None:
    """Make a joint's turn a function of its parent's motion, and ask the rest of the parent.

    Args:
        place: of the joint, from the pelvis, m: a turn w there moves what is at the pelvis by
            place x w.
        stiffness: against the turn.
        asked: [6, 7] of the joint.
        solved: [3, 10], out: the turn's normal equations L L^T w = b - C x, x the parent's motion,
            as L^-1 C, L^-1 b and L^T.
        parent: [6, 7], in and out, what is asked of the parent.
    """
    for j in range(7):
        pull = _felt(place, asked[:, j])
        for i in range(3):
            solved[i, j] = pull[i]
    for i in range(3):
        pull = _felt(place, solved[i])
        for j in range(3):
            solved[i, 7 + j] = pull[j]
    _reduce(stiffness, solved)
    for i in range(6):
        for j in range(7):
            met = solved[0, i] * solved[0, j] + solved[1, i] * solved[1, j]
            parent[i, j] += asked[i, j] - met - solved[2, i] * solved[2, j]


@_jit
def _felt(place: Vector, motion: Array) -> Vector:
    """What a turn at `place` feels of forces along a motion's first six numbers."""
    turn = cross((motion[3], motion[4], motion[5]), place)
    return motion[0] + turn[0], motion[1] + turn[1], motion[2] + turn[2]


@_jit
def _reduce(stiffness: float, system: Array) -> None:
    """Cholesky in place: [C, b, S] becomes [L^-1 C, L^-1 b, L^T], L L^T = S + stiffness.

    The stiffness keeps it definite.
    """
    for i in range(3):
        system[i, 7 + i] += stiffness
    for i in range(3):
        scale = 1 / math.sqrt(system[i, 7 + i])
        for j in range(10):
            system[i, j] *= scale
        for row in range(i + 1, 3):
            factor = system[i, 7 + row]
            for j in range(10):
                system[row, j] -= factor * system[i, j]


@_jit
def _back(system: Array, motion: Array) -> Vector:
    """Solve what `_reduce` made, given the parent's motion."""
    x, y, z = system[0, 6], system[1, 6], system[2, 6]
    for j in range(6):
        x -= system[0, j] * motion[j]
        y -= system[1, j] * motion[j]
        z -= system[2, j] * motion[j]
    z /= system[2, 9]
    y = (y - system[1, 9] * z) / system[1, 8]
    x = (x - system[0, 8] * y - system[0, 9] * z) / system[0, 7]
    return x, y, z


@_jit
def _descend(points: Array, asked: Array, solved: Array, turns: Array) -> None:
    """Solve for the shift, of which `asked` is asked, and then for all turns, root first."""
    motion = np.zeros((NUM_JOINTS + 1, 6))
    last = solved[NUM_JOINTS]
    for i in range(3):
        for j in range(6):
            last[i, j] = 0.0
        last[i, 6] = asked[3 + i, 6]
        for j in range(3):
            last[i, 7 + j] = asked[3 + i, 3 + j]
    _reduce(1 / SHIFT_PRIOR_M**2, last)
    shift = _back(last, motion[0])
    for i in range(3):
        motion[NUM_JOINTS, 3 + i] = shift[i]
    for joint in range(NUM_JOINTS):
        parent = motion[_PARENT[joint]]
        turn = _back(solved[joint], parent)
        moved = cross(_from_pelvis(points, joint), turn)
        for i in range(3):
            turns[joint, i] = turn[i]
            motion[joint, i] = parent[i] + turn[i]
            motion[joint, 3 + i] = parent[3 + i] + moved[i]


@_jit
def _from_pelvis(points: Array, k: int) -> Vector:
    return points[k, 0] - points[0, 0], points[k, 1] - points[0, 1], points[k, 2] - points[0, 2]


@_jit
def _turn(local: Array, world: Array, turns: Array, turned: Array) -> None:
    """Turns in the camera's frame as local rotations: parent^T exp(turn) world."""
    turned_by = np.empty((3, 3))
    moved = np.empty((3, 3))
    for j in range(NUM_JOINTS):
        _exponential(turns[j, 0], turns[j, 1], turns[j, 2], turned_by)
        matmul(turned_by, world[j], moved)
        if j == 0:
            turned[0] = moved
            continue
        parent = world[_PARENT[j]]
        for a in range(3):
            for b in range(3):
                turned[j, a, b] = (
                    parent[0, a] * moved[0, b]
                    + parent[1, a] * moved[1, b]
                    + parent[2, a] * moved[2, b]
                )


@_jit
def _exponential(x: float, y: float, z: float, out: Array) -> None:
    """Rotation by the vector (x, y, z), radians."""
    angle = math.sqrt(x * x + y * y + z * z)
    scale = 1 / angle if angle > 0 else 0.0
    axis_turn((x * scale, y * scale, z * scale), math.cos(angle), math.sin(angle), out)
