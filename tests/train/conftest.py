"""A handful of labelled people, enough to run the training code for real."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from glnet_rt.body_model import BodyModel
from glnet_rt.kinematics import twist_from_rotations
from glnet_rt.rotation import rotvec_to_rotmat
from train.data.mixture import Part, read_mixture
from train.synthetic import shards
from train.synthetic.background import BACKGROUND_NAMES
from train.synthetic.generate import FLAG_NAMES
from train.synthetic.poses import FAMILY_NAMES
from train.synthetic.things import THING_NAMES

BODY = Path(__file__).resolve().parents[2] / "glnet_rt/assets/body.npz"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """OpenMP's threads wait for each other by spinning: with a busy neighbour they collapse."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def body() -> BodyModel:
    return BodyModel.load(BODY)


def write_people(folder: Path, body: BodyModel, count: int, seed: int) -> None:
    """One shard: true bodies and projections, pictures of coloured dots where keypoints are."""
    rng = np.random.default_rng(seed)
    size, focal = 96, 2.5
    betas = rng.normal(size=(count, 10)).astype(np.float32)
    rotvec = rng.normal(size=(count, 24, 3)) * 0.25
    rotvec[:, 0] = [np.pi, 0, 0]
    rotmats = rotvec_to_rotmat(rotvec).astype(np.float32)
    posed = body(betas, rotmats)
    xyz = body.keypoints(posed) - posed.joints[:, :1]
    uv = focal * xyz[..., :2] / (xyz[..., 2:] + 6.0)
    images = rng.integers(0, 40, (count, size, size, 3), np.uint8)
    for image, points in zip(images, uv, strict=True):
        cells = ((points + 0.5) * size).astype(int).clip(1, size - 2)
        for k, (x, y) in enumerate(cells):
            image[y - 1 : y + 2, x - 1 : x + 2] = (60 + 5 * k, 255 - 6 * k, (37 * k) % 256)
    twist = twist_from_rotations(rotmats, body.rest_skeleton(betas))
    arrays = {
        "images": images,
        "surface": rng.integers(-128, 100, (count, size // 4, size // 4, 4), np.int8),
        "keypoints_uv": uv.astype(np.float32),
        "visible": np.full((count, 36), 2, np.uint8),
        "keypoints_xyz": xyz.astype(np.float32),
        "rotmats": rotmats,
        "twist": twist.astype(np.float32),
        "betas": betas,
        "kind": rng.choice([FAMILY_NAMES.index(n) for n in ("stand", "lunge")], count),
        "background": rng.choice([BACKGROUND_NAMES.index(n) for n in ("photo", "waves")], count),
        "flags": rng.integers(0, 2, count) << FLAG_NAMES.index("held_out_pattern"),
        "things": 1 << rng.choice([THING_NAMES.index(n) for n in ("ball", "guitar")], count),
    }
    blank = {n: np.zeros((count, *shape)) for n, (shape, _) in shards.fields(size).items()}
    rows = [{n: values[i] for n, values in (blank | arrays).items()} for i in range(count)]
    path, partial = folder / "shard-00000.tar", folder / "partial.tar"
    shards.create(partial, count, size)
    shards.write(partial, 0, 0, rows, size)
    shards.finish(
        partial,
        path,
        {"size": size, "count": count, "body_sha256": body.sha256, "split": folder.name},
    )


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory, body: BodyModel) -> Path:
    """Folder with `train` and `heldout` shards."""
    folder = tmp_path_factory.mktemp("people")
    write_people(folder / "train", body, 40, 0)
    write_people(folder / "heldout", body, 12, 1)
    return folder


@pytest.fixture
def part_of(body: BodyModel) -> Callable[..., Part]:
    """The one part of a mixture's file that names one set beside it."""

    def read(folder: Path, **entry: str) -> Part:
        file = folder / "mixture.json"
        file.write_text(json.dumps({"epoch": 8, "sets": [{"share": 1.0, "path": ".", **entry}]}))
        (part,) = read_mixture(file, body, 1.25, 0).parts
        return part

    return read
