"""The exported graphs: the same answers as torch, in the types and with the nodes promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from export import parity
from export.crops import Crops
from export.graph import OPSET, build_graph, run_graph, run_torch, winners_of
from export.half import halved
from export.int8 import convolutions
from export.parity import Judged, but_for_ties, compare, noise
from glnet_rt.body_model import BodyModel
from glnet_rt.spec import GATHER_DOMAIN, GATHER_OP, NetSpec
from tests.narrow import SIZE, network
from train.model.glnet import GLNet

HALF, FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


@pytest.fixture(scope="module")
def half_graph(narrow: GLNet) -> onnx.ModelProto:
    return build_graph(halved(narrow))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)


def gathers(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.domain == GATHER_DOMAIN]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"class_variant": "local", "representation": "direct", "winners": 1},
        {"class_channels": 16, "representation": "direct", "winners": 1},
    ],
)
def test_graph_equals_torch_at_every_batch(
    body: BodyModel, labelled: Crops, fields: dict[str, object]
) -> None:
    model = network(body, **fields)
    proto, spec = build_graph(model), model.config.spec
    judged = Judged.of(model, body, Crops(labelled.bgr[:9]))
    for batch in (1, 3, 9):
        found = compare(body, spec, run_graph(proto, spec, judged.images, batch), judged)
        assert found.same_pixel.all()
        assert found.vertices_mm.max() < 0.1
        assert found.pelvises_mm.max() < 0.1
    # One gather at the part points; hop 1 or the class branch, where they gather too, their own.
    assert len(gathers(proto)) == (2 if fields else 1)


def test_what_only_the_winner_needs_is_no_convolution(body: BodyModel) -> None:
    dense = {"model.pixel_head.keypoint_branch.weight", "model.pixel_head.hop1.weight"}
    for variant in ("pixel", "local"):
        proto = build_graph(network(body, class_variant=variant, winners=1))
        found = dense & set(convolutions(proto).values())
        assert found == (set() if variant == "pixel" else dense)


def test_graph_is_what_was_promised(narrow_graph: onnx.ModelProto, narrow_spec: NetSpec) -> None:
    proto = narrow_graph
    assert [o.version for o in proto.opset_import if o.domain == ""] == [OPSET]
    assert [o.name for o in proto.graph.output] == list(narrow_spec.output_shapes)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    (gather,) = gathers(proto)
    assert gather.op_type == GATHER_OP
    attributes = {a.name: a.s.decode() for a in gather.attribute}
    assert attributes == {"plugin_namespace": GATHER_DOMAIN, "plugin_version": "1"}
    assert [(f.domain, f.name) for f in proto.functions] == [(GATHER_DOMAIN, GATHER_OP)]
    kinds = {node.op_type for node in proto.graph.node}
    assert "GridSample" not in kinds  # it stands in the function
    assert "BatchNormalization" not in kinds  # folded into the convolutions
    text = str(onnx.ModelProto.SerializeToString(proto))
    assert str(Path.home()) not in text
    assert "site-packages" not in text


def test_half_precision_is_where_it_was_said(
    half_graph: onnx.ModelProto, narrow_spec: NetSpec
) -> None:
    typed = onnx.shape_inference.infer_shapes(half_graph, strict_mode=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in typed.graph.value_info}
    ends = [*half_graph.graph.input, *half_graph.graph.output]
    told = {value.name: value.type.tensor_type.elem_type for value in ends}
    assert all(
        told[name] == FLOAT for name in (*narrow_spec.output_shapes, "image") if name != "pixel"
    )
    for tensor in half_graph.graph.initializer:
        name = tensor.name.removeprefix("model.")
        if name.endswith("weight") and name.startswith(("backbone.", "pixel_head.class_branch")):
            assert tensor.data_type == HALF, name
        if name.startswith(("global_head", "pixel_head.hop", "pixel_head.score.")):
            assert tensor.data_type == FLOAT, name
    (gather,) = gathers(half_graph)
    assert [kinds[name] for name in gather.input] == [HALF, FLOAT]
    assert kinds[gather.output[0]] == HALF


def test_half_precision_rounds_and_no_more(
    narrow: GLNet, narrow_graph: onnx.ModelProto, half_graph: onnx.ModelProto
) -> None:
    """At the same pixels; that the two differ at all shows that something was rounded."""
    spec, crops = narrow.config.spec, images(6)
    errors = []
    for proto in (narrow_graph, half_graph):
        winners = winners_of(proto)
        outputs = run_graph(proto, spec, crops, extra=(winners,))
        errors.append(noise(outputs, run_torch(narrow, crops, outputs[winners])))
    assert errors[0] < 1e-4 < errors[1] < 2e-2


def test_torch_predicts_at_the_pixels_it_is_given(
    narrow: GLNet, narrow_graph: onnx.ModelProto
) -> None:
    spec, crops, winners = narrow.config.spec, images(3), winners_of(narrow_graph)
    best = run_graph(narrow_graph, spec, crops, extra=(winners,))[winners]
    free = run_torch(narrow, crops)
    told = run_torch(narrow, crops, best)
    other = run_torch(narrow, crops, np.full_like(best, 7))
    np.testing.assert_allclose(told["keypoints_uvd"], free["keypoints_uvd"], atol=1e-5)
    assert (other["pixel"] == 7).all()
    assert np.abs(other["keypoints_uvd"] - free["keypoints_uvd"]).max() > 0.01


def test_float32_has_two_right_answers_where_two_pixels_tie(
    narrow: GLNet, body: BodyModel, labelled: Crops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Person 2 is answered from the other pixel, person 1 wrongly from any."""
    spec = narrow.config.spec
    judged = Judged.of(narrow, body, Crops(labelled.bgr[:4]))
    monkeypatch.setattr(parity, "TIE", np.inf)
    who, other = judged.told_otherwise(body, np.arange(4))
    assert list(who) == [0, 1, 2, 3]
    outputs = {name: values.copy() for name, values in judged.reference.items()}
    for name, values in outputs.items():
        values[2] = other.reference[name][2]
    outputs["betas"][1] += 0.5
    found = compare(body, spec, outputs, judged)
    assert list(found.vertices_mm.max(1) > 0.1) == [False, True, True, False]

    settled = but_for_ties(body, outputs, judged, found)
    assert list(settled.vertices_mm.max(1) > 0.1) == [False, True, False, False]
    assert settled.vertices_mm[2].max() < 0.001
    np.testing.assert_array_equal(settled.vertices_mm[::3], found.vertices_mm[::3])
    assert list(settled.tied[[0, 2, 3]]) == [False, True, False]
    assert settled.row(slice(2, 4))["ties"] == 1

    monkeypatch.setattr(parity, "TIE", 0.0)
    unsettled = but_for_ties(body, outputs, judged, found)
    np.testing.assert_array_equal(unsettled.vertices_mm, found.vertices_mm)
    assert not unsettled.tied.any()
