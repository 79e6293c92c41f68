"""A checkpoint as an ONNX graph: sparse top-1 head, opset 20, dynamic batch."""

from __future__ import annotations

import io

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from glnet_rt.contracts import Array
from glnet_rt.spec import NetSpec
from train.model.glnet import GLNet

OPSET = 20  # what torch's exporter, ONNX Runtime and TensorRT's parser from 10.3 on all speak


class Top1(nn.Module):
    """What is exported: outputs as a tuple, in NetSpec's order. Keeps tracing out of the model."""

    def __init__(self, model: GLNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.top1(image).values())


def build_graph(model: GLNet) -> onnx.ModelProto:
    """Export to float32 ONNX, simplified where that leaves every output the same.

    Args:
        model: in evaluation mode.
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
    return smaller if same else proto


def run_graph(
    proto: onnx.ModelProto, spec: NetSpec, images: Array, batch: int | None = None
) -> dict[str, Array]:
    """Outputs of ONNX Runtime on images [B, 3, S, S] float32, `batch` at a time or all at once."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(serialised(proto), options)
    names, step = list(spec.output_shapes), batch or len(images)
    parts = [
        session.run(names, {spec.input_name: images[i : i + step]})
        for i in range(0, len(images), step)
    ]
    whole = [np.concatenate(each) for each in zip(*parts, strict=True)]
    return dict(zip(names, whole, strict=True))


def serialised(proto: onnx.ModelProto) -> bytes:
    """The file's bytes."""
    stream = io.BytesIO()
    onnx.save(proto, stream)
    return stream.getvalue()


@torch.no_grad()
def run_torch(model: GLNet, images: Array) -> dict[str, Array]:
    """The same outputs from the network itself, float32."""
    outputs = model.eval().top1(torch.from_numpy(images))
    return {name: value.numpy() for name, value in outputs.items()}
