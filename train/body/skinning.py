"""Two skinnings, linear and dual-quaternion, and their mix: what the body is built with."""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.rotation import rotmat_to_unitquat


def sparse_weights(lbs_weights: Array) -> tuple[Array, Array]:
    """[V, 24] -> (joint indices [V, 4] int64, weights [V, 4] float64)."""
    order = np.argsort(-lbs_weights, axis=1, kind="stable")[:, :4]
    return np.ascontiguousarray(order), np.take_along_axis(lbs_weights, order, 1)


def skin(
    vertices: Array, influences: tuple[Array, Array], rotmats: Array, offsets: Array, dual: float
) -> Array:
    """Move `vertices` by the blend of each joint's map x -> R x + t.

    Args:
        vertices: [V, 3] float64, m.
        influences: from `sparse_weights`.
        rotmats: [24, 3, 3] float64.
        offsets: [24, 3] float64, m.
        dual: 0 gives linear blend skinning (pinches), 1 dual quaternions (bulge); between, a mix.
    Returns:
        [V, 3] float64, m.
    """
    real = rotmat_to_unitquat(rotmats)
    half = _multiply(np.concatenate([np.zeros((len(offsets), 1)), offsets], axis=1), real) * 0.5
    joints, weights = influences
    return np.asarray(_skin(vertices, joints, weights, rotmats, offsets, real, half, dual))


def _multiply(a: Array, b: Array) -> Array:
    """Hamilton product of [n, 4] quaternions (w, x, y, z)."""
    w = a[:, :1] * b[:, :1] - (a[:, 1:] * b[:, 1:]).sum(1, keepdims=True)
    xyz = a[:, :1] * b[:, 1:] + b[:, :1] * a[:, 1:] + np.cross(a[:, 1:], b[:, 1:])
    return np.concatenate([w, xyz], axis=1)


@nb.njit(cache=True, nogil=True)
def _skin(vertices, joints, weights, rotmats, offsets, real, half, dual):  # type: ignore[no-untyped-def]
    out = np.empty_like(vertices)
    linear = np.empty(3)
    q = np.empty(4)
    d = np.empty(4)
    for v in range(len(vertices)):
        x = vertices[v]
        linear[:] = 0.0
        q[:] = 0.0
        d[:] = 0.0
        first = joints[v, 0]
        for k in range(joints.shape[1]):
            w, j = weights[v, k], joints[v, k]
            if w == 0.0:
                continue
            for a in range(3):
                r = rotmats[j, a]
                linear[a] += w * (r[0] * x[0] + r[1] * x[1] + r[2] * x[2] + offsets[j, a])
            # A quaternion and its negative turn alike: take the one nearer the main joint's.
            if (real[first] * real[j]).sum() < 0.0:
                w = -w
            for a in range(4):
                q[a] += w * real[j, a]
                d[a] += w * half[j, a]
        norm = math.sqrt((q * q).sum())
        qw, qx, qy, qz = q / norm
        dw, dx, dy, dz = d / norm
        ux = qy * x[2] - qz * x[1] + qw * x[0]
        uy = qz * x[0] - qx * x[2] + qw * x[1]
        uz = qx * x[1] - qy * x[0] + qw * x[2]
        tx = x[0] + 2 * (qy * uz - qz * uy + qw * dx - dw * qx + qy * dz - qz * dy)
        ty = x[1] + 2 * (qz * ux - qx * uz + qw * dy - dw * qy + qz * dx - qx * dz)
        tz = x[2] + 2 * (qx * uy - qy * ux + qw * dz - dw * qz + qx * dy - qy * dx)
        out[v, 0] = linear[0] + dual * (tx - linear[0])
        out[v, 1] = linear[1] + dual * (ty - linear[1])
        out[v, 2] = linear[2] + dual * (tz - linear[2])
    return out


def joint_maps(world_rotmats: Array, rest: Array, posed: Array) -> Array:
    """[24, 3] offsets t such that x -> R x + t takes each rest joint to its posed place."""
    return posed - np.einsum("jab,jb->ja", world_rotmats, rest)


def chain(world_rotmats: Array, rest: Array, parents: Array) -> Array:
    """[24, 3] joint positions when each bone is turned by its parent's world rotation."""
    joints = rest.copy()
    for j in range(1, len(rest)):
        p = parents[j]
        joints[j] = joints[p] + world_rotmats[p] @ (rest[j] - rest[p])
    return joints
