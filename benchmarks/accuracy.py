"""`python -m benchmarks.accuracy`: weights under every protocol whose data is there.

Synthetic held-out people are a function of a seed that training never uses, so they are rendered
when they are not there; figures on them say nothing about real photographs. COCO's keypoints and
3D sets are read from where they are said to be.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch

from benchmarks._accuracy_table import markdown
from benchmarks._coco_sheet import write_sheet
from benchmarks._record import RESULTS, ROOT, write
from glnet_rt.body_model import BodyModel
from glnet_rt.errors import GlnetError
from train.__main__ import as_json
from train.checkpoint import load_weights
from train.data.shards import SyntheticShards
from train.evaluate import evaluate
from train.evaluate_bodies import evaluate_bodies, read_sets
from train.evaluate_coco import CocoSplit, evaluate_coco, read_splits
from train.model.glnet import GLNet
from train.synthetic.dataset import SetSettings, render_set
from train.synthetic.shards import finished_shards
from train.tables import read_rows

PEOPLE = 2500
PICTURE_PX = 160
SEED = 1
DEVELOPERS_COCO = ROOT.parent / "shared/data/real/coco"


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    try:
        values = evaluate_all(arguments)
    except GlnetError as error:
        raise SystemExit(str(error)) from error
    path = write("accuracy", values, arguments.results)
    table = path.with_suffix(".md")
    table.write_text(markdown(values))
    print(table.read_text())
    print(f"wrote {path} and {table}")


def evaluate_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures under every protocol whose data is there; what data there is, is read first."""
    model, info = load_weights(arguments.weights)
    model.to(arguments.device)
    body, sets = BodyModel.load(arguments.body), []
    if arguments.data:
        body, sets = read_sets(arguments.data, arguments.body)
    splits, skipped = coco_splits(arguments)
    values: dict[str, Any] = {"weights": {"file": arguments.weights.name, **info}}
    if arguments.synthetic:
        values["synthetic"] = synthetic(arguments, model, body)
    else:
        skipped.append("synthetic people: --no-synthetic")
    if splits:
        values["coco"] = evaluate_coco(model, body, splits)
    if arguments.sheet:
        write_sheet(arguments.sheet, splits)
    if sets:
        values["sets"] = evaluate_bodies(model, body, sets)
    else:
        skipped.append("3D sets: none named; describe them in a file for --data (docs/data.md)")
    values["skipped"] = skipped
    curve = arguments.weights.with_name(f"{arguments.weights.stem}-curve.csv")
    if curve.exists():
        values["curve"] = read_rows(curve)
    return values


def coco_splits(arguments: argparse.Namespace) -> tuple[list[CocoSplit], list[str]]:
    """COCO's splits, and notes on what is left out; only what nobody asked for may be absent."""
    folder = arguments.coco or DEVELOPERS_COCO
    if arguments.coco or arguments.sheet or folder.is_dir():
        splits, left_out = read_splits(folder, arguments.coco_splits)
        return splits, [f"COCO {note}" for note in left_out]
    return [], ["COCO keypoints: not there; name their folder with --coco"]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("weights/tiny.safetensors"))
    parser.add_argument("--body", type=Path, default=Path("glnet_rt/assets/body.npz"))
    parser.add_argument("--heldout", type=Path, default=Path("data/synth/heldout"))
    parser.add_argument("--count", type=int, help="held-out people to look at; default: all")
    parser.add_argument("--no-synthetic", dest="synthetic", action="store_false")
    parser.add_argument("--coco", type=Path, help="holds annotations/ and a folder per split")
    parser.add_argument("--coco-splits", nargs="+", default=(), help="default: all that are there")
    parser.add_argument(
        "--sheet",
        type=Path,
        help="draw COCO's people, as the shipped model sees "
        "them, to this .jpg; the pictures' licences hold for it",
    )
    parser.add_argument("--data", type=Path, help="JSON that names 3D sets; see docs/data.md")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    parser.add_argument("--device", default="cpu", help="of the network: cpu, cuda")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    return parser.parse_args()


def synthetic(arguments: argparse.Namespace, model: GLNet, body: BodyModel) -> dict[str, Any]:
    """Figures on held-out people, which are rendered first where they are not there."""
    if not finished_shards(arguments.heldout):
        settings = SetSettings(arguments.body, "heldout", SEED, PICTURE_PX)
        workers = os.cpu_count() or 1
        render_set(arguments.heldout, settings, PEOPLE, workers, PEOPLE)
    people = SyntheticShards(arguments.heldout, body.sha256, model.config.spec.box_scale)
    count = min(arguments.count or len(people), len(people))
    report = evaluate(model, people, body, range(count))
    return as_json(report, people)


if __name__ == "__main__":
    main()
