"""`python -m train fit | evaluate | ablate | detector | data check`: train, and say how good."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch

from glnet_rt.body_model import BodyModel
from glnet_rt.errors import SourceError
from train.ablate import (
    SHARED,
    TABLES,
    AblationSettings,
    markdown,
    results_in,
    rows_of,
    runs_of,
    train_all,
)
from train.checkpoint import load_weights
from train.config import PAPER_RECIPE, SCHEDULES, FitConfig
from train.data.check import check, found_table
from train.data.shards import SyntheticShards
from train.detector.fit import DetectorFit, DetectorTrainer
from train.evaluate import Report, evaluate
from train.matching import MatchingConfig
from train.model.config import CLASS_VARIANTS, as_in_the_paper, preset
from train.tables import markdown_table, read_rows
from train.trainer import Trainer

LOSS_WEIGHTS = (
    "keypoint_weight",
    "depth_weight",
    "posture_weight",
    "heatmap_weight",
    "surface_weight",
    "settled_share",
)
RECIPES = {"paper": PAPER_RECIPE}
BODY = Path("glnet_rt/assets/body.npz")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add_fit(commands.add_parser("fit", help="train a network, or go on where a run stopped"))
    add_evaluate(commands.add_parser("evaluate", help="errors on held-out people"))
    add_ablate(commands.add_parser("ablate", help="the paper's ablations on synthetic people"))
    add_detector(commands.add_parser("detector", help="train the person detector, or go on"))
    add_data(commands.add_parser("data", help="say what data sets are there"))
    arguments = parser.parse_args()
    if arguments.command == "fit" and arguments.recipe:
        commands.choices["fit"].set_defaults(**RECIPES[arguments.recipe])
        arguments = parser.parse_args()
    arguments.run_command(arguments)


def add_fit(parser: argparse.ArgumentParser) -> None:
    defaults = FitConfig()
    parser.set_defaults(run_command=fit)
    add_common(parser)
    parser.add_argument("--out", type=Path, required=True, help="the run; resumed if it exists")
    parser.add_argument(
        "--data", type=Path, default=Path("data/synth/train"),
        help="folder of synthetic shards, or the .json of a mixture of data sets",
    )  # fmt: skip
    parser.add_argument("--recipe", choices=RECIPES, help="other defaults: those of the paper")
    parser.add_argument(
        "--no-auxiliary", dest="auxiliary", action="store_false",
        help="without what only training has: heat maps, surface maps, the global baseline",
    )  # fmt: skip
    parser.add_argument("--preset", choices=("tiny", "w32", "w48"), default="tiny")
    parser.add_argument("--input-size", type=int, help="px; small ones learn the coarse sooner")
    parser.add_argument("--initial", type=Path, help="weights to start from, of any input size")
    parser.add_argument("--backbone", type=Path, help="weights whose features alone to start from")
    parser.add_argument("--representation", choices=("direct", "decomposed"), default="direct")
    parser.add_argument("--class-variant", choices=CLASS_VARIANTS, help="default: the preset's")
    parser.add_argument("--no-local-encoding", action="store_true", help="Table 2 without LEM")
    parser.add_argument("--center-positives", action="store_true", help="Table 2 without DMS")
    parser.add_argument("--positives", type=int, default=20, help="T of dynamic matching")
    for name in LOSS_WEIGHTS:
        value = getattr(defaults.loss, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value)
    parser.add_argument("--schedule", choices=SCHEDULES, default=defaults.schedule)
    parser.add_argument("--muon", action="store_true", help="Muon for hidden kernels")
    parser.add_argument("--compile", action="store_true", help="fuse with torch.compile; needs g++")
    parser.add_argument("--freeze-norms", action="store_true", help="keep batch statistics as is")
    parser.add_argument("--only", nargs="+", default=(), help="train parameters named so alone")
    parser.add_argument("--float32", action="store_true", help="no mixed precision")
    for name in ("images", "batch_size", "learning_rate", "cooldown", "ema", "subgrid", "seed",
                 "evaluate_every", "checkpoint_every", "evaluate_count", "weight_decay", "warmup",
                 "epochs"):  # fmt: skip
        value = getattr(defaults, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run_command=evaluate_weights)
    add_common(parser)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--count", type=int, help="people to look at; default: all")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored crop")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--curve", type=Path, help="metrics.csv of the run, kept in the JSON")


def add_ablate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run_command=ablate)
    add_common(parser)
    parser.add_argument("tables", type=int, nargs="+", choices=TABLES, help="the paper's number")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="resumed if there")
    parser.add_argument("--data", type=Path, default=Path("data/synth/train"))
    parser.add_argument(
        "--backbone", type=Path, default=Path("weights/tiny.safetensors"),
        help="weights whose features all runs start from, as the paper's start from HRNet's",
    )  # fmt: skip
    parser.add_argument("--scratch", action="store_true", help="start from nothing instead")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="runs at once, one thread each")
    defaults = {f.name: f.default for f in dataclasses.fields(AblationSettings)}
    for name in SHARED:
        value, option = defaults[name], f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            parser.add_argument(option, action="store_true", help="train the heads alone")
        else:
            parser.add_argument(option, type=type(value), default=value)


def ablate(arguments: argparse.Namespace) -> None:
    names = {f.name for f in dataclasses.fields(AblationSettings)}
    settings = AblationSettings(**{k: v for k, v in vars(arguments).items() if k in names})
    if arguments.scratch:
        settings = dataclasses.replace(settings, backbone=None)
    runs = runs_of(arguments.tables, arguments.seeds, settings)
    train_all(runs, arguments.workers)
    found = results_in(settings.out)
    for table in arguments.tables:
        print(f"\n{markdown(table, rows_of(table, found))}")


def add_detector(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run_command=fit_detector)
    add_common(parser)
    parser.add_argument("--out", type=Path, required=True, help="the run; resumed if it exists")
    parser.add_argument("--data", type=Path, default=Path("data/synth/train"))
    parser.add_argument("--float32", action="store_true", help="no mixed precision")
    defaults = DetectorFit()
    for name in ("images", "batch_size", "learning_rate", "cooldown", "warmup", "ema", "size",
                 "seed", "evaluate_every", "evaluate_count", "checkpoint_every"):  # fmt: skip
        value = getattr(defaults, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)


def fit_detector(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    picked = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(DetectorFit)
              if hasattr(arguments, f.name)}  # fmt: skip
    config = dataclasses.replace(DetectorFit(bf16=not arguments.float32), **picked)
    trainer = DetectorTrainer(config, arguments.out, arguments.data, arguments.heldout)
    found = trainer.fit()
    if found is not None:
        print(json.dumps(found.figures()))


def add_data(parser: argparse.ArgumentParser) -> None:
    tasks = parser.add_subparsers(dest="task", required=True)
    task = tasks.add_parser("check", help="recognise data sets and count what they label")
    task.set_defaults(run_command=check_data)
    task.add_argument("path", type=Path, help="a folder or an annotation file")
    task.add_argument("--images", type=Path, help="where annotation files' pictures are")


def check_data(arguments: argparse.Namespace) -> None:
    try:
        found = check(arguments.path, arguments.images)
    except SourceError as error:
        raise SystemExit(str(error)) from error
    print(found_table(found))
    if any(f.problem for f in found):
        raise SystemExit(1)


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--heldout", type=Path, default=Path("data/synth/heldout"))
    parser.add_argument("--body", type=Path, default=BODY)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))


def fit(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    body = BodyModel.load(arguments.body)
    config = FitConfig()
    picked = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(config)
              if hasattr(arguments, f.name)}  # fmt: skip
    matching = MatchingConfig(positives=arguments.positives, center=arguments.center_positives)
    weights = {name: getattr(arguments, name) for name in LOSS_WEIGHTS}
    loss = dataclasses.replace(config.loss, matching=matching, **weights)
    config = dataclasses.replace(config, bf16=not arguments.float32, loss=loss, **picked)
    size = {"input_size": arguments.input_size} if arguments.input_size else {}
    network = preset(
        arguments.preset,
        **size,
        representation=arguments.representation,
        body_id=body.body_id,
        body_sha256=body.sha256,
    )
    network = dataclasses.replace(network, local_encoding=not arguments.no_local_encoding)
    if not arguments.auxiliary:
        network = dataclasses.replace(network, heatmaps=False, surface=False, global_baseline=False)
    if arguments.class_variant == "local":
        network = as_in_the_paper(network)
    elif arguments.class_variant:
        network = dataclasses.replace(network, class_variant=arguments.class_variant)
    folders = (arguments.out, arguments.data, arguments.heldout)
    Trainer(config, network, *folders, body, arguments.initial, arguments.backbone).fit()


def evaluate_weights(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    model, info = load_weights(arguments.weights)
    body = BodyModel.load(arguments.body)
    people = SyntheticShards(arguments.heldout, body.sha256, model.config.spec.box_scale)
    count = min(arguments.count or len(people), len(people))
    report = evaluate(model, people, body, range(count), flip=arguments.flip)
    print(table(report))
    if arguments.json:
        values = {"weights": info, "flip_test": arguments.flip, **as_json(report, people)}
        if arguments.curve:
            values["curve"] = read_rows(arguments.curve)
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")


def table(report: Report) -> str:
    """The report as a Markdown table."""
    columns = {"GLNet": report.glnet, "global head only": report.global_only,
               "mean pose": report.mean_pose}  # fmt: skip
    names = list(report.glnet.mean())
    rows = [
        [title, *(f"{means[n]:.3g}" if n in means else "" for n in names)]
        for title, errors in columns.items()
        if errors is not None and (means := errors.mean())
    ]
    return markdown_table([f"{report.count} people", *names], rows)


def as_json(report: Report, people: SyntheticShards) -> dict[str, Any]:
    """Means of every way to predict, and of GLNet per pose family and per hold-out."""
    kinds = people.meta[0].get("kinds", [])
    per_kind = {}
    for kind in sorted(set(report.kind.tolist())):
        name = kinds[kind] if kind < len(kinds) else str(kind)
        per_kind[name] = report.figures(report.kind == kind)
    held_out = {
        name: {"with": report.figures(who), "without": report.figures(~who)}
        for name, who in report.held_out.items()
        if who.any() and not who.all()
    }
    return {
        "people": report.count,
        "protocol": "synthetic held-out; 24 SMPL joints, root pelvis; 2D in % of the box",
        "glnet": report.glnet.mean(),
        "global_only": report.global_only.mean() if report.global_only else None,
        "mean_pose": report.mean_pose.mean(),
        "per_kind": per_kind,
        "held_out": held_out,
    }


if __name__ == "__main__":
    main()
