"""`python -m export.to_onnx WEIGHTS --out NAME.glnet`: weights to one verified artifact.

Torch and ONNX Runtime must agree below 0.1 mm on every vertex of every probe crop, at every batch
size tried; otherwise nothing is written and the exit code is 3.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from export.graph import OPSET, build_graph, run_graph, run_torch, serialised
from export.parity import GATE_MM, parity
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
from train.model.glnet import GLNet

EXIT_GATE = 3
PROBES = 16
BATCHES = (1, 3, 8)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m export.to_onnx", description=__doc__)
    parser.add_argument("weights", type=Path, help=".safetensors of `python -m train fit`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", help="of the model; default: the file's name")
    parser.add_argument("--licence", default="Apache-2.0", help="of the weights")
    parser.add_argument("--body", type=Path, default=Path("glnet_rt/assets/body.npz"))
    parser.add_argument(
        "--probe-data",
        type=Path,
        default=Path("data/synth/heldout"),
        help="held-out shards the probe crops are cut from, or a crops .npy [N, S, S, 3] uint8 BGR",
    )
    arguments = parser.parse_args()
    model, info = load_weights(arguments.weights)
    body = BodyModel.load(arguments.body)
    spec = model.config.spec
    check_same_body(body, spec)
    crops = probe_crops(arguments.probe_data, body, spec)
    proto = build_graph(model)
    reference, report = check_parity(model, proto, body, crops, spec)
    print(json.dumps(report, indent=1))
    worst = max(row["vertices_max_mm"] for row in report["rows"])
    if worst > GATE_MM:
        print(f"parity gate failed: {worst:.3f} mm > {GATE_MM} mm; nothing written")
        return EXIT_GATE
    manifest = Manifest(
        name=arguments.name or arguments.out.stem,
        licence=arguments.licence,
        training_data=describe(info),
        spec=spec,
        precisions=("fp32",),
    )
    files = {
        model_name("fp32"): serialised(proto),
        BODY: arguments.body.read_bytes(),
        PROBE: Probe(crops, NetOutput.from_arrays(spec, reference)).to_bytes(spec),
        PARITY: json.dumps(report, indent=1).encode(),
    }
    print(f"wrote {write_artifact(arguments.out, manifest, files)}")
    return 0


def describe(info: dict[str, Any]) -> str:
    """One sentence on what the weights have seen."""
    data = info.get("data", "unknown data")
    return f"{data}; {info.get('images', '?')} crops of {info.get('people', '?')} people"


def probe_crops(source: Path, body: BodyModel, spec: NetSpec) -> Array:
    """[16, S, S, 3] uint8, BGR, cut as the network is used: no augmentation.

    Raises:
        ContractError: a crops file of another shape.
        SourceError: no shards there.
    """
    size = spec.input_size
    if source.suffix == ".npy":
        crops = np.load(source, allow_pickle=False)
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
            raise ContractError(
                f"{source} holds no probe crops",
                got=f"{crops.dtype} {list(crops.shape)}",
                expected=f"uint8 [N, {size}, {size}, 3], BGR",
            )
        return crops[:PROBES]
    people = SyntheticShards(source, body.sha256, spec.box_scale)
    chosen = people.procedural(PROBES)
    rng = np.random.default_rng(0)
    rgb = [
        warp(p.image, CropTransform.draw(rng, NO_AUGMENTATION, p.crop_side), size)
        for p in (people[i] for i in chosen)
    ]
    return np.ascontiguousarray(np.stack(rgb)[..., ::-1])


def check_parity(
    model: GLNet, proto: onnx.ModelProto, body: BodyModel, crops: Array, spec: NetSpec
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Torch's outputs on the probe, and the report of ONNX Runtime against them per batch size."""
    images = np.stack([normalise(crop, spec) for crop in crops])
    reference = run_torch(model, images)
    rows = []
    for batch in BATCHES:
        parts = [
            run_graph(proto, spec, images[i : i + batch]) for i in range(0, len(images), batch)
        ]
        outputs = {name: np.concatenate([p[name] for p in parts]) for name in reference}
        row = parity(body, spec, outputs, reference)
        rows.append({"precision": "fp32", "backend": "onnxruntime", "batch": batch, **row})
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    return reference, {"opset": OPSET, "reference": "torch float32", **versions, "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
