"""Swing-twist inverse kinematics: round trips, references, symmetries, and the torch twin."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from glnet_rt import kinematics
from glnet_rt.contracts import Array
from glnet_rt.errors import ContractError
from glnet_rt.kinematics import FALLBACK_M, inverse_kinematics, twist_from_rotations
from glnet_rt.rotation import flip_rotmat, rotvec_to_rotmat
from glnet_rt.skeleton import (
    BONE_CHILD,
    FLIP_JOINTS,
    FLIP_KEYPOINTS,
    FLIP_TWISTS,
    INDEX,
    NUM_JOINTS,
    NUM_SKELETON,
    NUM_TWISTS,
    PARENTS,
    ROOT_CHILDREN,
)
from tests.human import (
    angle_deg,
    assert_rotations,
    pose,
    random_bodies,
    random_rotations,
    rest_skeleton,
)
from train.model import kinematics as twin

Solver = Callable[[Array, Array, Array], Array]
FLIP_SKELETON = list(FLIP_KEYPOINTS[:NUM_SKELETON])
NO_TWIST = np.broadcast_to([1.0, 0.0], (1, NUM_TWISTS, 2))


def torch_inverse_kinematics(skeleton: Array, twist: Array, rest: Array) -> Array:
    tensors = (torch.tensor(v, dtype=torch.float64) for v in (skeleton, twist, rest))
    return twin.inverse_kinematics(*tensors).numpy()


def torch_twist(rotmats: Array, rest: Array) -> Array:
    return twin.twist_from_rotations(torch.tensor(rotmats), torch.tensor(rest)).numpy()


@pytest.fixture(params=[inverse_kinematics, torch_inverse_kinematics], ids=["numba", "torch"])
def solve(request: pytest.FixtureRequest) -> Solver:
    """Both twins must pass every test that takes this."""
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# Round trips.


def test_noise_free_joints_give_the_pose_back(solve: Solver, rng: np.random.Generator) -> None:
    rest, rotmats = random_bodies(rng, 300)
    got = solve(pose(rotmats, rest), twist_from_rotations(rotmats, rest), rest)
    assert angle_deg(got, rotmats).max() < 0.05
    assert_rotations(got)


@pytest.mark.parametrize("short_of_180_deg", [0.0, 1e-10, 1e-6, 5.7e-5, 5.8e-5, 1e-3, 0.1, 5.0])
def test_bones_turned_backwards_give_the_pose_back(
    solve: Solver, rng: np.random.Generator, short_of_180_deg: float
) -> None:
    """Every joint in turn swings its bone by (nearly) half a turn, and twists."""
    rest = np.repeat(rest_skeleton()[None], NUM_TWISTS, 0)
    rotmats = random_rotations(rng, NUM_TWISTS, NUM_JOINTS, up_to_deg=90)
    for joint in range(1, NUM_JOINTS):
        bone = rest[0, BONE_CHILD[joint]] - rest[0, joint]
        bone /= np.linalg.norm(bone)
        across = np.cross(bone, rng.normal(size=3))
        across /= np.linalg.norm(across)
        swing = rotvec_to_rotmat(across * np.radians(180 - short_of_180_deg))
        rotmats[joint - 1, joint] = swing @ rotvec_to_rotmat(bone * rng.uniform(-3, 3))
    # In float64: close to the antipode an error of the parent's twist counts a thousandfold.
    got = solve(pose(rotmats, rest), torch_twist(rotmats, rest), rest)
    assert angle_deg(got, rotmats).max() < 0.05
    assert_rotations(got)


def test_an_exactly_opposite_bone_is_not_ignored(solve: Solver) -> None:
    """Published code gives the identity here."""
    rest = rest_skeleton()[None]
    skeleton = rest.copy()
    elbow, wrist = INDEX["left_elbow"], INDEX["left_wrist"]
    skeleton[0, wrist] = 2 * rest[0, elbow] - rest[0, wrist]
    rotmat = solve(skeleton, NO_TWIST, rest)[0, elbow]
    assert_rotations(rotmat)
    bone = rest[0, wrist] - rest[0, elbow]
    np.testing.assert_allclose(rotmat @ bone, -bone, atol=1e-12)


@pytest.mark.parametrize("bone", [*np.eye(3), *-np.eye(3), [1, 1, 1], [3, -2, 1e-9], [1, 1, 0]])
def test_opposite_bones_along_any_direction(solve: Solver, bone: list[float]) -> None:
    rest = rest_skeleton()[None]
    elbow, wrist = INDEX["left_elbow"], INDEX["left_wrist"]
    rest[0, wrist] = rest[0, elbow] + 0.25 * np.array(bone)
    skeleton = rest.copy()
    skeleton[0, wrist] = rest[0, elbow] - 0.25 * np.array(bone)
    rotmat = solve(skeleton, NO_TWIST, rest)[0, elbow]
    assert_rotations(rotmat)
    np.testing.assert_allclose(rotmat @ np.array(bone), -np.array(bone), atol=1e-12)


def test_float32_in_float32_out(rng: np.random.Generator) -> None:
    rest, rotmats = random_bodies(rng, 50)
    twist = twist_from_rotations(rotmats, rest)
    assert twist.dtype == np.float32
    got = inverse_kinematics(pose(rotmats, rest).astype(np.float32), twist, rest)
    assert got.dtype == np.float32
    assert angle_deg(got, rotmats).max() < 0.05


def test_no_people() -> None:
    rotmats = inverse_kinematics(
        np.zeros((0, NUM_SKELETON, 3), np.float32),
        np.zeros((0, NUM_TWISTS, 2), np.float32),
        np.zeros((0, NUM_SKELETON, 3), np.float32),
    )
    assert rotmats.shape == (0, NUM_JOINTS, 3, 3)


@pytest.mark.parametrize("wrong", ["skeleton_xyz", "twist", "rest"])
def test_wrong_shapes_are_named(wrong: str) -> None:
    arguments = {
        "skeleton_xyz": np.zeros((2, NUM_SKELETON, 3)),
        "twist": np.zeros((2, NUM_TWISTS, 2)),
        "rest": np.zeros((2, NUM_SKELETON, 3)),
    }
    arguments[wrong] = arguments[wrong][:, :-1]
    with pytest.raises(ContractError, match=f"{wrong} has the wrong shape"):
        inverse_kinematics(**arguments)


def test_compiled_kernels_do_what_python_would(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest, rotmats = random_bodies(rng, 20)
    skeleton = pose(rotmats, rest) + rng.normal(scale=0.01, size=rest.shape)
    skeleton[0] = 0.0
    rest[4] = 0.0
    twist = twist_from_rotations(rotmats, rest)
    elbow, wrist = INDEX["left_elbow"], INDEX["left_wrist"]
    skeleton[1:4, wrist] = skeleton[1:4, elbow]
    expected = inverse_kinematics(skeleton, twist, rest)
    for name, kernel in list(vars(kinematics).items()):
        if hasattr(kernel, "py_func"):
            monkeypatch.setattr(kinematics, name, kernel.py_func)
    assert not hasattr(kinematics._inverse_kinematics, "py_func")
    np.testing.assert_allclose(inverse_kinematics(skeleton, twist, rest), expected, atol=1e-9)
    assert_rotations(inverse_kinematics(skeleton, 0 * twist, rest))
    np.testing.assert_allclose(twist_from_rotations(rotmats, rest), twist, atol=1e-6)
    # Antipodal bones along each axis take every branch of the perpendicular.
    for axis in np.eye(3):
        turn = np.empty((3, 3))
        kinematics._swing(tuple(axis), tuple(-axis), turn)
        np.testing.assert_allclose(turn @ axis, -axis, atol=1e-12)


# What swing and twist mean.


@pytest.mark.parametrize("angle", [0.0, 0.4, -2.0, 3.0])
@pytest.mark.parametrize("find", [twist_from_rotations, torch_twist], ids=["numba", "torch"])
def test_twist_is_the_turn_about_the_rest_bone_before_the_swing(
    find: Callable[[Array, Array], Array], rng: np.random.Generator, angle: float
) -> None:
    rest = rest_skeleton()[None]
    rotmats = np.repeat(np.eye(3)[None, None], NUM_JOINTS, 1)
    for joint in range(1, NUM_JOINTS):
        bone = rest[0, BONE_CHILD[joint]] - rest[0, joint]
        bone /= np.linalg.norm(bone)
        across = np.cross(bone, rng.normal(size=3))
        swing = rotvec_to_rotmat(across / np.linalg.norm(across) * rng.uniform(0, 3))
        rotmats[0, joint] = swing @ rotvec_to_rotmat(bone * angle)
    twist = find(rotmats, rest)
    np.testing.assert_allclose(twist[..., 0], np.cos(angle), atol=1e-6)
    np.testing.assert_allclose(twist[..., 1], np.sin(angle), atol=1e-6)


def test_without_twist_bones_take_the_shortest_way(solve: Solver, rng: np.random.Generator) -> None:
    """The swing angle of every joint is the angle between its bones, no more."""
    rest, rotmats = random_bodies(rng, 50)
    got = solve(pose(rotmats, rest), np.repeat(NO_TWIST, 50, 0), rest)
    joints, children = list(range(1, NUM_JOINTS)), list(BONE_CHILD[1:])
    bone = rest[:, children] - rest[:, joints]
    bone /= np.linalg.norm(bone, axis=-1, keepdims=True)
    swung = (got[:, 1:] @ bone[..., None])[..., 0]
    between = np.degrees(np.arctan2(
        np.linalg.norm(np.cross(bone, swung), axis=-1), (bone * swung).sum(-1)
    ))  # fmt: skip
    identity = np.broadcast_to(np.eye(3), got[:, 1:].shape)
    np.testing.assert_allclose(angle_deg(got[:, 1:], identity), between, atol=1e-5)


def test_twists_of_any_length_count_by_direction(solve: Solver, rng: np.random.Generator) -> None:
    rest, rotmats = random_bodies(rng, 20)
    skeleton, twist = pose(rotmats, rest), twist_from_rotations(rotmats, rest).astype(np.float64)
    stretched = twist * rng.uniform(1e-3, 1e3, (20, NUM_TWISTS, 1))
    expected = solve(skeleton, twist, rest)
    np.testing.assert_allclose(solve(skeleton, stretched, rest), expected, atol=1e-12)


# Safety.


@pytest.mark.parametrize("case", ["point", "rest", "both", "twist", "child", "line"])
def test_degenerate_input_still_gives_rotations(
    solve: Solver, rng: np.random.Generator, case: str
) -> None:
    rest, rotmats = random_bodies(rng, 5)
    skeleton, twist = pose(rotmats, rest), twist_from_rotations(rotmats, rest)
    if case in ("point", "both"):
        skeleton = np.zeros_like(skeleton)
    if case in ("rest", "both"):
        rest = np.zeros_like(rest)
    if case == "twist":
        twist = np.zeros_like(twist)
    if case == "child":
        skeleton[:, list(BONE_CHILD[1:])] = skeleton[:, 1:NUM_JOINTS]
    if case == "line":
        skeleton[..., :2] = 0.0
    assert_rotations(solve(skeleton, twist, rest))


def test_a_predicted_bone_without_length_does_not_swing(solve: Solver) -> None:
    rest = rest_skeleton()[None]
    skeleton = rest.copy()
    foot, toe = INDEX["left_foot"], INDEX["left_toe"]
    skeleton[0, toe] = skeleton[0, foot]
    got = solve(skeleton, NO_TWIST, rest)
    np.testing.assert_allclose(got, np.broadcast_to(np.eye(3), got.shape), atol=1e-12)


@pytest.mark.parametrize("slip_m", [FALLBACK_M - 1e-3, FALLBACK_M + 1e-3])
def test_the_reconstructed_joint_counts_unless_it_drifted(solve: Solver, slip_m: float) -> None:
    """A forearm bent forwards, its elbow predicted too far out along the upper arm."""
    rest = rest_skeleton()[None]
    elbow, wrist = INDEX["left_elbow"], INDEX["left_wrist"]
    rest[0, elbow] = rest[0, INDEX["left_shoulder"]] + [0.26, 0.0, 0.0]
    length = 0.25
    rest[0, wrist] = rest[0, elbow] + [length, 0.0, 0.0]
    skeleton = rest.copy()
    skeleton[0, wrist] = rest[0, elbow] + [0.0, 0.0, length]
    skeleton[0, elbow, 0] += slip_m
    forearm = solve(skeleton, NO_TWIST, rest)[0, elbow] @ [1.0, 0.0, 0.0]
    # True elbow -> wrist points forwards; predicted elbow -> wrist also slightly inwards.
    followed = [0.0, 0.0, 1.0] if slip_m < FALLBACK_M else [-slip_m, 0.0, length]
    np.testing.assert_allclose(forearm, followed / np.linalg.norm(followed), atol=1e-12)


# Root.


def svd_rotation(rest: Array, skeleton: Array) -> tuple[Array, Array]:
    """Kabsch: best proper rotation of the root's bones, and the cross covariance it maximises."""
    children = list(ROOT_CHILDREN)
    a, b = rest[:, children] - rest[:, :1], skeleton[:, children] - skeleton[:, :1]
    covariance = np.swapaxes(b, 1, 2) @ a
    u, _, vt = np.linalg.svd(covariance)
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    return u @ vt, covariance


