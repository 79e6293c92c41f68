"""A plausible rest skeleton, random poses of it, and plain reference formulas, for tests."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from glnet_rt.contracts import Array
from glnet_rt.skeleton import INDEX, NUM_JOINTS, NUM_SKELETON, PARENTS

_MIDDLE = {
    "pelvis": (0.0, 0.0, 0.0), "spine1": (0.0, 0.11, -0.02), "spine2": (0.0, 0.24, 0.0),
    "spine3": (0.0, 0.30, 0.02), "neck": (0.0, 0.51, -0.03), "head": (0.0, 0.60, 0.02),
    "head_top": (0.0, 0.80, 0.02),
}  # fmt: skip
_LEFT = {
    "hip": (0.06, -0.09, 0.0), "knee": (0.10, -0.47, 0.01), "ankle": (0.09, -0.87, -0.04),
    "foot": (0.12, -0.93, 0.08), "toe": (0.13, -0.95, 0.16), "collar": (0.08, 0.42, -0.02),
    "shoulder": (0.19, 0.44, -0.04), "elbow": (0.45, 0.43, -0.06), "wrist": (0.70, 0.44, -0.06),
    "hand": (0.78, 0.43, -0.07), "fingertip": (0.88, 0.43, -0.07),
}  # fmt: skip


def rest_skeleton() -> Array:
    """[29, 3] float64, m; T-pose, y up, symmetric."""
    rest = np.zeros((NUM_SKELETON, 3))
    for name, xyz in _MIDDLE.items():
        rest[INDEX[name]] = xyz
    for name, (x, y, z) in _LEFT.items():
        rest[INDEX[f"left_{name}"]] = (x, y, z)
        rest[INDEX[f"right_{name}"]] = (-x, y, z)
    return rest


def random_rotations(rng: np.random.Generator, *shape: int, up_to_deg: float = 170.0) -> Array:
    """[*shape, 3, 3] float64: any axis, angles uniform up to a limit."""
    axis = rng.normal(size=(*shape, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    rotvec = axis * np.radians(rng.uniform(-up_to_deg, up_to_deg, (*shape, 1)))
    return Rotation.from_rotvec(rotvec.reshape(-1, 3)).as_matrix().reshape(*shape, 3, 3)


def random_bodies(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Rest skeletons [B, 29, 3] with varied bones, and local rotations [B, 24, 3, 3]."""
    rest = rest_skeleton() * rng.uniform(0.8, 1.2, (count, 1, 1))
    rest = rest + rng.normal(scale=0.01, size=rest.shape)
    return rest, random_rotations(rng, count, NUM_JOINTS)


def pose(rotmats: Array, rest: Array) -> Array:
    """Forward kinematics, one joint after another: [B, 29, 3], the pelvis where it rests."""
    world: list[Array] = []
    points = rest.copy()
    for joint in range(NUM_SKELETON):
        parent = PARENTS[joint]
        if parent >= 0:
            bone = rest[:, joint] - rest[:, parent]
            points[:, joint] = points[:, parent] + (world[parent] @ bone[..., None])[..., 0]
        if joint < NUM_JOINTS:
            local = rotmats[:, joint]
            world.append(local if parent < 0 else world[parent] @ local)
    return points


def angle_deg(a: Array, b: Array) -> Array:
    """Angle between rotations [..., 3, 3], degrees, accurate near zero."""
    between = (np.swapaxes(a, -1, -2) @ b).astype(np.float64)
    rotvec = Rotation.from_matrix(between.reshape(-1, 3, 3)).as_rotvec()
    return np.degrees(np.linalg.norm(rotvec, axis=-1)).reshape(between.shape[:-2])


def assert_rotations(rotmats: Array, tolerance: float = 1e-9) -> None:
    """Finite, orthonormal and right-handed."""
    assert np.isfinite(rotmats).all()
    identity = rotmats @ np.swapaxes(rotmats, -1, -2)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(3), identity.shape), atol=tolerance)
    np.testing.assert_allclose(np.linalg.det(rotmats), 1.0, atol=tolerance)
