"""Conversions between rotation representations, NumPy. Shapes broadcast over leading `...`.

rotmat [..., 3, 3]; rotvec [..., 3] rad, axis times angle; rot6d [..., 6] = the first two columns of
the matrix, row by row: reshape(..., 3, 2), as SPIN and HMR lay it out.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from glnet_rt.contracts import Array


def rot6d_to_rotmat(rot6d: Array) -> Array:
    """Gram-Schmidt on two columns. Parallel or zero columns give no rotation matrix."""
    rotmats = np.empty((*rot6d.shape[:-1], 3, 3), rot6d.dtype)
    _gram_schmidt(np.ascontiguousarray(rot6d).reshape(-1, 6), rotmats.reshape(-1, 3, 3))
    return rotmats


def rotmat_to_rot6d(rotmat: Array) -> Array:
    """The first two columns, in `rot6d_to_rotmat`'s layout."""
    return np.ascontiguousarray(rotmat[..., :2]).reshape(*rotmat.shape[:-2], 6)


def rotvec_to_rotmat(rotvec: Array) -> Array:
    """Rodrigues' formula, exact down to a zero vector."""
    angle = np.linalg.norm(rotvec, axis=-1)[..., None, None]
    K = skew(rotvec)
    safe = np.maximum(angle, 1e-12)
    sin_over = np.where(angle < 1e-6, 1.0 - angle**2 / 6, np.sin(safe) / safe)
    cos_over = np.where(angle < 1e-4, 0.5 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    return (np.eye(3, dtype=rotvec.dtype) + sin_over * K + cos_over * (K @ K)).astype(rotvec.dtype)


def rotmat_to_rotvec(rotmat: Array) -> Array:
    """Axis times angle, angle in [0, pi]; stable at both ends (through the unit quaternion)."""
    q = rotmat_to_unitquat(rotmat)
    xyz, w = q[..., 1:], q[..., :1]
    norm = np.linalg.norm(xyz, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(norm, w)
    scale = np.where(norm < 1e-8, 2.0, angle / np.maximum(norm, 1e-12))
    return np.asarray(xyz * scale, dtype=rotmat.dtype)


def rotmat_to_unitquat(rotmat: Array) -> Array:
    """(w, x, y, z), w >= 0. The largest of the four components is taken as pivot (Shepperd)."""
    m = rotmat
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    # Row k of 4 q q^T is parallel to q; the row with the largest diagonal is the best conditioned.
    rows = np.stack(
        [
            np.stack([1 + trace, m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0],
                      m[..., 1, 0] - m[..., 0, 1]], -1),
            np.stack([m[..., 2, 1] - m[..., 1, 2], 1 + 2 * m[..., 0, 0] - trace,
                      m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0]], -1),
            np.stack([m[..., 0, 2] - m[..., 2, 0], m[..., 0, 1] + m[..., 1, 0],
                      1 + 2 * m[..., 1, 1] - trace, m[..., 1, 2] + m[..., 2, 1]], -1),
            np.stack([m[..., 1, 0] - m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0],
                      m[..., 1, 2] + m[..., 2, 1], 1 + 2 * m[..., 2, 2] - trace], -1),
        ],
        -2,
    )  # fmt: skip
    diagonal = np.diagonal(rows, axis1=-2, axis2=-1)
    pivot = diagonal.argmax(-1)[..., None, None]
    q = np.take_along_axis(rows, pivot, axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., :1] < 0, -q, q)


def skew(vector: Array) -> Array:
    """[..., 3] -> [..., 3, 3] with skew(a) @ b = a x b."""
    x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
    zero = np.zeros_like(x)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    return np.stack(rows, axis=-1).reshape(*vector.shape[:-1], 3, 3)


def flip_rotmat(rotmat: Array) -> Array:
    """The rotation seen in a mirror that swaps left and right (x -> -x)."""
    sign = np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]], dtype=rotmat.dtype)
    return rotmat * sign


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _gram_schmidt(columns: Array, out: Array) -> None:
    """[N, 6] -> [N, 3, 3], in float64; a column of no length gives NaN, as NumPy would."""
    for i in range(len(columns)):
        a, b, c = float(columns[i, 0]), float(columns[i, 2]), float(columns[i, 4])
        length = math.sqrt(a * a + b * b + c * c)
        a, b, c = a / length, b / length, c / length
        d, e, f = float(columns[i, 1]), float(columns[i, 3]), float(columns[i, 5])
        along = a * d + b * e + c * f
        d, e, f = d - along * a, e - along * b, f - along * c
        length = math.sqrt(d * d + e * e + f * f)
        d, e, f = d / length, e / length, f / length
        out[i, 0, 0], out[i, 0, 1], out[i, 0, 2] = a, d, b * f - c * e
        out[i, 1, 0], out[i, 1, 1], out[i, 1, 2] = b, e, c * d - a * f
        out[i, 2, 0], out[i, 2, 1], out[i, 2, 2] = c, f, a * e - b * d
