"""`python -m export WEIGHTS --out NAME.glnet`: weights to one artifact, in every precision.

Each precision is run as the run time will run it, on people that nobody has seen, and held against
torch in float32; where one is further off than `export.parity.GATES` allows, nothing is written and
the exit code is 3. docs/export.md tells how each is made and judged.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import onnx

from export.build import CALIBRATED, Source, build, write
from export.crops import read_crops, rendered_people
from export.graph import build_graph
from export.parity import markdown
from export.random_network import random_preset
from export.sensitivity import sensitivity, table
from glnet_rt.artifact import PRECISIONS
from glnet_rt.body_model import BodyModel
from glnet_rt.cli.common import Exit, exit_code
from glnet_rt.decode import check_same_body
from glnet_rt.errors import ContractError, GlnetError
from train.checkpoint import load_weights
from train.model.config import PRESETS

DEFAULT_PRECISIONS = "fp32,fp16,int8"
RENDER = "; default: synthetic people, rendered now"


def main() -> int:
    arguments = parse()
    try:
        return export(arguments)
    except GlnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(exit_code(error))


def export(arguments: argparse.Namespace) -> int:
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    source = read_source(arguments)
    source.check(arguments.precisions)
    manifest = source.manifest(arguments.name or arguments.out.stem, arguments.licence)
    graph = build_graph(source.model)
    if arguments.sensitivity:
        write_sensitivity(arguments.sensitivity, source, graph)
    files, report = build(source, graph, arguments.precisions, manifest)
    text = markdown(report)
    print(text)
    if arguments.report:
        arguments.report.write_text(text)
    if report["failures"]:
        failures = "; ".join(report["failures"])
        print(f"parity gate failed: {failures}; nothing written", file=sys.stderr)
        return int(Exit.GATE)
    path = write(arguments.out, manifest, files, report, arguments.precisions)
    print(f"wrote {path}, {path.stat().st_size:,} bytes")
    return int(Exit.OK)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    add_source_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="NAME.glnet")
    parser.add_argument("--name", help="of the model; default: the file's name")
    parser.add_argument("--licence", default="Apache-2.0", help="of the weights")
    parser.add_argument("--report", type=Path, help="write the parity table to this .md as well")
    parser.add_argument(
        "--sensitivity", type=Path, help="write to this .md what INT8 in each block alone does"
    )
    return parser.parse_args()


def add_source_options(parser: argparse.ArgumentParser, weights: Path | None = None) -> None:
    """What says which network is exported, in which precisions, and judged on what.

    Args:
        weights: taken where neither weights nor a random network are named; None demands one.
    """
    network = parser.add_mutually_exclusive_group(required=weights is None)
    network.add_argument(
        "weights", nargs="?", type=Path, default=weights, help=".safetensors of `train fit`"
    )
    network.add_argument("--random", choices=PRESETS, help="a network that has learned nothing")
    parser.add_argument("--seed", type=int, default=0, help="of --random")
    parser.add_argument("--precisions", type=precisions, default=precisions(DEFAULT_PRECISIONS))
    parser.add_argument("--body", type=Path, default=Path("glnet_rt/assets/body.npz"))
    parser.add_argument(
        "--max-mb", type=float, default=10.0, help="size of an artifact of `packed` alone"
    )
    crops = "%s crops: a folder of synthetic shards%s, or a .npy [N, S, S, 3] uint8 BGR"
    parser.add_argument(
        "--probe-data",
        type=Path,
        help=crops % ("held-out", " (INT8 is judged by their labels), of pictures") + RENDER,
    )
    parser.add_argument("--judged", type=int, default=512, help="how many of them")
    parser.add_argument(
        "--calibration-data",
        type=Path,
        help=crops % ("training", ", of pictures") + RENDER,
    )
    parser.add_argument("--calibration", type=int, default=64, help="how many of them")


def precisions(text: str) -> tuple[str, ...]:
    """`fp32,int8` -> its names, each once."""
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in PRECISIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose of {', '.join(PRECISIONS)}")
    return names


def read_source(arguments: argparse.Namespace) -> Source:
    """Network, body and crops.

    Raises:
        ArtifactError: no weights, or crops of another body. ContractError: another body.
        SourceError: no crops there.
    """
    body = BodyModel.load(arguments.body)
    if arguments.random:
        model = random_preset(arguments.random, body, arguments.seed)
        told = f"none: random weights, seed {arguments.seed}"
    else:
        model, info = load_weights(arguments.weights)
        told = describe(info)
    spec = model.config.spec
    check_same_body(body, spec)
    calibration = None
    if any(p in CALIBRATED for p in arguments.precisions):
        people = arguments.calibration_data or rendered_people(
            "train", arguments.calibration, arguments.body
        )
        calibration = read_crops(people, body, spec, arguments.calibration)
    people = arguments.probe_data or rendered_people("heldout", arguments.judged, arguments.body)
    return Source(
        model=model,
        learned=not arguments.random,
        training_data=told,
        body_bytes=arguments.body.read_bytes(),
        body=body,
        judged=read_crops(people, body, spec, arguments.judged),
        calibration=calibration,
        packed_bytes=int(arguments.max_mb * 1e6),
    )


def describe(info: dict[str, Any]) -> str:
    """One sentence on what the weights have seen."""
    data = info.get("data", "unknown data")
    return f"{data}; {info.get('images', '?')} crops of {info.get('people', '?')} people"


def write_sensitivity(path: Path, source: Source, graph: onnx.ModelProto) -> None:
    """The Markdown of `export.sensitivity`.

    Raises:
        ContractError: no precision asks for calibration crops.
    """
    if source.calibration is None:
        raise ContractError(
            "there are no crops to quantise blocks on",
            got="precisions that need no calibration",
            expected=f"one of {', '.join(CALIBRATED)}",
            fix="leave --sensitivity out, or add int8 to --precisions",
        )
    spec = source.model.config.spec
    images = source.calibration.images(spec)
    path.write_text(table(sensitivity(graph, source.body, spec, images), len(images)))


if __name__ == "__main__":
    sys.exit(main())
