"""`python -m train.synthetic`: render a data set, a contact sheet or the demo clip."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
from tqdm import tqdm

from glnet_rt.body_model import BodyModel
from glnet_rt.errors import GlnetError
from train.synthetic import shards
from train.synthetic.generate import SPLITS, Generator

BODY_PATH = Path(__file__).parents[2] / "glnet_rt" / "assets" / "body.npz"
_CHUNK = 100  # samples a worker renders before it reports
_log = logging.getLogger(__name__)
_generator: Generator  # one per worker process


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it asks for. Returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if options.clip:
            from train.synthetic.clip import write_clip

            write_clip(options.clip, BodyModel.load(options.body))
        elif options.sheet:
            from train.synthetic.sheet import write_sheet

            generator = Generator(
                BodyModel.load(options.body), options.split, options.seed, options.size
            )
            write_sheet(options.sheet, generator, options.count)
        else:
            render_set(options)
    except GlnetError as error:
        _log.error("%s", error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.synthetic", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="DIR", help="render shards into DIR")
    what.add_argument("--sheet", type=Path, metavar="FILE.png", help="write a contact sheet")
    what.add_argument("--clip", type=Path, metavar="FILE.mp4", help="write the demo clip")
    parser.add_argument("--count", type=int, default=64, help="people in all (default 64)")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=160, help="side of a picture, px")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shard-size", type=int, default=10_000)
    parser.add_argument("--body", type=Path, default=BODY_PATH)
    return parser


def render_set(options: argparse.Namespace) -> None:
    """Render samples 0..count-1 of a split; finished shards of the same set are kept."""
    body = BodyModel.load(options.body)
    photographs = len(Generator(body, options.split, options.seed, options.size).photographs)
    if not photographs:
        _log.warning("scikit-image is not installed: backgrounds will hold no photographs")
    context = multiprocessing.get_context("spawn")
    settings = (options.body, options.split, options.seed, options.size)
    with (
        context.Pool(options.workers, _start_worker, settings) as pool,
        tqdm(total=options.count, unit="people", smoothing=0.05) as progress,
    ):
        for number, start in enumerate(range(0, options.count, options.shard_size)):
            count = min(options.shard_size, options.count - start)
            folder = options.out / f"shard-{number:05d}"
            meta = {
                "seed": options.seed, "split": options.split, "start": start, "count": count,
                "size": options.size, "body_id": body.body_id, "body_sha256": body.sha256,
                "photographs": photographs,
            }  # fmt: skip
            known = shards.read_meta(folder)
            if known is not None and all(known.get(key) == meta[key] for key in meta):
                progress.update(count)
                continue
            shards.create(folder, count, options.size)
            for done in pool.imap_unordered(_render_chunk, _chunks(folder, start, count)):
                progress.update(done)
            shards.finish(folder, meta)


def _chunks(folder: Path, start: int, count: int) -> Iterator[tuple[Path, int, int, int]]:
    """(folder, first row, rows, index of the first row's sample) of each piece of work."""
    for row in range(0, count, _CHUNK):
        yield folder, row, min(_CHUNK, count - row), start + row


def _start_worker(body: Path, split: str, seed: int, size: int) -> None:
    global _generator
    cv2.setNumThreads(1)
    _generator = Generator(BodyModel.load(body), split, seed, size)


def _render_chunk(job: tuple[Path, int, int, int]) -> int:
    """Render some rows straight into the shard's files; returns how many."""
    folder, row, count, index = job
    arrays = shards.open_arrays(folder, _generator.size)
    for i in range(count):
        sample = _generator.sample(index + i)
        for name, array in arrays.items():
            array[row + i] = getattr(sample, name)
    for array in arrays.values():
        array.flush()
    return count


if __name__ == "__main__":
    raise SystemExit(main())
