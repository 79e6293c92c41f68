"""ONNX Runtime: on the CPU it runs everywhere, and is the reference for every other backend.

Its CUDA and TensorRT execution providers are backends of their own, taken only where they are asked
for by name.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any, ClassVar

from glnet_rt._closing import Closing
from glnet_rt.artifact import Artifact, model_name
from glnet_rt.backends.base import check_names, check_shape, run_failed, session_closed
from glnet_rt.contracts import Array
from glnet_rt.cpu import usable_cores
from glnet_rt.crop import normalise
from glnet_rt.engine_cache import cache_root
from glnet_rt.errors import ArtifactError, BackendError, MissingDependencyError
from glnet_rt.spec import ZERO_POINT, NetSpec

_CPU = "CPUExecutionProvider"
_FATAL_ONLY = 4  # log level: every failure is raised with its text, so stderr stays quiet
_X86 = ("x86_64", "AMD64")
_INT8, _UINT8 = b"\x03", b"\x02"  # onnx.TensorProto.DataType
_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
_TENSOR_FLOAT, _TENSOR_INT64 = "tensor(float)", "tensor(int64)"


class OnnxRuntimeBackend(Closing):
    """One ONNX Runtime session on the CPU.

    `infer` returns fresh arrays each time, and several threads may call it at once.
    """

    provider: ClassVar[str] = _CPU
    name: ClassVar[str] = "onnxruntime"
    # A CPU has no arithmetic in half precision: fp16 is right there, and slow.
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "packed", "int8", "fp16")
    concurrent: ClassVar[bool] = True

    def __init__(self, session: Any, spec: NetSpec, precision: str) -> None:
        self._session = session
        self._spec = spec
        self._output_names = list(spec.output_shapes)
        self.precision = precision

    @classmethod
    def open(
        cls, artifact: Artifact, precision: str, *, threads: int | None = None
    ) -> OnnxRuntimeBackend:
        """Open a session; see `Backend.open`."""
        model, name = artifact.read_model(precision), model_name(precision)
        if precision == "int8" and cls.provider == _CPU and platform.machine() in _X86:
            model = unsigned_activations(model)
        session = open_session(model, name, threads, cls.provider)
        _check_provider(session, cls.provider)
        _check_signature(session, artifact.spec)
        return cls(session, artifact.spec, precision)

    def infer(self, crops: Array) -> Mapping[str, Array]:
        """[B, S, S, 3] uint8 -> name -> array; see `Backend.infer`."""
        if self._session is None:
            raise session_closed("onnxruntime")
        batch = normalise(crops, self._spec)
        try:
            outputs = self._session.run(self._output_names, {self._spec.input_name: batch})
        except Exception as error:  # its exception types share no base of their own
            raise run_failed("ONNX Runtime", crops, self._spec, error) from error
        return dict(zip(self._output_names, outputs, strict=True))

    def close(self) -> None:
        """Free the session. Calling it again does nothing."""
        self._session = None


def unsigned_activations(model: bytes) -> bytes:
    """The same INT8 model with activations from 0 to 255 about 128, not -128 to 127 about 0.

    The numbers are the same. TensorRT takes signed activations alone, and ONNX Runtime's quick
    kernels on x86 unsigned ones alone (docs/export.md has the times). One tensor holds the zero
    of all of them, so its type and its value are all that has to change.

    Raises:
        ArtifactError: the model has no such tensor.
    """
    name = ZERO_POINT.encode()
    signed, unsigned = (
        b"\x10" + kind + b"\x42" + bytes([len(name)]) + name + b"\x4a\x01" + zero
        for kind, zero in ((_INT8, b"\x00"), (_UINT8, b"\x80"))
    )
    if model.count(signed) != 1:
        raise ArtifactError(
            "the INT8 model does not say where the zero of its activations is",
            got=f"{model.count(signed)} tensors {ZERO_POINT}",
            expected="one",
            fix="export the artifact again with this version of glnet-rt",
        )
    return model.replace(signed, unsigned)


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend):
    """The same on an NVIDIA GPU, by ONNX Runtime's own kernels and cuDNN's."""

    name: ClassVar[str] = "onnxruntime-cuda"
    precisions: ClassVar[tuple[str, ...]] = ("fp16", "fp32", "packed", "int8")
    concurrent: ClassVar[bool] = False  # two at a time would share one device's memory
    provider: ClassVar[str] = "CUDAExecutionProvider"


class OnnxRuntimeTensorRTBackend(OnnxRuntimeBackend):
    """The same through TensorRT, which ONNX Runtime lets build engines when it first runs."""

    name: ClassVar[str] = "onnxruntime-tensorrt"
    precisions: ClassVar[tuple[str, ...]] = ("fp16", "fp32", "int8")
    concurrent: ClassVar[bool] = False
    provider: ClassVar[str] = "TensorrtExecutionProvider"


def open_session(model: bytes, name: str, threads: int | None, provider: str = _CPU) -> Any:
    """An ONNX Runtime session of a model's bytes.

    Args:
        model: of an ONNX file. name: what messages call it.
        threads: CPU threads of one inference; None leaves it to ONNX Runtime.
        provider: what runs it.

    Raises:
        MissingDependencyError: no onnxruntime, or none with that provider.
        BackendError: it cannot open the model.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingDependencyError(
            "the onnxruntime backend needs the package onnxruntime",
            got=str(error),
            expected="onnxruntime >= 1.17",
            fix="pip install onnxruntime",
        ) from error
    if provider not in ort.get_available_providers():
        raise MissingDependencyError(
            f"this ONNX Runtime has no {provider}",
            got=", ".join(ort.get_available_providers()),
            expected="ONNX Runtime's build for NVIDIA GPUs",
            fix="pip uninstall onnxruntime, then pip install onnxruntime-gpu; on a Jetson take "
            "NVIDIA's wheel of it",
        )
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or usable_cores()
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry(_RECORD_ASSIGNMENT, "1")
    try:
        return ort.InferenceSession(model, options, providers=[(provider, _settings(provider))])
    except Exception as error:  # its exception types share no base of their own
        raise BackendError(
            f"ONNX Runtime {ort.__version__} cannot open {name}",
            got=str(error),
            expected="an ONNX model of opset 20 or lower, complete",
            fix="pip install -U onnxruntime; if that does not help, export the model again",
        ) from error


