"""A data set on disk: folders `shard-00000` of memory-mappable `.npy` files and a `meta.json`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import ArtifactError
from glnet_rt.skeleton import KEYPOINTS, NUM_JOINTS, NUM_KEYPOINTS, NUM_TWISTS
from train.synthetic.actors import NUM_BETAS
from train.synthetic.background import BACKGROUND_NAMES
from train.synthetic.generate import FLAG_NAMES
from train.synthetic.poses import FAMILY_NAMES

FORMAT_VERSION = 2  # of the files
GENERATOR_VERSION = 6  # of the pictures: raise it when the same seed gives other ones
META = "meta.json"


def fields(size: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Name -> (shape of one sample, dtype) for pictures of side `size`."""
    return {
        "images": ((size, size, 3), np.uint8),
        "mask": ((size, size // 8), np.uint8),
        "surface": ((size // 4, size // 4, 4), np.int8),
        "keypoints_uv": ((NUM_KEYPOINTS, 2), np.float32),
        "visible": ((NUM_KEYPOINTS,), np.uint8),
        "keypoints_xyz": ((NUM_KEYPOINTS, 3), np.float32),
        "root_xyz": ((3,), np.float32),
        "focal": ((), np.float32),
        "principal_uv": ((2,), np.float32),
        "rotmats": ((NUM_JOINTS, 3, 3), np.float32),
        "twist": ((NUM_TWISTS, 2), np.float32),
        "betas": ((NUM_BETAS,), np.float32),
        "box_uv": ((4,), np.float32),
        "kind": ((), np.uint8),
        "background": ((), np.uint8),
        "flags": ((), np.uint8),
    }


@dataclass(frozen=True, eq=False)
class Shard:
    """A finished shard: `meta` and one memory-mapped array [N, ...] per name of `fields`."""

    folder: Path
    meta: Mapping[str, Any]
    arrays: Mapping[str, Array]

    def __len__(self) -> int:
        return int(self.meta["count"])


def create(folder: Path, count: int, size: int) -> None:
    """Make the folder and its arrays, filled with zeros; without `meta.json` it is unfinished."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, (shape, dtype) in fields(size).items():
        np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.dtype(dtype), shape=(count, *shape)
        ).flush()


def open_arrays(folder: Path, size: int, mode: str = "r+") -> dict[str, Array]:
    """The arrays of a shard, finished or not."""
    return {name: np.load(folder / f"{name}.npy", mmap_mode=mode) for name in fields(size)}


def finish(partial: Path, folder: Path, meta: Mapping[str, Any]) -> None:
    """Give a complete shard its `meta.json` and its place; who has an older one open keeps it."""
    names = {
        "format_version": FORMAT_VERSION,
        "keypoints": KEYPOINTS,
        "kinds": FAMILY_NAMES,
        "backgrounds": BACKGROUND_NAMES,
        "flags": FLAG_NAMES,
    }
    (partial / META).write_text(json.dumps({**meta, **names}, indent=1) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


def read_meta(folder: Path) -> dict[str, Any] | None:
    """`meta.json` of a finished shard, or None where there is none."""
    path = folder / META
    if not path.is_file():
        return None
    meta: dict[str, Any] = json.loads(path.read_text())
    return meta


def open_shard(folder: Path) -> Shard:
    """Open a finished shard read-only.

    Raises:
        ArtifactError: unfinished, of another format, or with arrays that do not match its meta.
    """
    meta = read_meta(folder)
    if meta is None:
        raise ArtifactError(
            f"{folder.name} is no finished shard", expected=META,
            fix="let python -m train.synthetic end, or start it again with the same --out",
        )  # fmt: skip
    if meta.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(
            f"{folder.name} has another format", got=meta.get("format_version"),
            expected=FORMAT_VERSION, fix="render the set again with python -m train.synthetic",
        )  # fmt: skip
    arrays = open_arrays(folder, int(meta["size"]), "r")
    for name, (shape, dtype) in fields(int(meta["size"])).items():
        expected = (int(meta["count"]), *shape)
        if arrays[name].shape != expected or arrays[name].dtype != dtype:
            raise ArtifactError(
                f"{name}.npy of {folder.name} does not match its meta.json",
                got=(arrays[name].shape, str(arrays[name].dtype)),
                expected=(expected, np.dtype(dtype).name),
                fix="render the shard again",
            )
    return Shard(folder, meta, arrays)


def finished_shards(folder: Path) -> list[Path]:
    """The finished shards in a set's folder, in order."""
    return sorted(path.parent for path in folder.glob(f"shard-*/{META}"))
