"""Rotation conversions against scipy, at their awkward ends, and against the torch twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glnet_rt.rotation import (
    flip_rotmat,
    rot6d_to_rotmat,
    rotmat_to_rot6d,
    rotmat_to_rotvec,
    rotmat_to_unitquat,
    rotvec_to_rotmat,
    skew,
)
from tests.human import assert_rotations, random_rotations
from train.model import kinematics as twin

ANGLES = [0.0, 1e-12, 1e-9, 1e-7, 9e-7, 1.1e-6, 9e-5, 1.1e-4, 1e-3, 1.0, 3.0, np.pi - 1e-9, np.pi]


def rotvecs(rng: np.random.Generator, angle: float, count: int = 50) -> np.ndarray:
    axis = rng.normal(size=(count, 3))
    axis[:3] = np.eye(3)
    return angle * axis / np.linalg.norm(axis, axis=1, keepdims=True)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("angle", ANGLES)
def test_rotvec_to_rotmat_is_scipys(rng: np.random.Generator, angle: float) -> None:
    rotvec = rotvecs(rng, angle)
    expected = Rotation.from_rotvec(rotvec).as_matrix()
    np.testing.assert_allclose(rotvec_to_rotmat(rotvec), expected, atol=1e-14)
    np.testing.assert_allclose(
        rotvec_to_rotmat(rotvec.astype(np.float32)), expected, atol=5e-7, rtol=0
    )
    assert rotvec_to_rotmat(rotvec.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("angle", ANGLES)
def test_rotvec_survives_the_round_trip(rng: np.random.Generator, angle: float) -> None:
    rotvec = rotvecs(rng, angle)
    back = rotmat_to_rotvec(rotvec_to_rotmat(rotvec))
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), angle, atol=1e-8)
    if angle > 3.1:  # at half a turn both axes are right
        back = back * np.sign((back * rotvec).sum(-1, keepdims=True))
    np.testing.assert_allclose(back, rotvec, atol=1e-8)


def test_unitquat_is_scipys_with_a_positive_real_part(rng: np.random.Generator) -> None:
    rotmat = random_rotations(rng, 500, up_to_deg=180)
    quat = rotmat_to_unitquat(rotmat)
    expected = Rotation.from_matrix(rotmat).as_quat()[:, [3, 0, 1, 2]]
    expected *= np.where(expected[:, :1] < 0, -1, 1)
    np.testing.assert_allclose(quat, expected, atol=1e-12)
    assert (quat[:, 0] >= 0).all()


def test_unitquat_takes_each_of_its_four_pivots() -> None:
    half_turns = rotvec_to_rotmat(np.pi * np.eye(3))
    quats = rotmat_to_unitquat(np.concatenate([np.eye(3)[None], half_turns]))
    np.testing.assert_allclose(np.abs(quats), np.eye(4), atol=1e-12)


def test_rot6d_is_two_columns_row_by_row() -> None:
    rotmat = np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(rotmat_to_rot6d(rotmat), [0, 1, 3, 4, 6, 7])


def test_rot6d_survives_the_round_trip_and_any_stretch(rng: np.random.Generator) -> None:
    rotmat = random_rotations(rng, 7, 24)
    rot6d = rotmat_to_rot6d(rotmat)
    np.testing.assert_allclose(rot6d_to_rotmat(rot6d), rotmat, atol=1e-12)
    # Gram-Schmidt ignores lengths, and whatever of the first column hides in the second.
    columns = rot6d.reshape(7, 24, 3, 2) * [2.0, 0.3]
    columns[..., 1] += 0.7 * columns[..., 0]
    np.testing.assert_allclose(rot6d_to_rotmat(columns.reshape(7, 24, 6)), rotmat, atol=1e-12)


def test_any_rot6d_becomes_a_rotation(rng: np.random.Generator) -> None:
    assert_rotations(rot6d_to_rotmat(rng.normal(size=(1000, 6))), 1e-9)


def test_skew_is_the_cross_product(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 10, 3))
    np.testing.assert_allclose((skew(a) @ b[..., None])[..., 0], np.cross(a, b), atol=1e-15)


def test_flip_rotmat_is_the_rotation_seen_in_a_mirror(rng: np.random.Generator) -> None:
    rotmat = random_rotations(rng, 10)
    mirror = np.diag([-1.0, 1.0, 1.0])
    np.testing.assert_allclose(flip_rotmat(rotmat), mirror @ rotmat @ mirror, atol=1e-15)
    np.testing.assert_array_equal(flip_rotmat(flip_rotmat(rotmat)), rotmat)


@pytest.mark.parametrize("angle", ANGLES)
def test_torch_twin_of_rotvec(rng: np.random.Generator, angle: float) -> None:
    rotvec = rotvecs(rng, angle)
    twins = twin.rotvec_to_rotmat(torch.tensor(rotvec)).numpy()
    np.testing.assert_allclose(twins, rotvec_to_rotmat(rotvec), atol=1e-14)


def test_torch_twin_of_rot6d(rng: np.random.Generator) -> None:
    rot6d = rng.normal(size=(50, 24, 6))
    twins = twin.rot6d_to_rotmat(torch.tensor(rot6d)).numpy()
    np.testing.assert_allclose(twins, rot6d_to_rotmat(rot6d), atol=1e-11)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 1.0, np.pi])
def test_torch_rotvec_has_exact_gradients(rng: np.random.Generator, angle: float) -> None:
    rotvec = torch.tensor(rotvecs(rng, angle, count=4), requires_grad=True)
    assert torch.autograd.gradcheck(twin.rotvec_to_rotmat, rotvec)


def test_torch_rot6d_has_exact_gradients_and_finite_ones_when_degenerate(
    rng: np.random.Generator,
) -> None:
    rot6d = torch.tensor(rng.normal(size=(4, 6)), requires_grad=True)
    assert torch.autograd.gradcheck(twin.rot6d_to_rotmat, rot6d)
    degenerate = torch.zeros(1, 6, requires_grad=True)
    twin.rot6d_to_rotmat(degenerate).sum().backward()
    assert degenerate.grad is not None
    assert torch.isfinite(degenerate.grad).all()
