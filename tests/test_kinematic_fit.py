"""The kinematic fit: against a dense solution, what it does to poses, and its exportable twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from glnet_rt.artifact import BODY as BODY_FILE
from glnet_rt.artifact import Artifact
from glnet_rt.body_model import BodyModel, forward_kinematics
from glnet_rt.camera import fit_translation
from glnet_rt.contracts import Array
from glnet_rt.errors import ContractError
from glnet_rt.kinematic_fit import SHIFT_PRIOR_M, kinematic_fit
from glnet_rt.probe import Probe
from glnet_rt.rotation import rot6d_to_rotmat, rotvec_to_rotmat
from glnet_rt.skeleton import INDEX, NUM_JOINTS, NUM_SKELETON, PARENTS
from tests.human import angle_deg, assert_rotations, random_bodies
from train.model import kinematic_fit as twin

BODY = Path(__file__).resolve().parents[1] / "glnet_rt/assets/body.npz"
UNKNOWNS = 3 * NUM_JOINTS + 3  # a turn of every joint, and a shift
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


# The torch twin.

Arguments = tuple[Array, ...]  # of `kinematic_fit`, all but the prior, focal as [B, 2]


def torch_fit(arguments: Arguments, prior_rad: float, dtype: torch.dtype = torch.float32) -> Array:
    tensors = (torch.tensor(v, dtype=dtype) for v in arguments)
    return twin.kinematic_fit(*tensors, prior_rad).numpy()


def random_people(count: int) -> Arguments:
    """Any pose, two to six metres away, keypoints a few percent of the crop from where it is."""
    rng = np.random.default_rng(8)
    rest, rotmats = random_bodies(rng, count)
    pelvis = rng.uniform([-0.5, -0.5, 2.5], [0.5, 0.5, 6.0], (count, 3))
    focal, offset = rng.uniform(2, 5, (count, 2)), rng.normal(scale=0.2, size=(count, 2))
    points = skeleton_of(rotmats, rest, pelvis)
    uv = focal[:, None] * points[..., :2] / points[..., 2:] - offset[:, None]
    spread = rng.uniform(0.01, 0.4, (count, NUM_SKELETON))
    uv = uv + rng.normal(size=uv.shape) * 0.5 * spread[..., None]
    return rotmats, rest, pelvis, uv, spread, offset, focal


def shipped_predictions() -> tuple[Arguments, float]:
    """What the shipped network says of its probe's people, and its prior."""
    artifact = Artifact.open()
    output, spec = Probe.read(artifact).output, artifact.spec
    body = BodyModel.from_bytes(artifact.read(BODY_FILE), BODY_FILE)
    count = len(output.score)
    rotmats, rest = rot6d_to_rotmat(output.rot6d), body.rest_skeleton(output.betas)
    offset, focal = np.zeros((count, 2)), np.full((count, 2), spec.focal)
    _, joints = forward_kinematics(rotmats, rest[:, :NUM_JOINTS])
    uv = output.keypoints_uvd[..., :2]
    pelvis = fit_translation(
        joints - joints[:, :1], uv[:, :NUM_JOINTS], output.camera_scale, offset, focal
    )
    uv, spread = uv[:, :NUM_SKELETON], output.spread[:, :NUM_SKELETON]
    return (rotmats, rest, pelvis, uv, spread, offset, focal), spec.fit_prior_rad


def joints_mm(rotmats: Array, arguments: Arguments) -> Array:
    """[B, 29, 3], mm, posed."""
    return skeleton_of(rotmats, *arguments[1:3]) * 1000


@pytest.mark.parametrize("prior_rad", [0.02, 0.05, 0.1])
def test_the_torch_twin_equals_numba_on_any_pose(prior_rad: float) -> None:
    arguments = random_people(200)
    wanted = kinematic_fit(*arguments, prior_rad)
    assert angle_deg(wanted, arguments[0]).max() > 0.5
    assert angle_deg(torch_fit(arguments, prior_rad, torch.float64), wanted).max() < 1e-5
    got = torch_fit(arguments, prior_rad)
    assert angle_deg(got, wanted).max() < 2e-4
    assert np.abs(joints_mm(got, arguments) - joints_mm(wanted, arguments)).max() < 0.005


def test_the_torch_twin_equals_numba_on_real_predictions() -> None:
    arguments, prior_rad = shipped_predictions()
    wanted, got = kinematic_fit(*arguments, prior_rad), torch_fit(arguments, prior_rad)
    assert angle_deg(wanted, arguments[0]).max() > 0.5
    assert angle_deg(got, wanted).max() < 2e-4
    assert np.abs(joints_mm(got, arguments) - joints_mm(wanted, arguments)).max() < 0.005


def test_the_torch_twin_stays_finite() -> None:
    """Keypoints that weigh nothing or too much, bones without length, nobody in view."""
    rotmats, rest, pelvis, uv, spread, offset, focal = random_people(6)
    spread[0], spread[1] = 1e12, 0.0
    rest[2] = 0.0
    rest[3, INDEX["left_elbow"]] = rest[3, INDEX["left_shoulder"]]
    pelvis[4] = [0.0, 0.0, -3.0]
    uv[5] = uv[5, :1]
    got = torch_fit((rotmats, rest, pelvis, uv, spread, offset, focal), 0.05)
    assert_rotations(got, 1e-5)
    for unseen in (0, 4):
        assert angle_deg(got[unseen], rotmats[unseen]).max() < 0.05


class Exported(torch.nn.Module):
    def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
        return twin.kinematic_fit(*arguments, prior_rad=0.05)


def test_onnxruntime_runs_the_torch_twin() -> None:
    import onnxruntime

    arguments = tuple(v.astype(np.float32) for v in random_people(8))
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        Exported().eval(),
        tuple(torch.from_numpy(v[:2]) for v in arguments),
        opset_version=20,
        dynamic_shapes=(({0: batch},) * len(arguments),),
        dynamo=True,
        verbose=False,
    )
    proto = program.model_proto
    assert {(o.domain, o.version) for o in proto.opset_import} == {("", 20)}
    assert not proto.functions
    kinds = {node.op_type for node in proto.graph.node}
    assert not kinds & {"Loop", "Scan", "If", "Det"}  # plain arithmetic, for any engine
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    names = [node.name for node in session.get_inputs()]
    for count in (1, 3, 8):
        some = [v[:count] for v in arguments]
        (got,) = session.run(None, dict(zip(names, some, strict=True)))
        np.testing.assert_allclose(got, torch_fit(tuple(some), 0.05), atol=2e-5)
