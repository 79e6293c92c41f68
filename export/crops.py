"""Crops to calibrate on and to judge by: of labelled synthetic people, pictures, or a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array
from glnet_rt.crop import normalise, sample_square, square_around, whole_image_box
from glnet_rt.errors import ContractError, SourceError
from glnet_rt.spec import NetSpec
from glnet_rt.stream.source import open_source
from train.data.augment import NO_AUGMENTATION, CropTransform, warp
from train.data.shards import SyntheticShards
from train.synthetic.dataset import SetSettings, render_set

RENDERED = Path("data/synth/export")
RENDER_SEED, RENDER_PX = 1000, 160


@dataclass(frozen=True, eq=False)
class Crops:
    """What a network sees of N people, and where their joints are if that is known.

    Attributes:
        bgr: [N, S, S, 3] uint8, BGR, cut as the network is used: no augmentation.
        joints: [N, 24, 3] float32, m, any origin and orientation; or None without labels.
    """

    bgr: Array
    joints: Array | None = None

    def images(self, spec: NetSpec) -> Array:
        """[N, 3, S, S] float32, normalised as the models take it."""
        return normalise(self.bgr, spec)


def read_crops(source: Path, body: BodyModel, spec: NetSpec, count: int) -> Crops:
    """At most `count` crops.

    Args:
        source: a folder of synthetic shards, which alone have labels; a folder of pictures or a
            video, each picture taken as one person; or crops in a `.npy`, [N, S, S, 3] uint8 BGR.

    Raises:
        ContractError: crops of another shape, or none.
        SourceError: nothing there that can be read.
    """
    if source.suffix == ".npy":
        return Crops(read_array(source, spec.input_size)[:count])
    if source.is_dir() and not any(source.glob("shard-*")) and any(source.iterdir()):
        return Crops(cut_pictures(source, spec, count))
    return cut_people(SyntheticShards(source, body.sha256, spec.box_scale), body, spec, count)


def rendered_people(split: str, count: int, body: Path) -> Path:
    """Shards of labelled people nobody has seen elsewhere, rendered where they are not there yet.

    Args:
        split: `heldout` to judge by, `train` to calibrate on.
        body: file of the body to render.
    """
    folder = RENDERED / f"{split}-{count}"
    settings = SetSettings(body, split, RENDER_SEED, RENDER_PX)
    render_set(folder, settings, count, os.cpu_count() or 1, count)
    return folder


def read_array(path: Path, size: int) -> Array:
    """[N, S, S, 3] uint8 of a `.npy`."""
    try:
        crops = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{path} cannot be read", got=str(error), expected="a .npy of crops", fix="check it"
        ) from error
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
        raise ContractError(
            f"{path} holds no crops",
            got=f"{crops.dtype} {list(crops.shape)}",
            expected=f"uint8 [N, {size}, {size}, 3], BGR",
        )
    return crops


def cut_pictures(source: Path, spec: NetSpec, count: int) -> Array:
    """Every picture as the crop of one person who fills it, as a call without boxes does."""
    crops = []
    with open_source(source) as frames:
        for frame in islice(frames, count):
            center_px, side_px = square_around(whole_image_box(frame.image), spec.box_scale)
            crops.append(sample_square(frame.image, center_px, side_px, spec.input_size))
    if not crops:
        raise SourceError(
            f"{source} holds no picture", got="none", expected="pictures", fix="name another folder"
        )
    return np.stack(crops)


def cut_people(people: SyntheticShards, body: BodyModel, spec: NetSpec, count: int) -> Crops:
    """Synthetic people before a background that may be handed on, and their joints."""
    chosen = people.procedural(count)
    rng = np.random.default_rng(0)
    samples = [people[i] for i in chosen]
    rgb = [
        warp(s.image, CropTransform.draw(rng, NO_AUGMENTATION, s.crop_side), spec.input_size)
        for s in samples
    ]
    betas, rotmats = (
        np.stack([values(s) for s in samples]).astype(np.float32)
        for values in (lambda s: s.betas, lambda s: s.rotmats)
    )
    bgr = np.ascontiguousarray(np.stack(rgb)[..., ::-1])
    return Crops(bgr, body(betas, rotmats).joints)
