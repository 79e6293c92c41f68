"""FP8 by NVIDIA's Model Optimizer, where it is installed: ONNX Runtime's own tools make no FP8 that
TensorRT takes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from export.int8 import quantised_by_default
from glnet_rt.contracts import Array
from glnet_rt.errors import MissingDependencyError
from glnet_rt.spec import NetSpec


def quantised_fp8(proto: onnx.ModelProto, images: Array, spec: NetSpec) -> onnx.ModelProto:
    """The same graph with the convolutions that `int8` has in integers in FP8 (E4M3) instead.

    Args:
        proto: float32.
        images: [N, 3, S, S] float32, calibration crops.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    try:
        from modelopt.onnx.quantization import quantize
    except ImportError as error:
        raise MissingDependencyError(
            "fp8 is made by NVIDIA Model Optimizer, which is not installed",
            got=str(error),
            expected="modelopt, in an environment of its own: it brings onnxruntime-gpu",
            fix='pip install "glnet-rt[fp8]"',
        ) from error
    chosen = set(quantised_by_default(proto, spec.preset))
    left_out = [node.name for node in proto.graph.node if node.name not in chosen]
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "fp32.onnx", Path(folder) / "fp8.onnx"
        onnx.save(proto, source)
        quantize(
            str(source),
            quantize_mode="fp8",
            calibration_data={spec.input_name: images},
            nodes_to_exclude=left_out,
            high_precision_dtype="fp32",
            output_path=str(path),
        )
        return onnx.load(path)
