"""One Gauss-Newton step that pulls a pose towards the network's own 2D keypoints.

Rotations and keypoints come from the same network but from different layers, and keypoints are
better placed than the joints of the posed body. The step turns every joint a little, and moves the
body, so that projected joints come closer to the keypoints: each counts by how far off the network
expects it to be, and turning costs by how far off rotations are known to be (`prior_rad`). It has a
closed form, one 75 x 75 system per person, and needs no learning.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from glnet_rt.contracts import Array
from glnet_rt.errors import ContractError
from glnet_rt.kinematics import as_float64, axis_turn, matmul
from glnet_rt.skeleton import NUM_JOINTS, NUM_SKELETON, PARENTS

UNKNOWNS = 3 * NUM_JOINTS + 3  # a small turn of every joint in the camera's frame, and a shift
SHIFT_PRIOR_M = 1.0
NEAREST_M = 0.1  # points nearer than this say nothing that could be believed

_PARENT = np.array(PARENTS, dtype=np.int64)
_jit = njit(cache=True, nogil=True)


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
        np.ascontiguousarray(np.broadcast_to(np.asarray(focal, np.float64), (batch, 2))),
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
    hessian = np.empty((UNKNOWNS, UNKNOWNS))
    step = np.empty(UNKNOWNS)
    for person in range(len(local)):
        _pose(local[person], rest[person], pelvis[person], world, points)
        hessian[:] = 0.0
        step[:] = 0.0
        for i in range(UNKNOWNS):
            hessian[i, i] = stiffness if i < 3 * NUM_JOINTS else 1 / SHIFT_PRIOR_M**2
        for k in range(NUM_SKELETON):
            if points[k, 2] >= NEAREST_M:
                _add_keypoint(
                    k, points, uv[person, k], spread[person, k], offset[person], focal[person],
                    hessian, step,
                )  # fmt: skip
        _solve(hessian, step)
        _turn(local[person], world, step, turned[person])


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
def _add_keypoint(
    k: int,
    points: Array,
    uv: Array,
    spread: float,
    offset: Array,
    focal: Array,
    hessian: Array,
    step: Array,
) -> None:
    """Both rows of one keypoint; only the joints it hangs on and the shift have a part in them."""
    depth = points[k, 2]
    columns = np.empty(3 * NUM_JOINTS, np.int64)
    values = np.empty(3 * NUM_JOINTS)
    weight = 1 / spread**2
    for axis in range(2):
        slope = focal[axis] / depth
        fall = -slope * points[k, axis] / depth
        # Of the projection by the point itself.
        gradient = (slope if axis == 0 else 0.0, slope if axis == 1 else 0.0, fall)
        residual = uv[axis] - (slope * points[k, axis] - offset[axis])
        count = 0
        joint = _PARENT[k]
        while joint >= 0:
            dx, dy, dz = (
                points[k, 0] - points[joint, 0],
                points[k, 1] - points[joint, 1],
                points[k, 2] - points[joint, 2],
            )
            lever = (
                dy * gradient[2] - dz * gradient[1],
                dz * gradient[0] - dx * gradient[2],
                dx * gradient[1] - dy * gradient[0],
            )
            for a in range(3):
                columns[count] = 3 * joint + a
                values[count] = lever[a]
                count += 1
            joint = _PARENT[joint]
        for a in range(3):
            columns[count] = 3 * NUM_JOINTS + a
            values[count] = gradient[a]
            count += 1
        for i in range(count):
            scaled = weight * values[i]
            step[columns[i]] += scaled * residual
            for j in range(count):
                if columns[j] <= columns[i]:  # the half that `_solve` reads
                    hessian[columns[i], columns[j]] += scaled * values[j]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _solve(matrix: Array, vector: Array) -> None:
    """Cholesky in place: `vector` becomes the solution. The priors keep the matrix definite."""
    size = len(vector)
    for i in range(size):
        for j in range(i + 1):
            upper, lower, total = matrix[j], matrix[i], matrix[i, j]
            for k in range(j):  # along rows, whose sums the compiler may take in any order
                total -= lower[k] * upper[k]
            matrix[i, j] = math.sqrt(total) if i == j else total / matrix[j, j]
    for i in range(size):
        for k in range(i):
            vector[i] -= matrix[i, k] * vector[k]
        vector[i] /= matrix[i, i]
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            vector[i] -= matrix[k, i] * vector[k]
        vector[i] /= matrix[i, i]


@_jit
def _turn(local: Array, world: Array, step: Array, turned: Array) -> None:
    """Turns in the camera's frame as local rotations: parent^T exp(step) world."""
    turned_by = np.empty((3, 3))
    moved = np.empty((3, 3))
    for j in range(NUM_JOINTS):
        _exponential(step[3 * j], step[3 * j + 1], step[3 * j + 2], turned_by)
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
