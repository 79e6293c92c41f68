"""Weights in as many bits as they need: what makes an artifact small.

Every large weight tensor is rounded to b bits, one scale per output channel. The upper 8 bits stand
in one tensor and the rest in another, since an artifact's zip stores a tensor of few values in few
bits. Plain operators put them together again; a run time folds these when it opens the model, and
computes in float32 as before.

How many bits a tensor gets is measured: each is rounded alone, and the bodies are compared. Noise
adds up in squares, so that total harm is least at a given size where every weight of every tensor
does as much harm as any other.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graph import run_graph, serialised
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, NetOutput
from glnet_rt.errors import ContractError
from glnet_rt.probe import vertex_errors_mm
from glnet_rt.spec import NetSpec

SMALL = 1024  # weights; tensors below are left alone
FEWEST_BITS, BYTE_BITS, MOST_BITS = 5, 8, 16
UPPER_ZERO = 128
LEAST_HARM_MM = 1e-4  # what rounds to nothing on a few crops may count on others
LEVELS = (8.0, 40.0)
SEARCH_STEPS = 9


@dataclass(frozen=True, eq=False)
class Weight:
    """The weights of one layer.

    Attributes:
        name: of the initializer.
        values: float32.
        axis: of the output channels.
    """

    name: str
    values: Array
    axis: int

    def rows(self) -> Array:
        """[channels, K], one row per output channel."""
        return np.moveaxis(self.values, self.axis, 0).reshape(self.values.shape[self.axis], -1)

    def rounded(self, bits: int) -> tuple[Array, Array]:
        """Steps, int64, of the values' shape, and how much one is, float32, broadcast to it."""
        largest = 2 ** (bits - 1) - 1
        step = (np.abs(self.rows()).max(1) / largest).astype(np.float32)
        step[step == 0] = 1.0
        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        step = step.reshape(shape)
        return np.clip(np.rint(self.values / step), -largest, largest).astype(np.int64), step


