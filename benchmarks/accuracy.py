"""`python -m benchmarks.accuracy`: errors of shipped weights on the held-out synthetic people.

The held-out pictures are a function of a seed that training never uses, so they are rendered when
they are not there. Figures on synthetic people say nothing about 3DPW or Human3.6M.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

from benchmarks._record import write
from glnet_rt.body_model import BodyModel
from train.__main__ import as_json, table
from train.checkpoint import load_weights
from train.data.shards import SyntheticShards
from train.evaluate import evaluate
from train.synthetic.dataset import SetSettings, render_set

PEOPLE = 2500
PICTURE_PX = 160
SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("weights/tiny.safetensors"))
    parser.add_argument("--heldout", type=Path, default=Path("data/synth/heldout"))
    parser.add_argument("--body", type=Path, default=Path("glnet_rt/assets/body.npz"))
    parser.add_argument("--curve", type=Path, default=Path("weights/tiny-curve.csv"))
    arguments = parser.parse_args()
    model, info = load_weights(arguments.weights)
    body = BodyModel.load(arguments.body)
    if not list(arguments.heldout.glob("shard-*/meta.json")):
        settings = SetSettings(arguments.body, "heldout", SEED, PICTURE_PX)
        workers = os.cpu_count() or 1
        render_set(arguments.heldout, settings, PEOPLE, workers, PEOPLE)
    people = SyntheticShards(arguments.heldout, body.sha256, model.config.spec.box_scale)
    report = evaluate(model, people, body, range(len(people)))
    values = as_json(report, people, info)
    with arguments.curve.open() as file:
        rows = csv.DictReader(file)
        values["curve"] = [{k: float(v) for k, v in row.items()} for row in rows]
    path = write("accuracy-synthetic", values)
    print(table(report))
    print(f"wrote {path.relative_to(path.parents[2])}")


if __name__ == "__main__":
    main()