@pytest.mark.parametrize("noise_m", [0.0, 0.01, 0.1])
def test_root_is_the_best_rotation(solve: Solver, rng: np.random.Generator, noise_m: float) -> None:
    rest, rotmats = random_bodies(rng, 300)
    skeleton = pose(rotmats, rest) + rng.normal(scale=noise_m, size=rest.shape)
    root = solve(skeleton, np.repeat(NO_TWIST, 300, 0), rest)[:, 0]
    expected, _ = svd_rotation(rest, skeleton)
    assert np.median(angle_deg(root, expected)) < 1e-9
    assert angle_deg(root, expected).max() < 1e-3
    if noise_m == 0:
        assert angle_deg(root, rotmats[:, 0]).max() < 1e-9


def test_a_mirrored_skeleton_gets_a_rotation_not_a_reflection(
    solve: Solver, rng: np.random.Generator
) -> None:
    rest, rotmats = random_bodies(rng, 100)
    skeleton = pose(rotmats, rest) * [-1.0, 1.0, 1.0]
    root = solve(skeleton, np.repeat(NO_TWIST, 100, 0), rest)[:, 0]
    assert_rotations(root)
    assert angle_deg(root, svd_rotation(rest, skeleton)[0]).max() < 1e-3


@pytest.mark.parametrize("spread_m", [0.0, 1e-12, 1e-7, 1e-4, 1e-2])
def test_children_on_a_line_give_a_best_rotation_all_the_same(
    solve: Solver, rng: np.random.Generator, spread_m: float
) -> None:
    """Then many rotations are (nearly) best: ours must fit as well as the SVD's."""
    rest, _ = random_bodies(rng, 100)
    skeleton = rng.normal(scale=spread_m, size=rest.shape)
    skeleton[:, list(ROOT_CHILDREN)] += np.array([-0.1, 0.12, 0.05])[:, None] * [0.6, 0.8, 0.0]
    root = solve(skeleton, np.repeat(NO_TWIST, 100, 0), rest)[:, 0]
    expected, covariance = svd_rotation(rest, skeleton)
    assert_rotations(root)
    fit, best = (root * covariance).sum((1, 2)), (expected * covariance).sum((1, 2))
    np.testing.assert_allclose(fit, best, rtol=0, atol=1e-5 * np.abs(covariance).max())


