"""One-Euro against a plain float64 reference, its lag, and people made steady."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from glnet_rt.artifact import Artifact
from glnet_rt.body_model import BodyModel
from glnet_rt.camera import project
from glnet_rt.contracts import Array, Person, Result
from glnet_rt.errors import ContractError, GlnetError
from glnet_rt.rotation import rotmat_to_rotvec, rotvec_to_rotmat
from glnet_rt.smooth import OneEuro, RotationFilter, SmoothConfig, Smoother, VectorFilter

STEP_S = 1 / 30


@pytest.fixture(scope="module")
def body(tiny_artifact: Artifact) -> BodyModel:
    return BodyModel.from_bytes(tiny_artifact.read("body.npz"), "body.npz")


def reference(
    values: list[float], times: list[float], least: float, per_speed: float, speed_hz: float
) -> list[float]:
    """Casiez, Roussel and Vogel's filter of one number, written down once more."""

    def alpha(cutoff: float, seconds: float) -> float:
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau / seconds)

    out, slope = [values[0]], 0.0
    for k in range(1, len(values)):
        seconds = times[k] - times[k - 1]
        a = alpha(speed_hz, seconds)
        slope = a * (values[k] - values[k - 1]) / seconds + (1 - a) * slope
        a = alpha(least + per_speed * abs(slope), seconds)
        out.append(a * values[k] + (1 - a) * out[-1])
    return out


def irregular_times(count: int) -> list[float]:
    return np.cumsum(np.random.default_rng(4).uniform(0.005, 0.09, count)).tolist()


def test_vectors_against_the_reference() -> None:
    times = irregular_times(200)
    values = [math.sin(3 * t) + 0.1 * math.sin(40 * t) for t in times]
    constants = OneEuro(1.2, 0.8, 1.5)
    wanted = reference(values, times, 1.2, 0.8, 1.5)
    smooth = VectorFilter(constants, np.array([values[0]]))
    got = [values[0]]
    for k in range(1, 200):
        got.append(float(smooth(np.array([values[k]]), times[k] - times[k - 1])[0]))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)


