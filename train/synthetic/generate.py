"""One synthetic person per index: a picture and labels that are exact by construction.

Sample `index` of a split depends on (seed, split, index) alone: the number of workers and the order of
rendering change nothing, and the two splits never share a random stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array
from glnet_rt.errors import ContractError
from glnet_rt.kinematics import twist_from_rotations
from train.synthetic.appearance import sample_lights, sample_outfit
from train.synthetic.background import Stage, load_photographs, paint_background
from train.synthetic.effects import develop
from train.synthetic.noise import HELD_OUT_PATTERNS, PATTERN_NAMES
from train.synthetic.occluders import Occluder, paint_occluders, sample_occluders
from train.synthetic.people import Person, Wardrobe
from train.synthetic.poses import FAMILY_NAMES, Pose, sample_pose
from train.synthetic.render import Canvas, Layer, seen_keypoints
from train.synthetic.shading import Lens
from train.synthetic.view import Picture, Placement, place, sample_orientation

SPLITS = ("train", "heldout")
FLAG_NAMES = ("truncated", "occluded", "grey", "skirt", "held_out_pattern", "shadow")
HIDDEN, SEEN, OUTSIDE = 1, 2, 0
NUM_BETAS = 10
_BETA_LIMIT = 2.5
_ATTEMPTS = 50
_LEAST_SEEN = 6  # keypoints
_LEAST_AREA = 0.015  # of the picture


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture and its labels; `shards.FIELDS` gives shapes and dtypes, docs/synthetic.md units."""

    images: Array
    mask: Array
    keypoints_uv: Array
    visible: Array
    keypoints_xyz: Array
    root_xyz: Array
    focal: float
    principal_uv: Array
    rotmats: Array
    twist: Array
    betas: Array
    box_uv: Array
    kind: int
    background: int
    flags: int


@dataclass(frozen=True, eq=False)
class _Subject:
    """Who is in the picture: everything that does not depend on where the camera stands."""

    pose: Pose
    betas: Array
    rotmats: Array
    rest: Array
    keypoints: Array
    person: Person
    up: Array