def test_joint_noise_of_10_mm_costs_the_root_about_7_degrees(rng: np.random.Generator) -> None:
    rest = np.repeat(rest_skeleton()[None], 2000, 0)
    rotmats = random_rotations(rng, 2000, NUM_JOINTS)
    skeleton = pose(rotmats, rest) + rng.normal(scale=0.01, size=rest.shape)
    root = inverse_kinematics(skeleton, np.repeat(NO_TWIST, 2000, 0), rest)[:, 0]
    assert 5.5 < np.median(angle_deg(root, rotmats[:, 0])) < 8.0


# Symmetries.


def test_turning_the_camera_turns_the_root_alone(solve: Solver, rng: np.random.Generator) -> None:
    rest, rotmats = random_bodies(rng, 50)
    twist = twist_from_rotations(rotmats, rest)
    skeleton = pose(rotmats, rest) + rng.normal(scale=0.003, size=rest.shape)
    turn = random_rotations(rng, 50)
    expected = solve(skeleton, twist, rest)
    got = solve(skeleton @ np.swapaxes(turn, 1, 2) + rng.normal(size=(50, 1, 3)), twist, rest)
    np.testing.assert_allclose(got[:, 1:], expected[:, 1:], atol=1e-7)
    np.testing.assert_allclose(got[:, 0], turn @ expected[:, 0], atol=1e-7)


