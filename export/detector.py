"""`python -m export.detector WEIGHTS OUT.onnx`: the trained person detector as a file that runs.

Kernels are kept as float16 and widened when the session opens, which halves the file. It takes one
picture [1, 3, H, W] of any size in multiples of 32 and tells `boxes` and `scores`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from glnet_rt.detect.onnx_ import layout_of
from train.detector.fit import load_detector
from train.detector.model import Deployed

OPSET = 17
_LARGE = 64  # numbers; below, halving saves nothing


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m export.detector", description=__doc__)
    parser.add_argument("weights", type=Path, help="written by python -m train detector")
    parser.add_argument("out", type=Path, help="ends in .onnx")
    arguments = parser.parse_args()
    size = export(arguments.weights, arguments.out)
    print(f"wrote {arguments.out}, {size / 1e6:.2f} MB")


def export(weights: Path, out: Path) -> int:
    """Write the file; returns its length in bytes.

    Raises:
        ArtifactError: no detector's weights.
    """
    model, _ = load_detector(weights)
    sides = {2: "height", 3: "width"}
    torch.onnx.export(
        Deployed(model).eval(), (torch.zeros(1, 3, 64, 96),), str(out), input_names=["image"],
        output_names=["boxes", "scores"], opset_version=OPSET, dynamo=False,
        dynamic_axes={"image": sides, "boxes": {1: "cells"}, "scores": {1: "cells"}},
    )  # fmt: skip
    graph = halved(onnx.load(str(out)))
    onnx.checker.check_model(graph)
    layout_of({output.name: (1, None, None) for output in graph.graph.output}, "boxes")
    out.write_bytes(graph.SerializeToString())
    return out.stat().st_size


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with large float32 weights kept as float16, each behind a Cast."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _LARGE:
            continue
        name = tensor.name
        narrow = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(narrow, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    return model


if __name__ == "__main__":
    main()
