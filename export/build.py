"""From a network to an artifact with every precision asked for, judged before it is written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

from export.crops import Crops
from export.fp8 import quantised_fp8
from export.graph import OPSET, build_graph, serialised
from export.half import halved
from export.int8 import quantised, quantised_by_default
from export.packing import harm_of_rounding, pack_into, store_in_half
from export.parity import PROBES, Judged, at_the_same_pixels, failures, judge, times
from glnet_rt.artifact import (
    BODY,
    PARITY,
    PRECISIONS,
    PROBE,
    Artifact,
    Manifest,
    model_name,
    write_artifact,
)
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import NetOutput
from glnet_rt.cpu import cpu_name
from glnet_rt.errors import ContractError
from glnet_rt.probe import Probe
from train.model.glnet import GLNet

CALIBRATED = ("int8", "fp8", "packed")
JUDGED_BY_TRUTH = ("int8", "fp8")
RESERVED_BYTES = 1 << 14  # manifest, parity report and the zip's own headers


@dataclass(frozen=True, eq=False)
class Source:
    """What an artifact is made from.

    Attributes:
        model: in evaluation mode.
        learned: False for random weights, which nobody can judge in millimetres.
        training_data: what the weights have seen, for people.
        body_bytes: of `body.npz`, and the body read from it.
        judged, calibration: crops; nothing is judged by those it was calibrated on.
        packed_bytes: size of an artifact that would hold the `packed` model alone.
    """

    model: GLNet
    learned: bool
    training_data: str
    body_bytes: bytes
    body: BodyModel
    judged: Crops
    calibration: Crops | None
    packed_bytes: int

    def manifest(self, name: str, licence: str) -> Manifest:
        """What the artifact will say of itself, but for what it holds."""
        crops = self.calibration
        return Manifest(
            name=name,
            licence=licence,
            training_data=self.training_data,
            spec=self.model.config.spec,
            calibration_sha256="" if crops is None else sha256_of(crops),
        )

    def check(self, precisions: Sequence[str]) -> None:
        """Raise ContractError where a precision could not be judged."""
        wanted = [p for p in precisions if p in JUDGED_BY_TRUTH]
        if wanted and self.learned and self.judged.joints is None:
            raise ContractError(
                f"{' and '.join(wanted)} cannot be judged on crops without labels",
                got="crops alone",
                expected="held-out synthetic people, whose joints are known",
                fix="name a folder of shards with --probe-data (docs/synthetic.md)",
            )


def build_models(
    source: Source, graph: onnx.ModelProto, precisions: Sequence[str], beside_bytes: int
) -> dict[str, onnx.ModelProto]:
    """The graph of every precision, and float32's in any case: it is what the others cost or gain.

    Args:
        graph: in float32.
        beside_bytes: size of what stands beside a `packed` model in its artifact.

    Raises:
        ContractError: `packed` does not fit.
        MissingDependencyError: `fp8` without the package that makes it.
    """
    model, spec = source.model, source.model.config.spec
    models = {"fp32": graph}
    images = None if source.calibration is None else source.calibration.images(spec)
    if "fp16" in precisions:
        models["fp16"] = build_graph(halved(model))
    if "int8" in precisions and images is not None:
        nodes = quantised_by_default(graph, spec.preset)
        models["int8"] = quantised(graph, nodes, images, spec)
    if "fp8" in precisions and images is not None:
        models["fp8"] = quantised_fp8(graph, images, spec)
    if "packed" in precisions and images is not None:
        harm = harm_of_rounding(graph, source.body, spec, images)
        room = source.packed_bytes - RESERVED_BYTES - beside_bytes
        models["packed"] = pack_into(graph, harm, room)
    for name in {"fp16", "int8"} & set(models):
        store_in_half(models[name])
    return models


def build(
    source: Source, graph: onnx.ModelProto, precisions: Sequence[str], manifest: Manifest
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Make every model and judge it as the run time will run it.

    Args:
        graph: the network in float32.
        manifest: of the artifact to be; its precisions are filled in here and by `write`.

    Returns:
        Files of the artifact but for the parity report, and that report; `failures` in it tells
        what broke its gate.

    Raises:
        ContractError, MissingDependencyError: see `build_models`.
    """
    judged = Judged.of(source.model, source.body, source.judged)
    files = {BODY: source.body_bytes, PROBE: probe_bytes(source, judged)}
    models = build_models(source, graph, precisions, sum(map(len, files.values())))
    files |= {model_name(name): serialised(proto) for name, proto in models.items()}
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.glnet"
        write(draft, manifest, files, {}, list(models))
        artifact = Artifact.open(draft)
        rows, tolerances, not_run = judge(artifact, source.body, judged)
        taken = times(artifact, judged.bgr[:1])
    rows += [
        at_the_same_pixels(source.model, source.body, proto, judged, name)
        for name, proto in models.items()
    ]
    report = {
        **versions(),
        "crops": len(judged.images),
        "ground_truth": judged.joints is not None,
        "learned": source.learned,
        "times": taken,
        "tolerances": tolerances,
        "not_run": not_run,
        "failures": failures(rows, precisions, source.learned),
        "rows": rows,
    }
    return files, report


def write(
    path: Path,
    manifest: Manifest,
    files: dict[str, bytes],
    report: dict[str, Any],
    precisions: Sequence[str],
) -> Path:
    """Write the artifact with the models of some precisions alone, in the order of `PRECISIONS`."""
    held = tuple(p for p in PRECISIONS if p in precisions)
    left_out = {model_name(p) for p in PRECISIONS if p not in held}
    kept = {name: content for name, content in files.items() if name not in left_out}
    told = dataclasses.replace(manifest, precisions=held)
    return write_artifact(path, told, {**kept, PARITY: json.dumps(report, indent=1).encode()})


def probe_bytes(source: Source, judged: Judged) -> bytes:
    """The self-test: the first crops, and what the trained network says of them in float32."""
    spec = source.model.config.spec
    answers = {name: value[:PROBES] for name, value in judged.reference.items()}
    output = NetOutput.from_arrays(spec, answers)
    return Probe(source.judged.bgr[:PROBES], output).to_bytes(spec)


def sha256_of(crops: Crops) -> str:
    """Of the crops as bytes."""
    return hashlib.sha256(crops.bgr.tobytes()).hexdigest()


def versions() -> dict[str, Any]:
    return {
        "opset": OPSET,
        "reference": "torch float32",
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "cpu": cpu_name(),
    }
