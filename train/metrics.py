"""Errors of bodies and keypoints: MPJPE, PA-MPJPE, PVE, 2D error, PCK.

All 3D inputs are metres, all 3D results millimetres, one number per person; means are the caller's.
Procrustes takes explicit (N, 3) point sets and never reflects (det = +1).
"""

from __future__ import annotations

import numpy as np

from glnet_rt.contracts import Array


def procrustes(points: Array, target: Array) -> Array:
    """Points moved, turned and scaled onto target with least squares.

    Args:
        points, target: [B, N, 3], N >= 3.

    Returns:
        [B, N, 3] aligned points.
    """
    mu, nu = points.mean(1, keepdims=True), target.mean(1, keepdims=True)
    p, q = (points - mu).astype(np.float64), (target - nu).astype(np.float64)
    u, s, vt = np.linalg.svd(np.einsum("bni,bnj->bij", q, p))
    sign = np.ones_like(s)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None]) @ vt
    scale = (s * sign).sum(1) / np.maximum((p**2).sum((1, 2)), 1e-12)
    return scale[:, None, None] * p @ rotation.transpose(0, 2, 1) + nu


def mpjpe_mm(joints: Array, target: Array, root: int = 0) -> Array:
    """Mean joint distance after the root joints coincide. [B, N, 3] m -> [B] mm."""
    joints = joints - joints[:, root : root + 1]
    target = target - target[:, root : root + 1]
    return 1000 * np.linalg.norm(joints - target, axis=-1).mean(1)


def pa_mpjpe_mm(joints: Array, target: Array) -> Array:
    """Mean joint distance after a similarity Procrustes. [B, N, 3] m -> [B] mm."""
    return 1000 * np.linalg.norm(procrustes(joints, target) - target, axis=-1).mean(1)


def pve_mm(vertices: Array, target: Array, root: Array, target_root: Array) -> Array:
    """Mean vertex distance with MPJPE's alignment. [B, V, 3], roots [B, 3], m -> [B] mm."""
    error = (vertices - root[:, None]) - (target - target_root[:, None])
    return 1000 * np.linalg.norm(error, axis=-1).mean(1)


def keypoint_error(uv: Array, target: Array, counts: Array) -> Array:
    """Mean 2D distance over counted keypoints, in percent of the person's box.

    Args:
        uv, target: [B, K, 2], in sides of the person's box.
        counts: [B, K] bool.

    Returns:
        [B]; NaN where nothing counts.
    """
    distance = np.linalg.norm(uv - target, axis=-1)
    total = counts.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * (distance * counts).sum(1) / np.where(total > 0, total, np.nan)


def pck(uv: Array, target: Array, counts: Array, threshold: float) -> float:
    """Share of counted keypoints within `threshold` box sides. Arguments as `keypoint_error`."""
    near = np.linalg.norm(uv - target, axis=-1) <= threshold
    return float((near & counts).sum() / max(int(counts.sum()), 1))
