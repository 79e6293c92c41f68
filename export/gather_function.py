"""What a `PartPointGather` node means, in standard operators, in the model's own file.

ONNX Runtime runs the function; TensorRT takes a plugin of that name where one is registered, and
the function where none is. docs/export.md states the contract.
"""

from __future__ import annotations

import onnx
from onnx import parser

from glnet_rt.spec import GATHER_DOMAIN, GATHER_OP

# Corners are aligned and borders repeat: grid pixel 0 is -1, the last is 1. A side of one pixel
# has no second one to be 1.
BODY = f"""
<domain: "{GATHER_DOMAIN}", opset_import: ["" : 20]>
{GATHER_OP} <plugin_namespace, plugin_version> (features, points) => (sampled)
{{
  shape = Shape <start: int = 2, end: int = 4> (features)
  rows_columns = Cast <to: int = 1> (shape)
  swapped = Constant <value_ints: ints = [1, 0]> ()
  sides = Gather (rows_columns, swapped)
  one = Constant <value_float: float = 1.0> ()
  two = Constant <value_float: float = 2.0> ()
  steps = Sub (sides, one)
  spans = Max (steps, one)
  scale = Div (two, spans)
  scaled = Mul (points, scale)
  grid = Sub (scaled, one)
  third = Constant <value_ints: ints = [2]> ()
  grid_rows = Unsqueeze (grid, third)
  map = Cast <to: int = 1> (features)
  read = GridSample
    <align_corners: int = 1, mode: string = "linear", padding_mode: string = "border">
    (map, grid_rows)
  fourth = Constant <value_ints: ints = [3]> ()
  columns = Squeeze (read, fourth)
  turned = Transpose <perm: ints = [0, 2, 1]> (columns)
  sampled = CastLike (turned, features)
}}
"""


def append_function(proto: onnx.ModelProto) -> None:
    """Put the node's meaning into a model that has the node, in place."""
    if any(node.domain == GATHER_DOMAIN for node in proto.graph.node):
        proto.functions.append(parser.parse_function(BODY))
