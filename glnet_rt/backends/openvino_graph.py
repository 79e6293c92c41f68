"""What is changed in a model for OpenVINO: what its ONNX reader lacks, and where INT8 rounds."""

from __future__ import annotations

from typing import Any

import numpy as np

CHANGES = 3  # raised with every other change to what is compiled: compiled models are kept under it
LEVELS = 256
# An activation's Q/DQ pair as the ONNX reader gives it.
_PAIR = ("FakeQuantize", "Convert", "Convert", "Subtract", "Multiply")


def gather(node: Any) -> list[Any]:
    """`PartPointGather` in OpenVINO's operators; docs/export.md states its contract.

    OpenVINO's reader knows no local functions of ONNX, and asks here instead.
    """
    from openvino import Type
    from openvino import opset13 as ops

    features, points = node.get_input(0), node.get_input(1)
    one, two = ops.constant(1.0, Type.f32), ops.constant(2.0, Type.f32)
    columns_rows = ops.constant([3, 2], Type.i64)
    sides = ops.gather(ops.shape_of(features), columns_rows, ops.constant(0, Type.i64))
    spans = ops.maximum(ops.subtract(ops.convert(sides, Type.f32), one), one)
    grid = ops.subtract(ops.multiply(points, ops.divide(two, spans)), one)
    read = ops.grid_sample(
        ops.convert(features, Type.f32),
        ops.unsqueeze(grid, ops.constant([2], Type.i64)),
        {"align_corners": True, "mode": "bilinear", "padding_mode": "border"},
    )
    columns = ops.squeeze(read, ops.constant([3], Type.i64))
    turned = ops.transpose(columns, ops.constant([0, 2, 1], Type.i64))
    return [ops.convert_like(turned, features).output(0)]


def round_where_it_pays(model: Any) -> None:
    """Take a model's activations to integers only where a convolution reads them, in place.

    The stored pairs are what ONNX Runtime and TensorRT need: signed, and around whatever stands
    between convolutions. Here sums and up-sampling stay floats, fused behind convolutions, and
    what a ReLU has cut off at zero takes all 256 levels for the half that is left: fewer and finer
    roundings, and a seventh less time. A model without such pairs stays as it is.
    """
    from openvino import opset13 as ops

    changed = False
    for node in model.get_ordered_ops():
        end = _end_of_pair(node)
        if end is None:
            continue
        value, top = node.input_value(0), node.input_value(2).get_node().data
        readers = list(end.output(0).get_target_inputs())
        if all(reader.get_node().get_type_name() != "Convolution" for reader in readers):
            instead = value
        elif _never_negative(value.get_node()):
            zero = np.zeros_like(top)
            instead = ops.fake_quantize(value, zero, top, zero, top, LEVELS).output(0)
        else:
            continue
        for reader in readers:
            reader.replace_source_output(instead)
        changed = True
    if changed:
        model.validate_nodes_and_infer_types()


def _end_of_pair(node: Any) -> Any:
    """The last node of the Q/DQ pair that starts at a node; None where none does."""
    for kind in _PAIR[:-1]:
        if node.get_type_name() != kind:
            return None
        readers = list(node.output(0).get_target_inputs())
        if len(readers) != 1:
            return None
        node = readers[0].get_node()
    return node if node.get_type_name() == _PAIR[-1] else None


def _never_negative(node: Any) -> bool:
    """Whether ReLUs, perhaps up-sampled or added up, give a node's value."""
    kind, before = node.get_type_name(), [value.get_node() for value in node.input_values()]
    if kind == "Interpolate":
        return _never_negative(before[0])
    return bool(kind == "Relu" or (kind == "Add" and all(map(_never_negative, before))))