def test_a_mirrored_person_has_mirrored_rotations(solve: Solver, rng: np.random.Generator) -> None:
    rest, rotmats = random_bodies(rng, 50)
    twist = twist_from_rotations(rotmats, rest)
    skeleton = pose(rotmats, rest) + rng.normal(scale=0.003, size=rest.shape)
    mirror = np.array([-1.0, 1.0, 1.0])
    mirrored_twist = twist[:, list(FLIP_TWISTS)] * np.float32([1, -1])
    got = solve(
        skeleton[:, FLIP_SKELETON] * mirror, mirrored_twist, rest[:, FLIP_SKELETON] * mirror
    )
    expected = flip_rotmat(solve(skeleton, twist, rest)[:, list(FLIP_JOINTS)])
    np.testing.assert_allclose(got, expected, atol=1e-7)


def test_twists_of_a_mirrored_person(rng: np.random.Generator) -> None:
    rest, rotmats = random_bodies(rng, 50)
    mirrored_rest = rest[:, FLIP_SKELETON] * [-1.0, 1.0, 1.0]
    got = twist_from_rotations(flip_rotmat(rotmats[:, list(FLIP_JOINTS)]), mirrored_rest)
    expected = twist_from_rotations(rotmats, rest)[:, list(FLIP_TWISTS)] * np.float32([1, -1])
    np.testing.assert_allclose(got, expected, atol=1e-6)


