"""Scenes for the person detector: several synthetic people, near and far, in one picture.

People are cut out of rendered shards by their masks, made as small as the scene wants them, and
pasted far to near over scenery of the generator. Scene `index` depends on (seed, split, index)
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import SourceError
from train.synthetic.appearance import sample_lights
from train.synthetic.background import Stage, load_photographs, paint_background
from train.synthetic.effects import develop
from train.synthetic.generate import SPLITS
from train.synthetic.shading import Lens, Shadow
from train.synthetic.shards import Shard, finished_shards, open_shard
from train.synthetic.view import sample_tilt

Rng = np.random.Generator

UPRIGHT = ("stand", "gesture", "walk", "run", "reach", "touch", "swing", "throw", "kick")
LEAST_VISIBLE = 0.35  # of a person; below, neither person nor background
_UPRIGHT_SHARE = 0.7
_LEAST_HEIGHT, _MOST_HEIGHT = 18.0, 1.1  # px, and of the picture
_MOST_PEOPLE = 14
_EMPTY_SHARE = 0.08
_GROUND_SHARE = 0.6  # of scenes whose people stand on one level ground
_GROUP_SHARE = 0.3  # of people who stand close to another


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture and who is in it.

    Attributes:
        image: [R, R, 3] uint8, RGB.
        boxes: [N, 4] float32, what lies in the picture of each person, hidden parts included; edges
            in px.
        visible: [N] float32, seen share of each person's pixels; the rest others hide.
    """

    image: Array
    boxes: Array
    visible: Array


@dataclass(frozen=True, eq=False)
class _Cut:
    """One person without surroundings: rgb [h, w, 3] float32 in [0, 1] and alpha [h, w]."""

    rgb: Array
    alpha: Array


