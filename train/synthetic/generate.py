"""One synthetic person per index: a picture and labels that are exact by construction.

Sample `index` of a split depends on (seed, split, index) alone: the number of workers and the order
of rendering change nothing, and the two splits never share a random stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array
from glnet_rt.errors import ContractError
from glnet_rt.kinematics import twist_from_rotations
from train.synthetic.actors import Actor, Bystander, Casting
from train.synthetic.appearance import sample_lights
from train.synthetic.background import Stage, load_photographs, paint_background
from train.synthetic.effects import develop
from train.synthetic.noise import HELD_OUT_PATTERNS, PATTERN_NAMES
from train.synthetic.occluders import Occluder, paint_occluders, sample_occluders
from train.synthetic.poses import FAMILY_NAMES
from train.synthetic.render import Canvas, Layer, hidden_behind, hidden_by_things, seen_keypoints
from train.synthetic.shading import Lens, Lights
from train.synthetic.things import THING_NAMES
from train.synthetic.view import Picture, Placement, place, sample_tilt

Rng = np.random.Generator

SPLITS = ("train", "heldout")
FLAG_NAMES = (
    "truncated", "occluded", "grey", "skirt", "held_out_pattern", "shadow", "bystanders", "thing",
)  # fmt: skip
OUTSIDE, HIDDEN, SEEN = 0, 1, 2
_ATTEMPTS = 50
_LEAST_INSIDE = 0.08  # of the vertices
_LEAST_SEEN = 6  # keypoints
_LEAST_AREA = 0.015  # of the picture


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture and its labels; `shards.fields` has the shapes, docs/synthetic.md the meaning."""

    images: Array
    mask: Array
    surface: Array
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
    things: int


