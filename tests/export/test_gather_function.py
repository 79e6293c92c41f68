"""The node's function body against torch's own gather, which it stands for."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from export.gather_function import append_function
from glnet_rt.contracts import Array
from glnet_rt.spec import GATHER_DOMAIN, GATHER_OP, GATHER_VERSION
from train.model.gather import part_point_gather


def run_node(features: Array, points: Array) -> Array:
    """A model of the node alone, on ONNX Runtime, which knows it by its function only."""
    kind = helper.np_dtype_to_tensor_dtype(features.dtype)
    node = helper.make_node(
        GATHER_OP,
        ["features", "points"],
        ["sampled"],
        domain=GATHER_DOMAIN,
        plugin_namespace=GATHER_DOMAIN,
        plugin_version=str(GATHER_VERSION),
    )
    graph = helper.make_graph(
        [node],
        "gather",
        [
            helper.make_tensor_value_info("features", kind, ["B", "C", "H", "W"]),
            helper.make_tensor_value_info("points", TensorProto.FLOAT, ["B", "P", 2]),
        ],
        [helper.make_tensor_value_info("sampled", kind, ["B", "P", "C"])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(GATHER_DOMAIN, GATHER_VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    append_function(model)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (sampled,) = session.run(None, {"features": features, "points": points})
    return sampled


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("size", [(24, 24), (64, 64), (7, 13), (1, 5), (1, 1)])
def test_the_function_is_torchs_gather(size: tuple[int, int], dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(size)
    height, width = size
    features = rng.uniform(-1, 1, (3, 6, height, width)).astype(dtype)
    inside = rng.uniform([0, 0], [width - 1, height - 1], (3, 30, 2))
    beyond = rng.uniform(-3, max(size) + 3, (3, 30, 2))
    points = np.concatenate([inside, beyond], 1).astype(np.float32)
    wanted = part_point_gather(torch.from_numpy(features), torch.from_numpy(points)).numpy()
    got = run_node(features, points)
    assert got.dtype == dtype
    # A point's place is known to half a unit in its last place, and features change by 2 a pixel.
    place = 2e-6 * max(1.0, max(size) / 24)
    rounding = float(np.finfo(dtype).eps) / 2 if dtype == np.float16 else 0.0
    np.testing.assert_allclose(got.astype(np.float64), wanted, atol=place + rounding)


def test_a_model_without_the_node_gets_no_function() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy"]
    model = helper.make_model(helper.make_graph([node], "plain", info[:1], info[1:]))
    append_function(model)
    assert not model.functions