def large_weights(proto: onnx.ModelProto) -> list[Weight]:
    """Constant weights of all convolutions and matrix products, but for small ones."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    found = {}
    for node in proto.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in constants:
            continue
        name = node.input[1]
        values = numpy_helper.to_array(constants[name])
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        axis = 0 if node.op_type == "Conv" or turned else values.ndim - 1
        if values.size >= SMALL:
            found[name] = Weight(name, values, axis)
    return list(found.values())


def harm_of_rounding(
    proto: onnx.ModelProto, body: BodyModel, spec: NetSpec, images: Array
) -> dict[str, float]:
    """Mean distance of vertices in mm that rounding each weight tensor alone to 8 bits causes.

    Args:
        proto: the float32 graph.
        images: [N, 3, S, S] float32, crops that nothing is judged by.
    """
    reference = NetOutput.from_arrays(spec, run_graph(proto, spec, images))
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    harm = {}
    for weight in large_weights(proto):
        steps, step = weight.rounded(BYTE_BITS)
        tensors[weight.name].CopyFrom(constant(weight.name, steps * step, np.float32))
        output = NetOutput.from_arrays(spec, run_graph(proto, spec, images))
        tensors[weight.name].CopyFrom(constant(weight.name, weight.values, np.float32))
        harm[weight.name] = float(vertex_errors_mm(body, spec, output, reference)[0].mean())
    return harm


def bits_at(level: float, weights: list[Weight], harm: Mapping[str, float]) -> dict[str, int]:
    """Bits of every tensor; one level more is one bit more for all."""
    each = {w.name: max(harm[w.name], LEAST_HARM_MM) / np.sqrt(w.values.size) for w in weights}
    return {
        name: int(np.clip(np.rint(level + np.log2(value)), FEWEST_BITS, MOST_BITS))
        for name, value in each.items()
    }


def pack(proto: onnx.ModelProto, bits: Mapping[str, int]) -> onnx.ModelProto:
    """The same graph with the named weights rounded, in pieces, and put together in it."""
    pieces: list[TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    for weight in large_weights(proto):
        more, joined = split(weight, bits[weight.name])
        pieces += more
        nodes += joined
    packed = onnx.ModelProto()
    packed.CopyFrom(proto)
    kept = [tensor for tensor in packed.graph.initializer if tensor.name not in bits]
    nodes += packed.graph.node
    del packed.graph.initializer[:], packed.graph.node[:]
    packed.graph.initializer.extend([*kept, *pieces])
    packed.graph.node.extend(nodes)
    onnx.checker.check_model(packed, full_check=True)
    return packed


def split(weight: Weight, bits: int) -> tuple[list[TensorProto], list[onnx.NodeProto]]:
    """One tensor's pieces, and the nodes that join them: ((upper - 128) * 2^rest + lower) * step.

    All are unsigned: TensorRT takes a signed one for quantized, and refuses it without its scale.
    """
    name, rest = weight.name, max(0, bits - BYTE_BITS)
    steps, step = weight.rounded(bits)
    pieces = [
        constant(f"{name}.upper", (steps >> rest) + UPPER_ZERO, np.uint8),
        constant(f"{name}.zero", np.array([UPPER_ZERO]), np.float32),
        constant(f"{name}.step", step, np.float32),
    ]
    nodes = [
        helper.make_node("Cast", [f"{name}.upper"], [f"{name}.unsigned"], to=TensorProto.FLOAT),
        helper.make_node("Sub", [f"{name}.unsigned", f"{name}.zero"], [f"{name}.high"]),
    ]
    whole = f"{name}.high"
    if rest:
        pieces.append(constant(f"{name}.lower", steps & (2**rest - 1), np.uint8))
        pieces.append(constant(f"{name}.shift", np.array([2.0**rest]), np.float32))
        whole = f"{name}.whole"
        nodes += [
            helper.make_node("Mul", [f"{name}.high", f"{name}.shift"], [f"{name}.shifted"]),
            helper.make_node("Cast", [f"{name}.lower"], [f"{name}.low"], to=TensorProto.FLOAT),
            helper.make_node("Add", [f"{name}.shifted", f"{name}.low"], [whole]),
        ]
    nodes.append(helper.make_node("Mul", [whole, f"{name}.step"], [name]))
    return pieces, nodes


def store_in_half(proto: onnx.ModelProto) -> None:
    """Write large float32 weights as float16 and a Cast, in place; what computes stays float32.

    For models whose other weights are rounded more coarsely than that anyway.
    """
    large = {weight.name for weight in large_weights(proto)}
    casts = []
    for tensor in proto.graph.initializer:
        if tensor.name in large and tensor.data_type == TensorProto.FLOAT:
            name, values = tensor.name, numpy_helper.to_array(tensor)
            tensor.CopyFrom(constant(f"{name}.half", values, np.float16))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def pack_into(proto: onnx.ModelProto, harm: Mapping[str, float], room: int) -> onnx.ModelProto:
    """The finest packing whose file, deflated, takes at most `room` bytes.

    Raises:
        ContractError: even the coarsest takes more.
    """
    weights = large_weights(proto)
    low, high = LEVELS
    coarsest = pack(proto, bits_at(low, weights, harm))
    best, size = coarsest, deflated(coarsest)
    if size > room:
        raise ContractError(
            "the network does not fit",
            got=f"{size} bytes with {FEWEST_BITS} bits a weight",
            expected=f"at most {room} bytes",
            fix="allow a larger artifact with --max-mb, or export with --precision fp32",
        )
    for _ in range(SEARCH_STEPS):
        level = (low + high) / 2
        tried = pack(proto, bits_at(level, weights, harm))
        if deflated(tried) <= room:
            best, low = tried, level
        else:
            high = level
    return best


def deflated(proto: onnx.ModelProto) -> int:
    """Bytes it takes in an artifact's zip."""
    return len(zlib.compress(serialised(proto), 9))


def constant(name: str, values: Array, dtype: type[np.generic]) -> TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(values, dtype), name)
