"""Steady bodies over time: One-Euro filters on rotations and places, a shape that settles.

The One-Euro filter (Casiez, Roussel and Vogel, CHI 2012) is a low-pass filter whose cut-off rises
with speed: what rests is held still, what moves is let through. Its lag at a constant speed v is
exactly 1 / (2 pi (least_hz + per_speed * v)), the same at any frame rate (`OneEuro.lag_ms`).

Rotations are filtered where they live: steps are taken along the shortest arc of SO(3), never on
matrix entries or angles. Times are int ns and may come at irregular steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, Person, Result
from glnet_rt.errors import ContractError
from glnet_rt.rotation import rotmat_to_rotvec, rotvec_to_rotmat

_NS = 1e9


@dataclass(frozen=True)
class OneEuro:
    """One filter's constants.

    Attributes:
        least_hz: cut-off at rest. Lower trembles less and lags more when a movement begins.
        per_speed: Hz that the cut-off rises per unit of speed. Higher lags less in fast movements
            and lets more noise through in them.
        speed_hz: cut-off of the low-pass filter on the speed itself.
    """

    least_hz: float
    per_speed: float
    speed_hz: float = 1.0

    def __post_init__(self) -> None:
        if not (self.least_hz > 0 and self.per_speed >= 0 and self.speed_hz > 0):
            raise ContractError(
                "a One-Euro filter cannot have these constants",
                got=f"least_hz {self.least_hz}, per_speed {self.per_speed}, {self.speed_hz} Hz",
                expected="least_hz > 0, per_speed >= 0, speed_hz > 0",
                fix="leave them out for the defaults",
            )

    def cutoff_hz(self, speed: Array | float) -> Array | float:
        """Cut-off at a speed."""
        return self.least_hz + self.per_speed * speed

    def lag_ms(self, speed: float) -> float:
        """How far behind the output is, in ms, once a constant speed has lasted."""
        return 1000.0 / (2 * math.pi * float(self.cutoff_hz(speed)))


@dataclass(frozen=True)
class SmoothConfig:
    """How bodies are made steady.

    Attributes:
        rotation: of the 24 joints, each by itself; speeds in rad/s.
        place: of the pelvis across the picture; speeds in m/s.
        distance: of the logarithm of its distance; speeds in 1/s. Distance is what a single camera
            sees worst.
        shape_frames: frames after which a person's betas are settled and change no more.
        gap_s: seconds without a sighting, after which somebody is filtered anew.
    """

    rotation: OneEuro = field(default_factory=lambda: OneEuro(1.5, 1.5))
    place: OneEuro = field(default_factory=lambda: OneEuro(1.5, 3.0))
    distance: OneEuro = field(default_factory=lambda: OneEuro(0.8, 6.0))
    shape_frames: int = 30
    gap_s: float = 0.5


class VectorFilter:
    """One-Euro on vectors [..., n]: one speed, so one cut-off, for each vector as a whole.

    Args:
        constants: of the filter; speeds are in units of the vector per second.
        first: the first value, returned as it is.
    """

    def __init__(self, constants: OneEuro, first: Array) -> None:
        self._constants = constants
        self._raw = self._smooth = np.asarray(first, np.float64)
        self._velocity = np.zeros_like(self._raw)

    def __call__(self, value: Array, seconds: float, unit: float = 1.0) -> Array:
        """The next value.

        Args:
            value: as the first.
            seconds: since the value before, > 0.
            unit: of `value` in one unit of speed; px per m where vectors are px and speeds m/s.
        """
        value = np.asarray(value, np.float64)
        velocity = (value - self._raw) / seconds
        self._velocity += _share(self._constants.speed_hz, seconds) * (velocity - self._velocity)
        speed = np.linalg.norm(self._velocity, axis=-1, keepdims=True) / unit
        share = _share(self._constants.cutoff_hz(speed), seconds)
        self._raw = value
        self._smooth = self._smooth + share * (value - self._smooth)
        return self._smooth


class RotationFilter:
    """One-Euro on rotations [..., 3, 3]: each has its own speed, rad/s, and its own cut-off.

    The speed is the low-passed angular velocity, in the rotating frame. Half a turn between two
    values has no shortest arc; one of the two is taken.

    Args:
        constants: of the filter.
        first: the first value, returned as it is.
    """

    def __init__(self, constants: OneEuro, first: Array) -> None:
        self._constants = constants
        self._raw = self._smooth = np.asarray(first, np.float64)
        self._velocity = np.zeros(self._raw.shape[:-1])

    def __call__(self, value: Array, seconds: float) -> Array:
        """The next value, `seconds` > 0 after the one before; float64 rotation matrices."""
        value = np.asarray(value, np.float64)
        velocity = _turn(self._raw, value) / seconds
        self._velocity += _share(self._constants.speed_hz, seconds) * (velocity - self._velocity)
        speed = np.linalg.norm(self._velocity, axis=-1, keepdims=True)
        share = _share(self._constants.cutoff_hz(speed), seconds)
        self._raw = value
        step = rotvec_to_rotmat(share * _turn(self._smooth, value))
        self._smooth = _orthogonal(self._smooth @ step)
        return self._smooth


class Smoother:
    """Makes the people of one stream steady, each by their `track_id`.

    Of a Person it changes rotations, shape, place and what follows from them (joints and vertices);
    `keypoints_px` stay the network's own, and who has no `track_id` stays as is. Betas are the mean
    of those seen so far, weighted by score, until `shape_frames` are seen, and stay that. Somebody
    who returns after `gap_s`, and everybody where time runs backwards, is filtered anew.

    Args:
        body: whose betas and rotations the people have.
        config: see `SmoothConfig`.
    """

    def __init__(self, body: BodyModel, config: SmoothConfig | None = None) -> None:
        self.body = body
        self.config = SmoothConfig() if config is None else config
        self._people: dict[int, _Steady] = {}
        self._now_ns: int | None = None

    def __call__(self, result: Result) -> Result:
        """The next frame's people, made steady."""
        now = result.timestamp_ns
        if self._now_ns is not None and now < self._now_ns:
            self._people.clear()
        self._now_ns = now
        gap = self.config.gap_s * _NS
        self._people = {i: s for i, s in self._people.items() if now - s.seen_ns <= gap}
        return replace(result, people=tuple(self._steady(p, now) for p in result.people))

    def _steady(self, person: Person, now: int) -> Person:
        if person.track_id is None:
            return person
        steady = self._people.get(person.track_id)
        rotmats = np.concatenate([person.global_orient[None], person.body_pose]).astype(np.float64)
        if steady is None:
            steady = _Steady(person, rotmats, now, self.config)
            self._people[person.track_id] = steady
            return person
        rotmats, pelvis, betas = steady.follow(person, rotmats, now)
        return self._posed(person, rotmats, pelvis, betas)

    def _posed(self, person: Person, rotmats: Array, pelvis: Array, betas: Array) -> Person:
        """The person with another pose, shape and pelvis [3], m, camera frame."""
        betas, rotmats = betas.astype(np.float32), rotmats.astype(np.float32)
        rest = self.body.rest_skeleton(betas[None])[0, 0]
        transl = (pelvis - rest).astype(np.float32)
        posed = self.body(betas[None], rotmats[None], transl[None])
        return replace(
            person,
            vertices=posed.vertices[0],
            joints=posed.joints[0],
            global_orient=rotmats[0],
            body_pose=rotmats[1:],
            betas=betas,
            transl=transl,
        )