class Generator:
    """Renders samples of one split.

    Args:
        body: the body whose betas and rest joints become the labels.
        split: `train` or `heldout`.
        seed: of the whole set.
        size: side R of the picture, px, a multiple of 8.

    Raises:
        ContractError: an unknown split or a size that is no multiple of 8.
    """

    def __init__(
        self, body: BodyModel, split: str = "train", seed: int = 1, size: int = 160
    ) -> None:
        if split not in SPLITS:
            raise ContractError("unknown split", got=split, expected=SPLITS)
        if size < 32 or size % 8:
            raise ContractError(
                "the picture size does not fit", got=size, expected="a multiple of 8, at least 32",
                fix="masks are stored as packed bits",
            )  # fmt: skip
        self.split, self.seed, self.size = split, seed, size
        self.wardrobe = Wardrobe(body)
        self.body = body
        self.photographs = load_photographs(split)
        self._canvas = Canvas(size)

    def sample(self, index: int) -> Sample:
        """Sample `index` of the split; an attempt that shows too little of the person is redrawn."""
        for attempt in range(_ATTEMPTS):
            rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index, attempt])
            sample = self._attempt(rng)
            if sample is not None:
                return sample
        raise ContractError(
            f"no picture of sample {index} shows a person", expected=f"one in {_ATTEMPTS} attempts"
        )

    def _attempt(self, rng: np.random.Generator) -> Sample | None:
        outfit = sample_outfit(rng, self.wardrobe.landmarks, self.split)
        subject = self._sample_subject(rng, outfit)
        placement = place(rng, subject.person.vertices, subject.keypoints, subject.up)
        xy = placement.project(subject.person.vertices)
        inside = placement.inside(xy)
        if inside.mean() < 0.08:
            return None
        occluders = sample_occluders(rng, xy[inside])
        picture = Picture.around(xy[inside & ~_covered(occluders, xy)])
        lens = Lens(placement.focal / picture.side, *(-picture.centre / picture.side))
        lights, strength = sample_lights(rng, subject.up)
        vertices = (subject.person.vertices + placement.translation).astype(np.float32)
        shadow = self._canvas.shadow(vertices, subject.person.mesh.faces, lights, strength)
        layer = self._canvas.draw(subject.person, vertices, outfit, lights, lens, shadow)
        seat = placement.translation if _seated_to_camera(subject) else None
        border = _border(placement, picture)
        stage = Stage(lens, border, subject.up, vertices, lights, shadow, seat)
        rgb = np.zeros((self.size, self.size, 3), np.float32)
        background = paint_background(rng, self.split, self.photographs, stage, layer.alpha, rgb)
        rgb *= 1 - layer.alpha[..., None]
        rgb += layer.rgb
        in_image = _inside_border(border, self.size)
        mask = (layer.alpha >= 0.5) & in_image
        paint_occluders(rng, occluders, picture, self.photographs, rgb, mask)
        if mask.mean() < _LEAST_AREA:
            return None
        image, grey = develop(rng, rgb)
        image[~in_image] = 0
        visible = self._visibility(subject, placement, picture, occluders, layer)
        if (visible == SEEN).sum() < _LEAST_SEEN:
            return None
        flags = _flags(
            inside.mean() < 0.99, len(occluders) > 0, grey, outfit.skirt,
            _wears_held_out(outfit.cloth.pattern), shadow.strength > 0,
        )  # fmt: skip
        return self._label(subject, placement, picture, image, mask, visible, background, flags)

    def _sample_subject(self, rng: np.random.Generator, outfit: object) -> _Subject:
        betas = np.clip(rng.standard_normal(NUM_BETAS), -_BETA_LIMIT, _BETA_LIMIT)
        betas = betas.astype(np.float32)
        rest = self.body.rest_skeleton(betas[None])
        pose = sample_pose(rng, rest[0], self.split)
        camera_from_world = sample_orientation(rng)
        return self.pose_subject(betas, rest, pose, camera_from_world, outfit)

    def pose_subject(
        self, betas: Array, rest: Array, pose: Pose, camera_from_world: Array, outfit: object
    ) -> _Subject:
        """Pose and dress a body of shape betas [10], rest [1, 29, 3], seen by a turned camera."""
        rotmats = pose.rotmats
        rotmats[0] = camera_from_world @ rotmats[0]
        rotmats = rotmats.astype(np.float32)
        output = self.body(betas[None], rotmats[None])
        keypoints = self.body.keypoints(output)[0] - output.joints[0, 0]
        person = self.wardrobe.dress(output, betas, rotmats, outfit)
        return _Subject(pose, betas, rotmats, rest, keypoints, person, camera_from_world[:, 1])

    def _visibility(
        self, subject: _Subject, placement: Placement, picture: Picture,
        occluders: list[Occluder], layer: Layer,
    ) -> Array:  # fmt: skip
        """[36] uint8: OUTSIDE the picture or the image, HIDDEN by something, or SEEN."""
        xy = placement.project(subject.keypoints)
        uv = picture.uv(xy)
        depth = subject.keypoints[:, 2] + placement.translation[2]
        seen = seen_keypoints(uv, depth, layer.zbuffer) & ~_covered(occluders, xy)
        inside = placement.inside(xy) & (np.abs(uv) <= 0.5).all(1)
        return np.where(inside, np.where(seen, SEEN, HIDDEN), OUTSIDE).astype(np.uint8)

    def _label(
        self, subject: _Subject, placement: Placement, picture: Picture, image: Array, mask: Array,
        visible: Array, background: int, flags: int,
    ) -> Sample:  # fmt: skip
        root = placement.translation.astype(np.float32)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / self.size - 0.5
        return Sample(
            images=image,
            mask=np.packbits(mask, axis=1),
            keypoints_uv=picture.uv(placement.project(subject.keypoints)),
            visible=visible,
            keypoints_xyz=subject.keypoints,
            root_xyz=root,
            focal=placement.focal / picture.side,
            principal_uv=-picture.centre / picture.side,
            rotmats=subject.rotmats,
            twist=twist_from_rotations(subject.rotmats[None], subject.rest)[0],
            betas=subject.betas,
            box_uv=box,
            kind=subject.pose.kind,
            background=background,
            flags=flags,
        )


def _covered(occluders: list[Occluder], xy: Array) -> Array:
    """[N] bool: image coordinates [N, 2] under any occluder."""
    covered = np.zeros(len(xy), bool)
    for occluder in occluders:
        covered |= occluder.covers(xy)
    return covered


def _seated_to_camera(subject: _Subject) -> bool:
    """Whether the person sits with the knees nearer than the pelvis: then a seat can be drawn."""
    knees = subject.keypoints[[4, 5], 2].mean()
    return FAMILY_NAMES[subject.pose.kind] == "sit" and knees < -0.1


def _border(placement: Placement, picture: Picture) -> Array:
    """[4] float32: left, top, right, bottom edge of the imaginary image in picture uv."""
    corners = np.stack([-placement.half_size, placement.half_size])
    return picture.uv(corners).reshape(4).astype(np.float32)


def _inside_border(border: Array, size: int) -> Array:
    """[R, R] bool: pixels whose centre lies within the imaginary image."""
    line = (np.arange(size) + 0.5) / size - 0.5
    across = (line >= border[0]) & (line <= border[2])
    down = (line >= border[1]) & (line <= border[3])
    inside: Array = down[:, None] & across[None, :]
    return inside


def _wears_held_out(patterns: Array) -> bool:
    return any(PATTERN_NAMES[p] in HELD_OUT_PATTERNS for p in patterns)


def _flags(*values: bool) -> int:
    """Bits in the order of `FLAG_NAMES`."""
    return sum(1 << bit for bit, value in enumerate(values) if value)
