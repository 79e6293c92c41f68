"""A network as an ONNX graph: sparse top-1 head, opset 20, dynamic batch."""

from __future__ import annotations

import io

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from export.gather_function import append_function
from glnet_rt.contracts import Array
from glnet_rt.spec import NetSpec
from train.model.glnet import GLNet

TORCH_BATCH = 16  # bounds memory; images are judged one by one all the same
OPSET = 20  # what torch's exporter, ONNX Runtime and TensorRT's parser from 10.3 on all speak


class Top1(nn.Module):
    """What is exported: outputs as a tuple, in NetSpec's order. Keeps tracing out of the model."""

    def __init__(self, model: GLNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.top1(image).values())


def build_graph(model: GLNet) -> onnx.ModelProto:
    """Export to ONNX in the model's own types, simplified where every output stays the same.

    Args:
        model: in evaluation mode, as trained or `export.half.halved`.
    """
    spec = model.config.spec
    example = torch.zeros(2, *spec.input_shape)
    program = torch.onnx.export(
        Top1(model).eval(),
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[spec.input_name],
        output_names=list(spec.output_shapes),
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    proto = program.model_proto
    strip_tracing_metadata(proto)
    append_function(proto)
    onnx.checker.check_model(proto, full_check=True)
    return simplified(proto, spec)


def strip_tracing_metadata(proto: onnx.ModelProto) -> None:
    """Drop the exporter's notes: they hold stack traces with paths of the exporting machine."""
    del proto.metadata_props[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    del proto.graph.metadata_props[:]
    proto.doc_string = proto.graph.doc_string = ""


def simplified(proto: onnx.ModelProto, spec: NetSpec) -> onnx.ModelProto:
    """onnxsim's version where it is smaller and gives the same outputs, else the graph as it is."""
    import onnxsim

    smaller, ok = onnxsim.simplify(proto)
    if not ok or len(smaller.graph.node) >= len(proto.graph.node):
        return proto
    images = np.random.default_rng(0).normal(size=(3, *spec.input_shape)).astype(np.float32)
    before, after = run_graph(proto, spec, images), run_graph(smaller, spec, images)
    same = all(np.allclose(before[name], after[name], atol=1e-5) for name in before)
    return smaller if same and custom_nodes(smaller) == custom_nodes(proto) else proto


def custom_nodes(proto: onnx.ModelProto) -> list[str]:
    """Names of the operators that are not plain ONNX, once per node."""
    return [node.op_type for node in proto.graph.node if node.domain]


def run_graph(
    proto: onnx.ModelProto,
    spec: NetSpec,
    images: Array,
    batch: int | None = None,
    extra: tuple[str, ...] = (),
) -> dict[str, Array]:
    """Outputs of ONNX Runtime on images [B, 3, S, S] float32, `batch` at a time or all at once.

    Args:
        extra: names of further values of the graph, whose first dimension is the batch.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(serialised(with_outputs(proto, extra)), options)
    names, step = [*spec.output_shapes, *extra], batch or len(images)
    parts = [
        session.run(names, {spec.input_name: images[i : i + step]})
        for i in range(0, len(images), step)
    ]
    whole = [np.concatenate(each) for each in zip(*parts, strict=True)]
    return dict(zip(names, whole, strict=True))


def with_outputs(proto: onnx.ModelProto, names: tuple[str, ...]) -> onnx.ModelProto:
    """The graph with further values told, int64; the graph itself where there are none."""
    if not names:
        return proto
    told = onnx.ModelProto()
    told.CopyFrom(proto)
    told.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None) for name in names
    )
    return told


def winners_of(proto: onnx.ModelProto) -> str:
    """Name of the value that holds the pixels a prediction comes from, [B, k] int64."""
    (top,) = (node for node in proto.graph.node if node.op_type == "TopK")
    return top.output[1]


def serialised(proto: onnx.ModelProto) -> bytes:
    """The file's bytes."""
    stream = io.BytesIO()
    onnx.save(proto, stream)
    return stream.getvalue()


@torch.no_grad()
def run_torch(model: GLNet, images: Array, winners: Array | None = None) -> dict[str, Array]:
    """The same outputs from the network itself, float32; at the pixels [B, k] if given."""
    parts = []
    for start in range(0, len(images), TORCH_BATCH):
        part = slice(start, start + TORCH_BATCH)
        at = None if winners is None else torch.from_numpy(winners[part])
        parts.append(model.eval().top1(torch.from_numpy(images[part]), at))
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
