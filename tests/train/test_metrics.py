"""Metrics on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from glnet_rt.rotation import rotvec_to_rotmat
from train.metrics import keypoint_error, mpjpe_mm, pa_mpjpe_mm, pck, procrustes, pve_mm


def cloud(seed: int, points: int = 24, people: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(people, points, 3))


def test_procrustes_undoes_any_similarity() -> None:
    target = cloud(0)
    rng = np.random.default_rng(1)
    rotation = rotvec_to_rotmat(rng.normal(size=(5, 3)) * 2)
    moved = 0.3 * target @ rotation.transpose(0, 2, 1) + rng.normal(size=(5, 1, 3))
    np.testing.assert_allclose(procrustes(moved, target), target, atol=1e-9)
    assert pa_mpjpe_mm(moved, target).max() < 1e-6


def test_procrustes_never_reflects() -> None:
    target = cloud(2)
    mirrored = target * np.array([-1, 1, 1])
    assert pa_mpjpe_mm(mirrored, target).min() > 100


@pytest.mark.parametrize("points", [3, 4, 14])
def test_procrustes_equals_an_independent_solver(points: int) -> None:
    spatial = pytest.importorskip("scipy.spatial.transform")
    a, b = cloud(3, points, 1)[0], cloud(4, points, 1)[0]
    p, q = a - a.mean(0), b - b.mean(0)
    turned = spatial.Rotation.align_vectors(q, p)[0].apply(p)
    expected = (turned * q).sum() / (p**2).sum() * turned + b.mean(0)
    np.testing.assert_allclose(procrustes(a[None], b[None])[0], expected, atol=1e-8)


def test_mpjpe_ignores_where_the_root_is() -> None:
    target = cloud(5)
    assert mpjpe_mm(target + np.array([1.0, 2.0, 3.0]), target).max() < 1e-9
    moved = target.copy()
    moved[:, 3, 0] += 0.24
    np.testing.assert_allclose(mpjpe_mm(moved, target), 10.0)


def test_pve_uses_the_joints_root() -> None:
    vertices, root = cloud(6, 100), np.zeros((5, 3))
    np.testing.assert_allclose(pve_mm(vertices, vertices, root, root + 0.001), np.sqrt(3))


def test_2d_error_and_pck_count_what_counts() -> None:
    target = np.zeros((2, 4, 2))
    uv = np.array([[[0.0, 0.0], [0.1, 0.0], [0.0, 0.3], [9.0, 9.0]]] * 2)
    counts = np.array([[True, True, True, False], [False] * 4])
    error = keypoint_error(uv, target, counts)
    assert error[0] == pytest.approx(100 * 0.4 / 3)
    assert np.isnan(error[1])
    assert pck(uv, target, counts, 0.1) == pytest.approx(2 / 3)
