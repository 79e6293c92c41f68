"""The kinematic fit: against a dense solution, and what it does to good and to bad poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glnet_rt.body_model import BodyModel
from glnet_rt.errors import ContractError
from glnet_rt.kinematic_fit import SHIFT_PRIOR_M, UNKNOWNS, kinematic_fit
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.skeleton import INDEX, NUM_JOINTS, NUM_SKELETON, PARENTS

BODY = Path(__file__).resolve().parents[1] / "glnet_rt/assets/body.npz"
FOCAL = np.array([[3.9, 4.1], [2.0, 2.0]])
OFFSET = np.array([[0.0, 0.1], [-0.3, 0.0]])
PELVIS = np.array([[0.1, -0.2, 4.0], [0.5, 0.1, 2.5]])


def skeleton_of(rotmats: np.ndarray, rest: np.ndarray, pelvis: np.ndarray) -> np.ndarray:
    """[B, 29, 3] m, posed, one point after another."""
    points, world = np.empty((len(rest), NUM_SKELETON, 3)), rotmats.astype(np.float64).copy()
    points[:, 0] = pelvis
    for k in range(1, NUM_SKELETON):
        parent = PARENTS[k]
        bone = rest[:, k] - rest[:, parent]
        points[:, k] = points[:, parent] + np.einsum("bij,bj->bi", world[:, parent], bone)
        if k < NUM_JOINTS:
            world[:, k] = world[:, parent] @ rotmats[:, k]
    return points


def seen(points: np.ndarray) -> np.ndarray:
    return FOCAL[:, None] * points[..., :2] / points[..., 2:] - OFFSET[:, None]


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load(BODY)


@pytest.fixture
def pose(body: BodyModel) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    rest = body.rest_skeleton(rng.normal(size=(2, 10)).astype("f")).astype(np.float64)
    rotmats = rotvec_to_rotmat(rng.normal(size=(2, 24, 3)) * 0.3)
    return rotmats, rest[:, :NUM_SKELETON]


def test_a_pose_that_fits_stays(pose: tuple[np.ndarray, np.ndarray]) -> None:
    rotmats, rest = pose
    uv = seen(skeleton_of(rotmats, rest, PELVIS))
    spread = np.full((2, NUM_SKELETON), 0.05)
    fitted = kinematic_fit(rotmats, rest, PELVIS, uv, spread, OFFSET, FOCAL, 0.1)
    np.testing.assert_allclose(fitted, rotmats, atol=1e-9)


def test_one_step_is_the_dense_gauss_newton_step(pose: tuple[np.ndarray, np.ndarray]) -> None:
    """Jacobians by differences, one dense system, the same turns."""
    rotmats, rest = pose
    rng = np.random.default_rng(1)
    uv = seen(skeleton_of(rotmats, rest, PELVIS)) + rng.normal(size=(2, NUM_SKELETON, 2)) * 0.02
    spread = rng.uniform(0.02, 0.2, (2, NUM_SKELETON))
    fitted = kinematic_fit(rotmats, rest, PELVIS, uv, spread, OFFSET, FOCAL, 0.1)

    def moved(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Local rotations and projections after turns of all joints in the camera's frame."""
        world, turned = rotmats.copy(), rotmats.copy()
        for j in range(1, NUM_JOINTS):
            world[:, j] = world[:, PARENTS[j]] @ rotmats[:, j]
        turns = rotvec_to_rotmat(x[:, : 3 * NUM_JOINTS].reshape(2, NUM_JOINTS, 3)) @ world
        turned[:, 0] = turns[:, 0]
        for j in range(1, NUM_JOINTS):
            turned[:, j] = world[:, PARENTS[j]].transpose(0, 2, 1) @ turns[:, j]
        return turned, seen(skeleton_of(turned, rest, PELVIS + x[:, 3 * NUM_JOINTS :]))

    step, eps = np.zeros((2, UNKNOWNS)), 1e-6
    start = moved(step)[1]
    jacobian = np.stack(
        [(moved(step + eps * e)[1] - start) / eps for e in np.eye(UNKNOWNS)], axis=-1
    ).reshape(2, -1, UNKNOWNS)
    prior = np.diag([1 / 0.1**2] * (3 * NUM_JOINTS) + [1 / SHIFT_PRIOR_M**2] * 3)
    for b in range(2):
        weight = np.repeat(spread[b] ** -2, 2)
        system = jacobian[b].T @ (weight[:, None] * jacobian[b]) + prior
        step[b] = np.linalg.solve(system, jacobian[b].T @ (weight * (uv - start)[b].reshape(-1)))
    np.testing.assert_allclose(fitted, moved(step)[0], atol=2e-5)


def test_a_bent_arm_goes_where_it_is_seen(pose: tuple[np.ndarray, np.ndarray]) -> None:
    rotmats, rest = pose
    uv = seen(skeleton_of(rotmats, rest, PELVIS))
    wrong = rotmats.copy()
    wrong[:, INDEX["left_elbow"]] @= rotvec_to_rotmat(np.array([0.0, 0.4, 0.3]))
    spread = np.full((2, NUM_SKELETON), 0.03)
    fitted = kinematic_fit(wrong, rest, PELVIS, uv, spread, OFFSET, FOCAL, 0.3)
    wrist = INDEX["left_wrist"]
    before, after = (
        np.linalg.norm(seen(skeleton_of(r, rest, PELVIS))[:, wrist] - uv[:, wrist], axis=-1)
        for r in (wrong, fitted)
    )
    assert (after < 0.5 * before).all()
    assert np.linalg.norm(fitted[:, INDEX["right_knee"]] - rotmats[:, INDEX["right_knee"]]) < 0.1


def test_doubtful_keypoints_move_nothing(pose: tuple[np.ndarray, np.ndarray]) -> None:
    rotmats, rest = pose
    uv = np.zeros((2, NUM_SKELETON, 2))
    spread = np.full((2, NUM_SKELETON), 1e5)
    fitted = kinematic_fit(rotmats, rest, PELVIS, uv, spread, OFFSET, FOCAL, 0.1)
    np.testing.assert_allclose(fitted, rotmats, atol=1e-6)


def test_points_behind_the_camera_are_left_out(pose: tuple[np.ndarray, np.ndarray]) -> None:
    rotmats, rest = pose
    uv, spread = np.zeros((2, NUM_SKELETON, 2)), np.full((2, NUM_SKELETON), 0.1)
    behind = PELVIS * [1, 1, -1]
    fitted = kinematic_fit(rotmats, rest, behind, uv, spread, OFFSET, FOCAL, 0.1)
    np.testing.assert_allclose(fitted, rotmats, atol=1e-9)


def test_wrong_shapes_and_spreads_are_named(pose: tuple[np.ndarray, np.ndarray]) -> None:
    rotmats, rest = pose
    uv, spread = np.zeros((2, NUM_SKELETON, 2)), np.full((2, NUM_SKELETON), 0.1)
    with pytest.raises(ContractError, match="keypoints_uv has the wrong shape"):
        kinematic_fit(rotmats, rest, PELVIS, uv[:, :24], spread, OFFSET, FOCAL, 0.1)
    with pytest.raises(ContractError, match="not above zero"):
        kinematic_fit(rotmats, rest, PELVIS, uv, spread * 0, OFFSET, FOCAL, 0.1)
