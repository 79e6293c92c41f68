"""Which block of the network INT8 harms: each is quantised alone, and the bodies are compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from export.graph import run_graph
from export.int8 import block_of, convolutions, quantised, quantised_by_default
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, NetOutput
from glnet_rt.probe import vertex_errors_mm
from glnet_rt.spec import NetSpec
from train.tables import markdown_table

BATCH = 8


@dataclass(frozen=True)
class Harm:
    """What INT8 in one block alone does to the bodies of N crops.

    Attributes:
        block: its name.
        layers: convolutions in it.
        quantised: whether the `int8` model has it in integers.
        mean_mm, p99_mm: distance of vertices from float32's, pelvis on pelvis.
        pixels_changed: share of crops whose winning pixel is another.
    """

    block: str
    layers: int
    quantised: bool
    mean_mm: float
    p99_mm: float
    pixels_changed: float


def sensitivity(
    proto: onnx.ModelProto, body: BodyModel, spec: NetSpec, images: Array
) -> list[Harm]:
    """Quantise every block alone, the most harmful first.

    Args:
        proto: float32.
        images: [N, 3, S, S] float32, crops that nothing is judged by; scales come from them too.
    """
    reference = NetOutput.from_arrays(spec, run_graph(proto, spec, images, BATCH))
    chosen = set(quantised_by_default(proto, spec.preset))
    blocks: dict[str, list[str]] = {}
    for node, weight in convolutions(proto).items():
        blocks.setdefault(block_of(weight), []).append(node)
    found = []
    for block, nodes in blocks.items():
        alone = quantised(proto, nodes, images, spec)
        output = NetOutput.from_arrays(spec, run_graph(alone, spec, images, BATCH))
        vertices, _ = vertex_errors_mm(body, spec, output, reference)
        found.append(
            Harm(
                block=block,
                layers=len(nodes),
                quantised=chosen.issuperset(nodes),
                mean_mm=float(vertices.mean()),
                p99_mm=float(np.percentile(vertices, 99)),
                pixels_changed=float((output.pixel != reference.pixel).mean()),
            )
        )
    return sorted(found, key=lambda harm: -harm.mean_mm)


def table(found: list[Harm], crops: int) -> str:
    """Markdown."""
    rows = [
        [
            harm.block,
            str(harm.layers),
            f"{harm.mean_mm:.2f}",
            f"{harm.p99_mm:.1f}",
            f"{100 * harm.pixels_changed:.0f} %",
            "INT8" if harm.quantised else "float32",
        ]
        for harm in found
    ]
    columns = ["block, alone in INT8", "convolutions", "vertices mean mm", "p99 mm"]
    columns += ["winning pixel changed", "in `int8`"]
    return f"{crops} calibration crops.\n\n{markdown_table(columns, rows)}\n"