# The torch twin.


@pytest.mark.parametrize("noise_m", [0.0, 0.003, 0.02, 0.2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_twins_agree(rng: np.random.Generator, noise_m: float, dtype: torch.dtype) -> None:
    rest, rotmats = random_bodies(rng, 200)
    twist = twist_from_rotations(rotmats, rest)
    skeleton = pose(rotmats, rest) + rng.normal(scale=noise_m, size=rest.shape)
    expected = inverse_kinematics(skeleton, twist, rest)
    tensors = (torch.tensor(v, dtype=dtype) for v in (skeleton, twist, rest))
    got = twin.inverse_kinematics(*tensors).numpy()
    error_deg = angle_deg(got, expected)
    # float32 rounds some bones to the other side of the 15 mm rule or of a flat optimum.
    assert error_deg.max() < 1e-4 if dtype == torch.float64 else np.mean(error_deg < 0.1) > 0.999
    assert np.median(error_deg) < (1e-9 if dtype == torch.float64 else 1e-3)


def test_twins_agree_on_twists(rng: np.random.Generator) -> None:
    rest, rotmats = random_bodies(rng, 200)
    expected = twist_from_rotations(rotmats, rest)
    np.testing.assert_allclose(torch_twist(rotmats, rest), expected, atol=1e-6)


@pytest.mark.parametrize("points", [NUM_JOINTS, NUM_SKELETON])
def test_forward_kinematics_is_the_plain_loop(rng: np.random.Generator, points: int) -> None:
    rest, rotmats = random_bodies(rng, 20)
    world, joints = twin.forward_kinematics(torch.tensor(rotmats), torch.tensor(rest[:, :points]))
    np.testing.assert_allclose(joints.numpy(), pose(rotmats, rest)[:, :points], atol=1e-14)
    for joint in range(1, NUM_JOINTS):
        expected = world[:, PARENTS[joint]].numpy() @ rotmats[:, joint]
        np.testing.assert_allclose(world[:, joint].numpy(), expected, atol=1e-14)


def test_levels_hold_every_joint_right_below_its_parent() -> None:
    assert [joint for level in twin.LEVELS for joint in level] == list(range(NUM_JOINTS))
    for above, level in pairwise(twin.LEVELS):
        assert {PARENTS[joint] for joint in level} <= set(above)


def body_tensors(rng: np.random.Generator, count: int, noise_m: float = 0.0) -> list[torch.Tensor]:
    rest, rotmats = random_bodies(rng, count)
    skeleton = pose(rotmats, rest) + rng.normal(scale=noise_m, size=rest.shape)
    arrays = (skeleton, twist_from_rotations(rotmats, rest).astype(np.float64), rest)
    return [torch.tensor(v, requires_grad=True) for v in arrays]


def test_by_default_rotations_train_the_twist_alone(rng: np.random.Generator) -> None:
    skeleton, twist, rest = body_tensors(rng, 3)
    weights = torch.tensor(rng.normal(size=(3, NUM_JOINTS, 3, 3)))
    (twin.inverse_kinematics(skeleton, twist, rest) * weights).sum().backward()
    assert skeleton.grad is None
    assert rest.grad is None
    assert twist.grad is not None
    assert (twist.grad.norm(dim=-1) > 0).all()


@pytest.mark.parametrize("reconstruct", [True, False])
def test_gradients_are_exact(rng: np.random.Generator, reconstruct: bool) -> None:
    tensors = body_tensors(rng, 1)

    def torso_and_arm(*inputs: torch.Tensor) -> torch.Tensor:
        rotmats = twin.inverse_kinematics(*inputs, detach=False, reconstruct=reconstruct)
        return rotmats[:, [0, 3, 9, 13, 16, 18, 20]]

    assert torch.autograd.gradcheck(torso_and_arm, tensors, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_every_joint_moves_something_once_the_skeleton_is_attached(
    rng: np.random.Generator,
) -> None:
    skeleton, twist, rest = body_tensors(rng, 2, noise_m=0.01)
    weights = torch.tensor(rng.normal(size=(2, NUM_JOINTS, 3, 3)))
    (twin.inverse_kinematics(skeleton, twist, rest, detach=False) * weights).sum().backward()
    for tensor in (skeleton, rest):
        assert tensor.grad is not None
        assert (tensor.grad.norm(dim=-1) > 0).all()


@pytest.mark.parametrize("case", ["still", "backwards", "point", "rest", "twist"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_stay_finite(case: str, dtype: torch.dtype) -> None:
    rest = torch.tensor(rest_skeleton()[None], dtype=dtype)
    skeleton = rest.clone()
    twist = torch.tensor(NO_TWIST, dtype=dtype)
    if case == "backwards":
        elbow, wrist = INDEX["left_elbow"], INDEX["left_wrist"]
        skeleton[0, wrist] = 2 * rest[0, elbow] - rest[0, wrist]
    if case == "point":
        skeleton = torch.zeros_like(skeleton)
    if case == "rest":
        rest = torch.zeros_like(rest)
    if case == "twist":
        twist = torch.zeros_like(twist)
    inputs = [v.clone().requires_grad_() for v in (skeleton, twist, rest)]
    rotmats = twin.inverse_kinematics(*inputs, detach=False)
    (rotmats * torch.arange(9.0, dtype=dtype).reshape(3, 3)).sum().backward()
    twin.twist_from_rotations(rotmats.detach().requires_grad_(), rest).sum().backward()
    for tensor in inputs:
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


def test_without_reconstruction_predicted_bones_are_followed(rng: np.random.Generator) -> None:
    skeleton, twist, rest = (t.detach() for t in body_tensors(rng, 20, noise_m=0.02))
    rotmats = twin.inverse_kinematics(skeleton, twist, rest, reconstruct=False)
    world, _ = twin.forward_kinematics(rotmats, rest)
    children = list(BONE_CHILD[1:])
    bones = rest[:, children] - rest[:, 1:NUM_JOINTS]
    got = torch.nn.functional.normalize((world[:, 1:] @ bones[..., None])[..., 0], dim=-1)
    predicted = skeleton[:, children] - skeleton[:, 1:NUM_JOINTS]
    torch.testing.assert_close(got, torch.nn.functional.normalize(predicted, dim=-1))


def test_autocast_is_refused() -> None:
    rest = torch.tensor(rest_skeleton()[None])
    rotmats = torch.eye(3).expand(1, NUM_JOINTS, 3, 3)
    with torch.autocast("cpu"):
        with pytest.raises(ContractError, match="autocast"):
            twin.inverse_kinematics(rest, torch.tensor(NO_TWIST), rest)
        with pytest.raises(ContractError, match="autocast"):
            twin.twist_from_rotations(rotmats, rest)
        with pytest.raises(ContractError, match="autocast"):
            twin.forward_kinematics(rotmats, rest)


class Exported(torch.nn.Module):
    def forward(
        self, skeleton: torch.Tensor, twist: torch.Tensor, rest: torch.Tensor
    ) -> torch.Tensor:
        return twin.inverse_kinematics(skeleton, twist, rest)


def test_the_torch_twin_runs_in_onnx_runtime(rng: np.random.Generator, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    tensors = [t.detach().float().clone() for t in body_tensors(rng, 4, noise_m=0.002)]
    tensors[0][3, list(BONE_CHILD[1:])] = tensors[0][3, 1:NUM_JOINTS].clone()  # no lengths
    path = tmp_path / "kinematics.onnx"
    torch.onnx.export(
        Exported().eval(),
        tuple(tensors),
        path,
        input_names=["skeleton", "twist", "rest"],
        opset_version=20,
        dynamo=True,
        optimize=False,  # halves the time; the run time's own optimiser does the same work
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {i.name: t.numpy() for i, t in zip(session.get_inputs(), tensors, strict=True)}
    (got,) = session.run(None, feeds)
    np.testing.assert_allclose(got, twin.inverse_kinematics(*tensors).numpy(), atol=1e-4)