def _settings(provider: str) -> dict[str, str]:
    """Options of a provider: TensorRT's engines are kept, since to build them takes minutes."""
    if provider != OnnxRuntimeTensorRTBackend.provider:
        return {}
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache_root() / "onnxruntime-tensorrt"),
    }


def _check_provider(session: Any, provider: str) -> None:
    """The provider took the session. ONNX Runtime falls back to the CPU without an error.

    Raises:
        BackendError: it did not, or, where ONNX Runtime can tell, it took none of the nodes.
    """
    took = session.get_providers()
    tell = getattr(session, "get_provider_graph_assignment_info", None)  # newer ones do
    nodes = [part.ep_name for part in tell()] if tell else took
    if provider not in took or provider not in nodes:
        raise BackendError(
            f"ONNX Runtime did not give the model to {provider}",
            got=f"a session of {', '.join(sorted(set(took) & set(nodes)))}",
            expected=f"a session of {provider}",
            fix="install the CUDA, cuDNN and TensorRT versions that this onnxruntime-gpu was built "
            "for, and check the driver with nvidia-smi; or choose another backend",
        )


def _check_signature(session: Any, spec: NetSpec) -> None:
    """The model's names, types and shapes are those of the spec."""
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    check_names("inputs", set(inputs), {spec.input_name})
    check_names("outputs", set(outputs), set(spec.output_shapes))
    signature: list[tuple[str, Any, tuple[int, ...]]] = [
        ("input", inputs[spec.input_name], spec.input_shape)
    ]
    signature += [("output", outputs[name], shape) for name, shape in spec.output_shapes.items()]
    for kind, node, wanted in signature:
        dtype = _TENSOR_INT64 if node.name == "pixel" else _TENSOR_FLOAT
        if node.type != dtype:
            raise ArtifactError(
                f"the model's {kind} {node.name} has another type than the manifest's spec",
                got=node.type,
                expected=dtype,
                fix="export the artifact again with this version of glnet-rt",
            )
        shape = tuple(n if isinstance(n, int) else None for n in node.shape)
        check_shape(f"{kind} {node.name}", shape, wanted)