@dataclass(frozen=True, eq=False)
class _Scene:
    """Everything that stands before the camera, and the camera itself."""

    actor: Actor
    tilt: Array
    placement: Placement
    vertices: Array  # the actor's and those of things, camera frame, m
    xy: Array  # the actor's own, image coordinates
    inside: Array  # which of them lie within the image
    occluders: list[Occluder]
    bystanders: list[Bystander]
    lights: Lights
    shadow: float

    def lens(self, picture: Picture) -> Lens:
        """The picture's pinhole."""
        return Lens(self.placement.focal / picture.side, *(-picture.centre / picture.side))

    @property
    def front(self) -> list[Bystander]:
        return [one for one in self.bystanders if one.in_front]


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
                "the picture size does not fit",
                got=size,
                expected="a multiple of 8, at least 32",
                fix="masks are stored as packed bits, eight pixels to a byte",
            )
        self.body, self.split, self.seed, self.size = body, split, seed, size
        self.casting = Casting(body, split)
        self.photographs = load_photographs(split)
        self._canvas, self._other_canvas = Canvas(size), Canvas(size)

    def sample(self, index: int) -> Sample:
        """Sample `index` of the split; what shows too little of the person is drawn again."""
        for attempt in range(_ATTEMPTS):
            rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index, attempt])
            sample = self._attempt(rng)
            if sample is not None:
                return sample
        raise ContractError(
            f"no picture of sample {index} shows a person", expected=f"one in {_ATTEMPTS} attempts"
        )

    def _attempt(self, rng: Rng) -> Sample | None:
        scene = self._compose(rng)
        picture = None if scene is None else self._frame(scene)
        if scene is None or picture is None:
            return None
        return self._photograph(rng, scene, picture)

    def _compose(self, rng: Rng) -> _Scene | None:
        """Draw people, camera, occluders and light; None where the image misses the person."""
        tilt = sample_tilt(rng)
        actor = self.casting.draw(rng, tilt)
        own = actor.person.own_vertices
        placement = place(rng, own, actor.keypoints)
        xy = placement.project(own)
        inside = placement.inside(xy)
        if inside.mean() < _LEAST_INSIDE:
            return None
        occluders = sample_occluders(rng, xy[inside])
        vertices = (actor.person.vertices + placement.translation).astype(np.float32)
        floor = float((vertices @ tilt[:, 1]).min())
        bystanders = self.casting.bystanders(
            rng, tilt, placement.translation, floor, placement.focal
        )
        lights, shadow = sample_lights(rng, tilt[:, 1])
        return _Scene(
            actor, tilt, placement, vertices, xy, inside, occluders, bystanders, lights, shadow
        )

    def _frame(self, scene: _Scene) -> Picture | None:
        """The square around what is seen of the person, bystanders in front considered."""
        seen = scene.inside & ~_covered(scene.occluders, scene.xy)
        picture = Picture.around(scene.xy[seen])
        if not scene.front:
            return picture
        for one in scene.front:
            layer = self._draw_bystander(one, scene, picture)
            depth = scene.vertices[: len(scene.xy), 2]
            seen &= ~hidden_behind(picture.uv(scene.xy), depth, layer.zbuffer)
        return Picture.around(scene.xy[seen]) if seen.mean() > _LEAST_INSIDE else None

    def _draw_bystander(self, one: Bystander, scene: _Scene, picture: Picture) -> Layer:
        canvas = self._other_canvas
        unshadowed = canvas.shadow(one.vertices, one.person.mesh.faces, scene.lights, 0.0)
        return canvas.draw(
            one.person, one.vertices, one.outfit, scene.lights, scene.lens(picture), unshadowed
        )

    def _photograph(self, rng: Rng, scene: _Scene, picture: Picture) -> Sample | None:
        """Render, develop and label; None where too little of the person is seen."""
        actor, lens = scene.actor, scene.lens(picture)
        faces = actor.person.mesh.faces
        shadow = self._canvas.shadow(scene.vertices, faces, scene.lights, scene.shadow)
        layer = self._canvas.draw(
            actor.person, scene.vertices, actor.outfit, scene.lights, lens, shadow
        )
        border = _border(scene.placement, picture)
        in_image = _inside_border(border, self.size)
        mask = (layer.own >= 0.5) & in_image
        visible = self._visibility(scene, picture, layer)
        seat = scene.placement.translation if _lacks_seat(actor) else None
        stage = Stage(lens, border, scene.tilt[:, 1], scene.vertices, scene.lights, shadow, seat)
        rgb = np.zeros((self.size, self.size, 3), np.float32)
        empty = layer.alpha if not scene.bystanders else np.zeros_like(layer.alpha)
        background = paint_background(rng, self.split, self.photographs, stage, empty, rgb)
        self._add_people(scene, picture, layer, rgb, mask, visible)
        paint_occluders(rng, scene.occluders, picture, self.photographs, rgb, mask)
        if mask.mean() < _LEAST_AREA or (visible == SEEN).sum() < _LEAST_SEEN:
            return None
        image, grey = develop(rng, rgb)
        image[~in_image] = 0
        flags = _flags(
            scene.inside.mean() < 0.99,
            bool(scene.occluders or scene.front), grey, actor.outfit.hangs_free,
            _wears_held_out(actor.outfit.cloth.pattern), scene.shadow > 0, bool(scene.bystanders),
            bool(actor.things),
        )  # fmt: skip
        return self._label(scene, picture, image, mask, visible, background, flags)

    def _add_people(
        self, scene: _Scene, picture: Picture, layer: Layer, rgb: Array, mask: Array, visible: Array
    ) -> None:
        """Paint everybody over the background, far to near; update mask and visibility in place."""
        uv = picture.uv(scene.placement.project(scene.actor.keypoints))
        depth = scene.actor.keypoints[:, 2] + scene.placement.translation[2]
        for one in scene.bystanders:
            if not one.in_front:
                _paste(self._draw_bystander(one, scene, picture), rgb)
        _paste(layer, rgb)
        for one in scene.front:
            other = self._draw_bystander(one, scene, picture)
            _paste(other, rgb)
            mask &= other.alpha < 0.5
            visible[hidden_behind(uv, depth, other.zbuffer) & (visible == SEEN)] = HIDDEN

    def _visibility(self, scene: _Scene, picture: Picture, layer: Layer) -> Array:
        """[36] uint8: OUTSIDE the picture or the image, HIDDEN by body or occluder, or SEEN."""
        placement, keypoints = scene.placement, scene.actor.keypoints
        xy = placement.project(keypoints)
        uv = picture.uv(xy)
        depth = keypoints[:, 2] + placement.translation[2]
        seen = seen_keypoints(uv, depth, layer.zbuffer) & ~_covered(scene.occluders, xy)
        if scene.actor.things:
            seen &= ~hidden_by_things(uv, depth, layer)
        inside = placement.inside(xy) & (np.abs(uv) <= 0.5).all(1)
        return np.where(inside, np.where(seen, SEEN, HIDDEN), OUTSIDE).astype(np.uint8)

    def _label(
        self, scene: _Scene, picture: Picture, image: Array, mask: Array, visible: Array,
        background: int, flags: int,
    ) -> Sample:  # fmt: skip
        actor, placement = scene.actor, scene.placement
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / self.size - 0.5
        return Sample(
            images=image,
            mask=np.packbits(mask, axis=1),
            surface=self._canvas.surface(actor.person, mask, float(placement.translation[2])),
            keypoints_uv=picture.uv(placement.project(actor.keypoints)),
            visible=visible,
            keypoints_xyz=actor.keypoints,
            root_xyz=placement.translation,
            focal=placement.focal / picture.side,
            principal_uv=-picture.centre / picture.side,
            rotmats=actor.rotmats,
            twist=twist_from_rotations(actor.rotmats[None], actor.rest)[0],
            betas=actor.betas,
            box_uv=box,
            kind=actor.pose.kind,
            background=background,
            flags=flags,
            things=sum(1 << kind for kind in set(actor.things)),
        )


def _paste(layer: Layer, rgb: Array) -> None:
    rgb *= 1 - layer.alpha[..., None]
    rgb += layer.rgb


def _covered(occluders: list[Occluder], xy: Array) -> Array:
    """[N] bool: image coordinates [N, 2] under any occluder."""
    covered = np.zeros(len(xy), bool)
    for occluder in occluders:
        covered |= occluder.covers(xy)
    return covered


def _lacks_seat(actor: Actor) -> bool:
    """Whether somebody sits without a chair, knees nearer than the pelvis: scenery gives a seat."""
    if THING_NAMES.index("chair") in actor.things:
        return False
    knees = actor.keypoints[[4, 5], 2].mean()
    return FAMILY_NAMES[actor.pose.kind] == "sit" and bool(knees < -0.1)


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