class Scenes:
    """Draws scenes of one split.

    Args:
        folder: of finished shards of the split.
        split: `train` or `heldout`; also decides scenery and photographs.
        seed: of the whole set.
        size: side R of a picture, px.

    Raises:
        SourceError: no shards in the folder, or shards of another split.
    """

    def __init__(self, folder: Path, split: str = "train", seed: int = 1, size: int = 256) -> None:
        self.split, self.seed, self.size = split, seed, size
        self.shards = [open_shard(path) for path in finished_shards(folder)]
        splits = {str(shard.meta["split"]) for shard in self.shards}
        if splits != {split}:
            raise SourceError(
                f"the folder {folder} holds no people of this split",
                got=", ".join(sorted(splits)) or "no finished shard",
                expected=f"shards of the split {split}",
                fix=f"python -m train.synthetic --out {folder} --count 5000 --split {split}",
            )
        self.photographs = load_photographs(split)
        self.upright, self.others = _whole_people(self.shards)

    def scene(self, index: int) -> Scene:
        """Scene `index` of the split."""
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index, 1 << 20])
        rgb = self._scenery(rng)
        places = np.zeros((0, 3)) if rng.random() < _EMPTY_SHARE else _places(rng, self.size)
        owner = np.full(rgb.shape[:2], -1, np.int32)
        boxes, areas = [], []
        for centre_x, foot_y, height in places:
            box, area = self._paste(rng, rgb, owner, len(boxes), centre_x, foot_y, height)
            if box is not None:
                boxes.append(box)
                areas.append(area)
        seen = np.bincount(owner[owner >= 0], minlength=len(boxes))[: len(boxes)]
        image, _ = develop(rng, rgb)
        return Scene(
            image,
            np.array(boxes, np.float32).reshape(-1, 4),
            (seen / np.maximum(areas, 1)).astype(np.float32),
        )

    def _scenery(self, rng: Rng) -> Array:
        """[R, R, 3] float32 sRGB without people."""
        rgb = np.zeros((self.size, self.size, 3), np.float32)
        tilt = sample_tilt(rng)
        lights, _ = sample_lights(rng, tilt[:, 1])
        lens = Lens(float(np.exp(rng.uniform(np.log(0.6), np.log(2.0)))), 0.0, 0.0)
        away = rng.uniform(3.0, 12.0)
        upright = np.linspace(-0.9, 0.8, 64)[:, None] * tilt[:, 1] + np.array([0.0, 0.0, away])
        dark = np.zeros((1, 1), np.float32)
        shadow = Shadow(dark, np.zeros((3, 4), np.float32), 0.0)
        border = np.array([-0.5, -0.5, 0.5, 0.5], np.float32)
        vertices = np.repeat(upright, 7, axis=0).astype(np.float32)
        stage = Stage(lens, border, tilt[:, 1], vertices, lights, shadow, None)
        empty = np.zeros(rgb.shape[:2], np.float32)
        paint_background(rng, self.split, self.photographs, stage, empty, rgb)
        return rgb

    def _cut(self, rng: Rng) -> _Cut:
        """Somebody, mostly upright, trimmed to what is seen of them."""
        pool = self.upright if rng.random() < _UPRIGHT_SHARE else self.others
        number, row = pool[int(rng.integers(len(pool)))]
        arrays = self.shards[number].arrays
        image, mask = arrays["images"][row], np.unpackbits(arrays["mask"][row], axis=-1)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        rgb, alpha = image[window].astype(np.float32) / 255, mask[window].astype(np.float32)
        if rng.random() < 0.5:
            rgb, alpha = rgb[:, ::-1], alpha[:, ::-1]
        return _Cut(rgb * alpha[..., None], np.ascontiguousarray(alpha))

    def _paste(
        self, rng: Rng, rgb: Array, owner: Array, number: int, x: float, foot: float, height: float
    ) -> tuple[Array | None, int]:
        """Put somebody onto rgb and note their pixels in owner; their box in the picture, area."""
        cut = self._cut(rng)
        tall, wide = cut.alpha.shape
        scale = height / tall if tall > 0.9 * wide else height / (1.3 * wide)  # who lies or bends
        size = (max(2, round(wide * scale)), max(2, round(tall * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        person = cv2.resize(cut.rgb, size, interpolation=how)
        alpha = cv2.resize(cut.alpha, size, interpolation=how)
        left, top = round(x - size[0] / 2), round(foot - size[1])
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + size[0], self.size), min(top + size[1], self.size)
        inside = max(x1 - x0, 0) * max(y1 - y0, 0)
        if inside < 0.25 * size[0] * size[1] or min(x1 - x0, y1 - y0) < 6:
            return None, 0
        own = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        there = (slice(y0, y1), slice(x0, x1))
        tone = np.float32(np.exp(rng.normal(0, 0.15)))
        rgb[there] *= 1 - alpha[own][..., None]
        rgb[there] += tone * person[own]
        solid = alpha[own] >= 0.5
        owner[there][solid] = number
        return np.array([x0, y0, x1, y1], np.float32), int(solid.sum())


def _whole_people(shards: list[Shard]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(shard, row) of the people neither cut nor hidden: the upright, and the others."""
    pools: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for number, shard in enumerate(shards):
        names, kinds = list(shard.meta["flags"]), list(shard.meta["kinds"])
        broken = sum(1 << names.index(name) for name in ("truncated", "occluded"))
        whole = np.asarray(shard.arrays["flags"]) & broken == 0
        upright = np.isin(shard.arrays["kind"], [kinds.index(name) for name in UPRIGHT])
        for pool, wanted in zip(pools, (whole & upright, whole & ~upright), strict=True):
            pool.extend((number, int(row)) for row in np.flatnonzero(wanted))
    return pools


def _places(rng: Rng, size: int) -> Array:
    """[N, 3] of (centre x, foot y, height) px, the farthest first."""
    count = int(min(rng.geometric(0.22), _MOST_PEOPLE))
    low, high = np.log(_LEAST_HEIGHT), np.log(_MOST_HEIGHT * size)
    places = np.empty((count, 3))
    places[:, 0] = rng.uniform(-0.02, 1.02, count) * size
    if rng.random() < _GROUND_SHARE:
        horizon = rng.uniform(-0.6, 0.45) * size
        places[:, 1] = rng.uniform(max(0.15 * size, horizon + 10), 1.15 * size, count)
        lowest = np.exp(rng.uniform(np.log(1.6 * _LEAST_HEIGHT), high))  # height at the lower edge
        places[:, 2] = lowest * (places[:, 1] - horizon) / (size - horizon)
        places[:, 2] *= rng.normal(1, 0.06, count)
    else:
        places[:, 2] = np.exp(rng.uniform(low, high, count))
        places[:, 1] = rng.uniform(0.5 * places[:, 2], size + 0.3 * places[:, 2])
    places[:, 2] = np.clip(places[:, 2], _LEAST_HEIGHT, _MOST_HEIGHT * size)
    for i in range(1, count):
        if rng.random() < _GROUP_SHARE:
            places[i] = places[i - 1] * (1, rng.normal(1, 0.01), rng.normal(1, 0.03))
            places[i, 0] += rng.choice((-1, 1)) * rng.uniform(0.15, 0.5) * places[i, 2]
    return places[np.argsort(places[:, 1], kind="stable")]
