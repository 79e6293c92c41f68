"""A narrow network, random but with another answer for every crop: quick to export and to run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from export.random_network import random_network
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array
from train.model.config import preset
from train.model.glnet import GLNet
from train.model.hrnet import HRNET_PRESETS

BODY = Path(__file__).resolve().parents[1] / "glnet_rt/assets/body.npz"
SIZE = 64
# Of every layer something, for what does not depend on how much.
NARROW = {
    "backbone": dataclasses.replace(HRNET_PRESETS["tiny"], width=8, modules=(1, 1, 1), blocks=1),
    "branch_channels": 32,
    "fused_channels": 32,
    "lifting_width": 32,
    "settle_width": 32,
}


def network(body: BodyModel, **fields: object) -> GLNet:
    """A small network whose heads answer something else for every crop."""
    representation = fields.pop("representation", "decomposed")
    config = preset(
        "tiny",
        input_size=SIZE,
        representation=representation,
        body_id=body.body_id,
        body_sha256=body.sha256,
    )
    return random_network(dataclasses.replace(config, **{**NARROW, **fields}), seed=5)


def noise_crops(count: int, seed: int = 0) -> Array:
    """[count, S, S, 3] uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
