"""`python -m export.to_onnx WEIGHTS --out NAME.glnet`: weights to one verified artifact.

ONNX Runtime must agree with torch in float32 on people that neither has seen, at every batch size
tried, as closely as `export.parity.GATES` asks of the precision; otherwise nothing is written and
the exit code is 3. `--precision packed` rounds weights to as many bits as they need, at most
`--max-mb` in all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from export.graph import OPSET, build_graph, run_graph, run_torch, serialised
from export.packing import harm_of_rounding, pack_into
from export.parity import GATES, parity
from glnet_rt.artifact import BODY, PARITY, PROBE, Manifest, model_name, write_artifact
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, NetOutput
from glnet_rt.crop import normalise
from glnet_rt.decode import check_same_body
from glnet_rt.errors import ContractError
from glnet_rt.probe import Probe
from glnet_rt.spec import NetSpec
from train.checkpoint import load_weights
from train.data.augment import NO_AUGMENTATION, CropTransform, warp
from train.data.shards import SyntheticShards

EXIT_GATE = 3
PROBES, JUDGED, CALIBRATION = 16, 256, 32
BATCHES = (1, 3, 8)
RESERVED_BYTES = 1 << 14  # manifest, parity report and the zip's own headers


def main() -> int:
    arguments = parse()
    model, info = load_weights(arguments.weights)
    body = BodyModel.load(arguments.body)
    spec = model.config.spec
    check_same_body(body, spec)
    crops = cut_crops(arguments.probe_data, body, spec, JUDGED)
    images = as_images(crops, spec)
    reference = run_torch(model, images)
    proto, precision, calibration_sha256 = build_graph(model), arguments.precision, ""
    rows = check_parity(proto, body, spec, images, reference, "fp32")
    files = {
        BODY: arguments.body.read_bytes(),
        PROBE: probe_bytes(crops, reference, spec),
    }
    if precision == "packed" and not failures(rows):
        calibration = cut_crops(arguments.calibration_data, body, spec, CALIBRATION)
        calibration_sha256 = hashlib.sha256(calibration.tobytes()).hexdigest()
        harm = harm_of_rounding(proto, body, spec, as_images(calibration, spec))
        room = int(arguments.max_mb * 1e6) - RESERVED_BYTES - sum(map(len, files.values()))
        proto = pack_into(proto, harm, room)
        rows += check_parity(proto, body, spec, images, reference, precision)
        files[PROBE] = probe_bytes(crops, run_graph(proto, spec, images[:PROBES]), spec)
    report = {**versions(), "rows": rows}
    print(json.dumps(report, indent=1))
    if failures(rows):
        print(f"parity gate failed: {'; '.join(failures(rows))}; nothing written")
        return EXIT_GATE
    manifest = Manifest(
        name=arguments.name or arguments.out.stem,
        licence=arguments.licence,
        training_data=describe(info),
        spec=spec,
        precisions=(precision,),
        calibration_sha256=calibration_sha256,
    )
    files |= {model_name(precision): serialised(proto), PARITY: json.dumps(report).encode()}
    path = write_artifact(arguments.out, manifest, files)
    print(f"wrote {path}, {path.stat().st_size:,} bytes")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export.to_onnx", description=__doc__)
    parser.add_argument("weights", type=Path, help=".safetensors of `python -m train fit`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", help="of the model; default: the file's name")
    parser.add_argument("--licence", default="Apache-2.0", help="of the weights")
    parser.add_argument("--body", type=Path, default=Path("glnet_rt/assets/body.npz"))
    parser.add_argument("--precision", choices=list(GATES), default="fp32")
    parser.add_argument("--max-mb", type=float, default=10.0, help="size of a packed artifact")
    crops = "shards that %s crops are cut from, or a crops .npy [N, S, S, 3] uint8 BGR"
    parser.add_argument(
        "--probe-data", type=Path, default=Path("data/synth/heldout"), help=crops % "held-out"
    )
    parser.add_argument(
        "--calibration-data",
        type=Path,
        default=Path("data/synth/train"),
        help=crops % "a packed model's calibration",
    )
    return parser.parse_args()


def failures(rows: list[dict[str, Any]]) -> list[str]:
    """What broke its gate."""
    return [
        f"{row['precision']} at batch {row['batch']}: {failure}"
        for row in rows
        for failure in GATES[row["precision"]].failures(row)
    ]


def versions() -> dict[str, Any]:
    return {
        "opset": OPSET,
        "reference": "torch float32",
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def describe(info: dict[str, Any]) -> str:
    """One sentence on what the weights have seen."""
    data = info.get("data", "unknown data")
    return f"{data}; {info.get('images', '?')} crops of {info.get('people', '?')} people"


def cut_crops(source: Path, body: BodyModel, spec: NetSpec, count: int) -> Array:
    """[N, S, S, 3] uint8, BGR, N <= count, cut as the network is used: no augmentation.

    Raises:
        ContractError: a crops file of another shape.
        SourceError: no shards there.
    """
    size = spec.input_size
    if source.suffix == ".npy":
        crops = np.load(source, allow_pickle=False)
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
            raise ContractError(
                f"{source} holds no crops",
                got=f"{crops.dtype} {list(crops.shape)}",
                expected=f"uint8 [N, {size}, {size}, 3], BGR",
            )
        return crops[:count]
    people = SyntheticShards(source, body.sha256, spec.box_scale)
    chosen = people.procedural(count)
    rng = np.random.default_rng(0)
    rgb = [
        warp(p.image, CropTransform.draw(rng, NO_AUGMENTATION, p.crop_side), size)
        for p in (people[i] for i in chosen)
    ]
    return np.ascontiguousarray(np.stack(rgb)[..., ::-1])


def probe_bytes(crops: Array, outputs: dict[str, Array], spec: NetSpec) -> bytes:
    """The self-test: the first crops, and what the model says of them."""
    answers = {name: value[:PROBES] for name, value in outputs.items()}
    return Probe(crops[:PROBES], NetOutput.from_arrays(spec, answers)).to_bytes(spec)


def as_images(crops: Array, spec: NetSpec) -> Array:
    """[N, 3, S, S] float32, normalised as every live crop is."""
    return np.stack([normalise(crop, spec) for crop in crops])


def check_parity(
    proto: onnx.ModelProto,
    body: BodyModel,
    spec: NetSpec,
    images: Array,
    reference: dict[str, Array],
    precision: str,
) -> list[dict[str, Any]]:
    """One row per batch size: ONNX Runtime on a graph, against torch's answers to the images."""
    rows = []
    for batch in BATCHES:
        row = parity(body, spec, run_graph(proto, spec, images, batch), reference)
        rows.append({"precision": precision, "backend": "onnxruntime", "batch": batch, **row})
    return rows


if __name__ == "__main__":
    sys.exit(main())
