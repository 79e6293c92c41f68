"""The few fields of an ONNX file that are read and dropped as bytes, against the onnx package."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from glnet_rt.artifact import Artifact
from glnet_rt.backends.onnx_bytes import op_types, without_functions
from glnet_rt.errors import ArtifactError


def with_function() -> onnx.ModelProto:
    """A graph with a node of our domain, whose meaning a local function gives."""
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opset = helper.make_opsetid("", 20)
    function = helper.make_function("glnet_rt", "Twice", ["a"], ["b"], body, [opset])
    nodes = [
        helper.make_node("Twice", ["x"], ["y"], domain="glnet_rt"),
        helper.make_node("Neg", ["y"], ["z"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xz"]
    graph = helper.make_graph(nodes, "twice", values[:1], values[1:])
    model = helper.make_model(
        graph,
        functions=[function, function],
        opset_imports=[opset, helper.make_opsetid("glnet_rt", 1)],
    )
    model.doc_string, model.model_version = "kept", 2**40
    return model


def test_functions_go_and_everything_else_stays() -> None:
    model = with_function()
    stripped = onnx.load_from_string(without_functions(model.SerializeToString()))
    assert len(model.functions) == 2
    del model.functions[:]
    assert stripped == model


def test_a_model_without_functions_keeps_every_byte() -> None:
    model = with_function()
    del model.functions[:]
    data = model.SerializeToString()
    assert without_functions(data) == data


def test_operators_are_those_of_the_main_graph() -> None:
    assert op_types(with_function().SerializeToString()) == {"Twice", "Neg"}
    artifact = Artifact.open()
    shipped = artifact.read_model(artifact.manifest.precisions[0])
    wanted = {node.op_type for node in onnx.load_from_string(shipped).graph.node}
    assert op_types(shipped) == wanted


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_truncated_model_is_refused(cut: int) -> None:
    data = with_function().SerializeToString()
    with pytest.raises(ArtifactError, match="no ONNX file"):
        without_functions(data[:-cut])


@pytest.mark.parametrize("data", [b"\xff" * 12, b"no model", b"\x0b"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="no ONNX file"):
        op_types(data)
