"""Render a set of samples with several processes, whose number changes nothing in the files."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from glnet_rt.body_model import BodyModel
from train.synthetic import shards
from train.synthetic.generate import Generator

_CHUNK = 100  # samples a worker renders before it reports
_log = logging.getLogger(__name__)
_generator: Generator  # one per worker process


@dataclass(frozen=True)
class SetSettings:
    """What decides the content of a set: the same settings give the same bytes.

    Attributes:
        body: path of the body file.
        split, seed, size: see `Generator`.
    """

    body: Path
    split: str = "train"
    seed: int = 1
    size: int = 160

    def generator(self) -> Generator:
        """A generator of this set."""
        return Generator(BodyModel.load(self.body), self.split, self.seed, self.size)


def render_set(
    out: Path, settings: SetSettings, count: int, workers: int = 1, shard_size: int = 10_000
) -> None:
    """Render samples 0..count-1 into shards below `out`; finished shards of the set are kept."""
    generator = settings.generator()
    body, photographs = generator.body, len(generator.photographs)
    if not photographs:
        _log.warning("scikit-image is not installed: backgrounds will hold no photographs")
    missing: dict[int, dict[str, Any]] = {}
    for number, start in enumerate(range(0, count, shard_size)):
        meta = {
            "seed": settings.seed, "split": settings.split, "start": start,
            "count": min(shard_size, count - start),
            "size": settings.size, "body_id": body.body_id, "body_sha256": body.sha256,
            "photographs": photographs,
            "generator_version": shards.GENERATOR_VERSION,
            "format_version": shards.FORMAT_VERSION,
        }  # fmt: skip
        known = shards.read_meta(_shard(out, number))
        if known is None or any(known.get(key) != meta[key] for key in meta):
            missing[number] = meta
    if not missing:
        return
    context = multiprocessing.get_context("spawn")
    initial = count - sum(meta["count"] for meta in missing.values())
    with (
        context.Pool(workers, _start_worker, (settings,)) as pool,
        tqdm(total=count, initial=initial, unit="people", smoothing=0.05) as progress,
    ):
        for number, meta in missing.items():
            partial, rows = out / f"partial-{number:05d}.tar", meta["count"]
            shards.create(partial, rows, settings.size)
            for done in pool.imap_unordered(_render_chunk, _chunks(partial, meta["start"], rows)):
                progress.update(done)
            shards.finish(partial, _shard(out, number), meta)


def _shard(out: Path, number: int) -> Path:
    return out / f"shard-{number:05d}.tar"


def _chunks(path: Path, start: int, count: int) -> Iterator[tuple[Path, int, int, int]]:
    """(tar file, first row, rows, index of the first row's sample) of each piece of work."""
    for row in range(0, count, _CHUNK):
        yield path, row, min(_CHUNK, count - row), start + row


def _start_worker(settings: SetSettings) -> None:
    global _generator
    cv2.setNumThreads(1)
    _generator = settings.generator()


def _render_chunk(job: tuple[Path, int, int, int]) -> int:
    """Render some rows straight into the shard's file; returns how many."""
    path, row, count, number = job
    people = (vars(_generator.sample(number + i)) for i in range(count))
    shards.write(path, row, number, people, _generator.size)
    return count
