"""Things that synthetic people wear, hold and ride: closed solids, and what they do to labels."""

from __future__ import annotations

import numpy as np
import pytest

from glnet_rt.body_model import BodyModel
from tests.drawn import SIZE, has_flag, mask_of
from train.synthetic import actors, solids, things
from train.synthetic.__main__ import BODY_PATH
from train.synthetic.generate import HIDDEN, SEEN, Generator, Sample
from train.synthetic.materials import FIRST_THING
from train.synthetic.render import Layer, hidden_by_things


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load(BODY_PATH)


def _closed_solids() -> dict[str, solids.Solid]:
    x, y, _ = np.eye(3)
    return {
        "box": solids.box(x, (0.3, 0.2, 0.1), 0),
        "ball": solids.ball(x, (0.3, 0.2, 0.1), 0),
        "rod": solids.rod(0 * x, y, 0.2, 0, 0.1),
        "ring": solids.ring(x, x, y, 1.0, 0.1, 0),
    }


def test_solids_are_closed_and_face_outwards() -> None:
    """Every edge by position is used once in each direction, and the volume is positive."""
    for name, solid in _closed_solids().items():
        places, same = np.unique(solid.vertices.round(6), axis=0, return_inverse=True)
        faces = same.reshape(-1)[solid.faces]
        edges = [(a, b) for face in faces for a, b in zip(face, np.roll(face, -1), strict=True)]
        assert len(set(edges)) == len(edges), name
        assert {(b, a) for a, b in edges} == set(edges), name
        corners = places[faces].astype(np.float64)
        volume = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum()
        assert volume > 0, name


def _forced(
    body: BodyModel, monkeypatch: pytest.MonkeyPatch, wanted: tuple[str, ...], count: int
) -> list[tuple[Sample, Layer]]:
    """Samples whose people all want the same things, each with the layer it was drawn as."""
    monkeypatch.setattr(actors, "plan_things", lambda rng, split, family: wanted)
    generator = Generator(body, "train", seed=11, size=SIZE)
    drawn: list[tuple[Sample, Layer]] = []
    for index in range(count):
        sample = generator.sample(index)
        buffers = generator._canvas
        layer = Layer(
            buffers._rgb, buffers._alpha.copy(), buffers._own.copy(),
            buffers._buffers.zbuffer.copy(), buffers._buffers.face_id, np.zeros(1),
        )  # fmt: skip
        drawn.append((sample, layer))
    return drawn


def test_a_thing_is_neither_in_the_mask_nor_in_the_surface_map(
    body: BodyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0
    for sample, layer in _forced(body, monkeypatch, ("table", "backpack"), 12):
        assert has_flag(sample, "thing")
        names = {n for k, n in enumerate(things.THING_NAMES) if sample.things >> k & 1}
        assert names == {"table", "backpack"}
        thing_only = (layer.alpha >= 0.75) & (layer.own == 0)
        mask = mask_of(sample)
        assert not (mask & thing_only).any()
        assert not (mask & (layer.own < 0.5)).any()
        assert (sample.surface[thing_only[2::4, 2::4]] == -128).all()
        seen += int(thing_only.sum())
    assert seen > 1000


def test_keypoints_behind_a_thing_are_hidden(
    body: BodyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is seen projects onto a sample that only a thing covers, and nearer than it."""
    hidden = 0
    for sample, layer in _forced(body, monkeypatch, ("table",), 16):
        thing_only = (layer.alpha >= 0.99) & (layer.own == 0)
        cell = np.floor((sample.keypoints_uv + 0.5) * SIZE).astype(int)
        within = ((cell >= 0) & (cell < SIZE)).all(1)
        x, y = np.clip(cell, 0, SIZE - 1).T
        depth = sample.keypoints_xyz[:, 2] + sample.root_xyz[2]
        nearer = layer.zbuffer[2 * y + 1, 2 * x + 1] * depth > 1.02
        behind = within & thing_only[y, x] & nearer
        assert (sample.visible[behind] != SEEN).all()
        hidden += int((behind & (sample.visible == HIDDEN)).sum())
    assert hidden > 10


def test_a_layer_says_which_points_its_things_hide() -> None:
    """Left half: a thing 2 m away; right half: the body, 2 m away."""
    zbuffer = np.full((8, 8), 0.5, np.float32)
    face_id = np.zeros((8, 8), np.int32)
    face_id[:, 4:] = 1
    material = np.array([FIRST_THING, -1], np.int8)
    layer = Layer(zbuffer, zbuffer, zbuffer, zbuffer, face_id, material)
    uv = np.array([[-0.2, 0.0], [-0.2, 0.0], [0.2, 0.0], [-0.7, 0.0]])
    hidden = hidden_by_things(uv, np.array([2.01, 1.99, 9.0, 9.0]), layer)
    assert hidden.tolist() == [True, False, False, False]