class _Steady:
    """The filters of one person."""

    def __init__(self, person: Person, rotmats: Array, now: int, config: SmoothConfig) -> None:
        px, per_m = _seen_from(person)
        self._shape_frames = config.shape_frames
        self.seen_ns = now
        self._rotations = RotationFilter(config.rotation, rotmats)
        self._place = VectorFilter(config.place, px)
        self._distance = VectorFilter(config.distance, np.log([per_m]))
        self._per_m = per_m
        weight = max(person.score, 1e-3)
        self._betas, self._weight, self._frames = person.betas.astype(np.float64), weight, 1
        self._last = rotmats, person.joints[0].astype(np.float64)

    def follow(self, person: Person, rotmats: Array, now: int) -> tuple[Array, Array, Array]:
        """Rotations [24, 3, 3], pelvis [3] and betas of the next sighting, steady."""
        self._settle(person)
        seconds = (now - self.seen_ns) / _NS
        self.seen_ns = now
        if seconds > 0:  # the same time twice says nothing about speed: the old pose stands
            px, per_m = _seen_from(person)
            steady_px = self._place(px, seconds, unit=self._per_m)
            self._per_m = float(np.exp(self._distance(np.log([per_m]), seconds))[0])
            pelvis = _unproject(person.K, steady_px, self._per_m)
            self._last = self._rotations(rotmats, seconds), pelvis
        return (*self._last, self._betas)

    def _settle(self, person: Person) -> None:
        if self._frames >= self._shape_frames:
            return
        weight = max(person.score, 1e-3)
        self._weight += weight
        self._betas = self._betas + weight / self._weight * (person.betas - self._betas)
        self._frames += 1


def _seen_from(person: Person) -> tuple[Array, float]:
    """Where the pelvis is seen, [2] px, and how large: px per metre there.

    With an unknown lens every box has a virtual camera of its own, so metres jump where the box
    does while these two do not.
    """
    x, y, z = person.joints[0].astype(np.float64)
    K = person.K
    px = np.array([K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]])
    return px, float(math.sqrt(K[0, 0] * K[1, 1]) / z)


def _unproject(K: Array, px: Array, per_m: float) -> Array:
    """Inverse of `_seen_from`: [3] m."""
    z = math.sqrt(K[0, 0] * K[1, 1]) / per_m
    return np.array([(px[0] - K[0, 2]) * z / K[0, 0], (px[1] - K[1, 2]) * z / K[1, 1], z])


def _share(cutoff_hz: Array | float, seconds: float) -> Array | float:
    """How much of the way to the new value a low-pass filter goes in one step."""
    return 1.0 / (1.0 + 1.0 / (2 * math.pi * cutoff_hz * seconds))


def _turn(start: Array, end: Array) -> Array:
    """[..., 3] rotvec, rad, that leads from `start` to `end` [..., 3, 3], in start's frame."""
    return rotmat_to_rotvec(np.swapaxes(start, -1, -2) @ end)


def _orthogonal(rotmat: Array) -> Array:
    """Undo what rounding adds up to over thousands of frames: one Newton step to a rotation."""
    return np.asarray(1.5 * rotmat - 0.5 * rotmat @ np.swapaxes(rotmat, -1, -2) @ rotmat)
