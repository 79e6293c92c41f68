"""INT8 by ONNX Runtime's static quantization: symmetric Q/DQ pairs that ONNX Runtime and TensorRT
both turn into integer arithmetic.

Weights have a scale per output channel, activations one each, the largest value seen on the
calibration crops; biases stay float32. What is left in float32 is chosen by measurement:
`export.sensitivity` quantises each block alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper

from glnet_rt.contracts import Array
from glnet_rt.spec import ZERO_POINT, NetSpec

CALIBRATION_BATCH = 8
# Blocks of `tiny` in integers: stages 2 to 4 hold nearly all the work. Measured alone
# (docs/export.md), the stem and layer1 harm bodies most, a third of the crops change their pixel
# with the score, and the rest is small work.
TINY_QUANTISED = ("stage2.", "stage3.", "stage4.")
# Blocks of the others in float32. Stem, layer1 and neck are a quarter of their work, too much to
# leave: their harm is to be measured on trained weights, which nobody has yet.
FLOAT = ("conv1", "hop1", "score")


def convolutions(proto: onnx.ModelProto) -> dict[str, str]:
    """Node name -> the name of its weights, of every convolution whose weights are constant."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return {
        node.name: node.input[1]
        for node in proto.graph.node
        if node.op_type == "Conv" and node.input[1] in constants
    }


def block_of(weight: str) -> str:
    """The block of the network that weights belong to: a stage's module, a layer of a head."""
    if not weight.startswith("model."):
        return "fusion"  # kernels multiplied by their batch norm, which costs them their name
    parts = weight.removeprefix("model.").split(".")
    parts = parts[1:] if parts[0] in ("backbone", "pixel_head") else parts
    return ".".join(parts[:2]) if parts[0].startswith("stage") else parts[0]


def quantised_by_default(proto: onnx.ModelProto, preset: str) -> list[str]:
    """Names of the nodes that the `int8` model of a preset computes in integers."""
    found = convolutions(proto).items()
    if preset == "tiny":
        return [node for node, weight in found if any(stage in weight for stage in TINY_QUANTISED)]
    return [node for node, weight in found if block_of(weight) not in FLOAT]


def quantised(
    proto: onnx.ModelProto, nodes: Iterable[str], images: Array, spec: NetSpec
) -> onnx.ModelProto:
    """The same graph with some convolutions in INT8.

    Args:
        proto: float32.
        nodes: names of convolutions.
        images: [N, 3, S, S] float32, calibration crops: the largest activation is taken from them.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder:
        path, source = Path(folder) / "int8.onnx", Path(folder) / "fp32.onnx"
        onnx.save(proto, source)  # handed over as it is, it would come back without its weights
        quantize_static(
            source,
            path,
            Crops(images, spec.input_name),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=list(nodes),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
            },
        )
        model = onnx.load(path)
    del model.metadata_props[:]
    share_zero_point(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def share_zero_point(model: onnx.ModelProto) -> None:
    """Let all activations take their zero from one tensor, in place.

    They are symmetric, so it is the same zero; a run time that computes faster in unsigned numbers
    shifts them all by changing this one (`glnet_rt.backends.onnxruntime_`).
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    pairs = {node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    for node in graph.node:
        on_activation = node.op_type == "QuantizeLinear" or (
            node.op_type == "DequantizeLinear" and node.input[0] in pairs
        )
        if on_activation:
            assert not onnx.numpy_helper.to_array(stored[node.input[2]]).any()
            node.input[2] = ZERO_POINT
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    zero = onnx.numpy_helper.from_array(np.zeros((), np.int8), ZERO_POINT)
    del graph.initializer[:], graph.value_info[:]  # which tell types that the shift changes
    graph.initializer.extend([*kept, zero])


class Crops:
    """Calibration crops as ONNX Runtime asks for them, a few at a time."""

    def __init__(self, images: Array, name: str) -> None:
        starts = range(0, len(images), CALIBRATION_BATCH)
        self._batches = iter([{name: images[i : i + CALIBRATION_BATCH]} for i in starts])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)
