"""`python -m train.synthetic`: render a data set, a contact sheet or the demo clip."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from glnet_rt.body_model import BodyModel
from glnet_rt.errors import GlnetError
from train.synthetic.dataset import SetSettings, render_set
from train.synthetic.generate import SPLITS

BODY_PATH = Path(__file__).parents[2] / "glnet_rt" / "assets" / "body.npz"
_log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it asks for. Returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = SetSettings(options.body, options.split, options.seed, options.size)
    try:
        if options.clip:
            from train.synthetic.clip import write_clip

            write_clip(options.clip, BodyModel.load(options.body))
        elif options.sheet:
            from train.synthetic.sheet import write_sheet

            write_sheet(options.sheet, settings.generator(), options.count)
        else:
            render_set(options.out, settings, options.count, options.workers, options.shard_size)
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


if __name__ == "__main__":
    raise SystemExit(main())