def test_rotations_about_one_axis_against_the_reference() -> None:
    """Turning about a fixed axis, SO(3) is a number line: the angle."""
    times = irregular_times(200)
    angles = [2 * math.sin(2 * t) + 0.05 * math.sin(50 * t) for t in times]
    axis = np.array([0.6, 0.0, 0.8])
    wanted = reference(angles, times, 1.5, 1.0, 1.0)
    rotations = Rotation.from_rotvec(np.outer(angles, axis)).as_matrix()
    smooth = RotationFilter(OneEuro(1.5, 1.0), rotations[:1])
    for k in range(1, 200):
        got = smooth(rotations[k : k + 1], times[k] - times[k - 1])[0]
        expected = Rotation.from_rotvec(wanted[k] * axis).as_matrix()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("speed", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("fps", [15, 30, 60])
def test_lag_is_what_the_formula_says(speed: float, fps: int) -> None:
    constants = SmoothConfig().rotation
    smooth = RotationFilter(constants, np.eye(3)[None])
    for k in range(1, 10 * fps):
        turned = rotvec_to_rotmat(np.array([[0.0, speed * k / fps, 0.0]]))
        behind = smooth(turned, 1 / fps)
    angle = rotmat_to_rotvec(np.swapaxes(behind, -1, -2) @ turned)[0, 1]
    assert 1000 * angle / speed == pytest.approx(constants.lag_ms(speed), rel=1e-3)


def test_group_delay_of_a_swing() -> None:
    """A joint that swings 1 rad at 0.8 Hz comes late by less than at rest, more than at its top."""
    constants, fps, hz = SmoothConfig().rotation, 100, 0.8
    times = np.arange(0, 20, 1 / fps)
    angles = np.sin(2 * np.pi * hz * times)
    smooth, out = RotationFilter(constants, np.eye(3)[None]), [0.0]
    for angle in angles[1:]:
        turned = smooth(rotvec_to_rotmat(np.array([[angle, 0.0, 0.0]])), 1 / fps)
        out.append(float(rotmat_to_rotvec(turned)[0, 0]))
    half = len(times) // 2
    wave = np.exp(-2j * np.pi * hz * times[half:])
    delay = np.angle((angles[half:] @ wave) / (np.array(out[half:]) @ wave)) / (2 * np.pi * hz)
    assert constants.lag_ms(2 * np.pi * hz) < 1000 * delay < constants.lag_ms(0)


def test_trembling_becomes_less_and_a_turn_of_more_than_180_degrees_is_followed() -> None:
    rng = np.random.default_rng(0)
    smooth, kept = RotationFilter(SmoothConfig().rotation, np.eye(3)[None]), []
    for _ in range(300):
        noisy = rotvec_to_rotmat(rng.normal(0, 0.03, (1, 3)))
        kept.append(np.linalg.norm(rotmat_to_rotvec(smooth(noisy, STEP_S))))
    assert np.mean(kept[30:]) < 0.5 * 0.03 * math.sqrt(3)
    for k in range(200):
        out = smooth(rotvec_to_rotmat(np.array([[0.0, 0.1 * k, 0.0]])), STEP_S)
    np.testing.assert_allclose(out @ np.swapaxes(out, -1, -2), np.eye(3)[None], atol=1e-12)


def test_constants_that_are_none(assert_helpful: Callable[[GlnetError], None]) -> None:
    with pytest.raises(ContractError) as caught:
        OneEuro(0.0, 1.0)
    assert_helpful(caught.value)


def somebody(
    body: BodyModel, angle: float, pelvis: Array, *, betas: float = 0.0, track_id: int | None = 0,
    focal: float = 500.0,
) -> Person:  # fmt: skip
    """A person turned by `angle` about y, the pelvis at [3] m."""
    shape = np.full((1, 10), betas, np.float32)
    rotmats = np.tile(np.eye(3, dtype=np.float32), (1, 24, 1, 1))
    rotmats[0, 0] = rotvec_to_rotmat(np.array([0.0, angle, 0.0]))
    transl = (pelvis - body.rest_skeleton(shape)[0, 0]).astype(np.float32)
    posed = body(shape, rotmats, transl[None])
    K = np.array([[focal, 0, 320.0], [0, focal, 240.0], [0, 0, 1]])
    return Person(
        posed.vertices[0], posed.joints[0], np.zeros((36, 2), np.float32), rotmats[0, 0],
        rotmats[0, 1:], shape[0], transl, np.zeros(4, np.float32), 0.5, K, track_id,
    )  # fmt: skip


def frame_of(number: int, person: Person, step_s: float = STEP_S) -> Result:
    faces = np.zeros((1, 3), np.int32)
    return Result((person,), number, round(number * step_s * 1e9), (640, 480), faces)


def test_a_steady_person_is_one_body(body: BodyModel) -> None:
    rng = np.random.default_rng(1)
    smoother, raw, steady = Smoother(body), [], []
    for number in range(60):
        pelvis = np.array([0.2, 0.1, 5.0]) + rng.normal(0, 0.02, 3)
        person = somebody(body, rng.normal(0, 0.05), pelvis)
        (out,) = smoother(frame_of(number, person)).people
        raw.append(person.joints[5])
        steady.append(out.joints[5])
        posed = body(
            out.betas[None], np.concatenate([out.global_orient[None], out.body_pose])[None],
            out.transl[None],
        )  # fmt: skip
        np.testing.assert_allclose(out.joints, posed.joints[0], atol=1e-5)
        np.testing.assert_allclose(out.vertices, posed.vertices[0], atol=1e-5)
    jump = [np.linalg.norm(np.diff(track, axis=0), axis=1).mean() for track in (raw, steady)]
    assert jump[1] < 0.5 * jump[0]


def test_place_stays_on_the_picture_when_the_virtual_camera_changes(body: BodyModel) -> None:
    smoother = Smoother(body)
    for number in range(40):
        focal = 500.0 if number % 2 else 650.0
        pelvis = np.array([0.4, 0.1, 5.0 * focal / 500])
        pelvis[:2] = np.array([0.4, 0.1])
        (out,) = smoother(frame_of(number, somebody(body, 0.0, pelvis, focal=focal))).people
        px = project(out.joints[:1].astype(np.float64), out.K)[0]
        np.testing.assert_allclose(px, [320 + 500 * 0.4 / 5, 240 + 500 * 0.1 / 5], atol=0.05)


def test_shape_settles_and_stays(body: BodyModel) -> None:
    smoother = Smoother(body, SmoothConfig(shape_frames=4))
    told = []
    for number, betas in enumerate((1.0, 0.0, 0.0, 1.0, 3.0, 3.0)):
        person = somebody(body, 0.0, np.array([0, 0, 5.0]), betas=betas)
        told.append(smoother(frame_of(number, person)).people[0].betas[0])
    np.testing.assert_allclose(told, [1, 0.5, 1 / 3, 0.5, 0.5, 0.5], atol=1e-6)


def test_another_id_a_gap_and_time_that_runs_back_start_anew(body: BodyModel) -> None:
    smoother = Smoother(body)
    for number in range(10):
        smoother(frame_of(number, somebody(body, 0.0, np.array([0, 0, 5.0]))))
    turned = somebody(body, 1.0, np.array([0, 0, 5.0]))
    other = somebody(body, 1.0, np.array([0, 0, 5.0]), track_id=1)
    nobody = somebody(body, 1.0, np.array([0, 0, 5.0]), track_id=None)
    assert smoother(frame_of(10, other)).people[0] is other
    assert smoother(frame_of(10, nobody)).people[0] is nobody
    assert smoother(frame_of(11, turned)).people[0] is not turned
    assert smoother(frame_of(40, turned)).people[0] is turned
    assert smoother(frame_of(2, turned)).people[0] is turned


def test_the_same_time_twice_changes_nothing(body: BodyModel) -> None:
    smoother = Smoother(body)
    first = somebody(body, 0.0, np.array([0, 0, 5.0]))
    smoother(frame_of(3, first))
    (out,) = smoother(frame_of(3, somebody(body, 1.0, np.array([1, 0, 5.0])))).people
    np.testing.assert_allclose(out.joints, first.joints, atol=1e-5)
