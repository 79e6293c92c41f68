"""A CUDA device and a TensorRT made of host memory, which record what is asked of them.

Addresses are real host addresses, a graph is a list of what was put on the stream while it was
captured, and an engine computes by ONNX Runtime: so a session's whole way is run, and its numbers
mean something. What a real device adds, tests/gpu/ tests.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest

from glnet_rt.artifact import Artifact
from glnet_rt.backends import tensorrt_, trt
from glnet_rt.backends.cuda.binding import Argument, Binding, DeviceInfo, OutOfMemoryError, Size3
from glnet_rt.backends.device import Gpu
from glnet_rt.backends.trt import TensorRT
from glnet_rt.contracts import Array
from glnet_rt.engine_cache import BuildOptions, EngineCache, EngineHeader, model_sha256
from glnet_rt.spec import NetSpec
from tests import tiny

Work = Callable[[], None]
BEGINS = b"fake engine"

NO_KERNELS = "the host session launches no kernels, and waits for no event of another stream"


class FakeBinding(Binding):
    """`Binding` on host memory. `log` holds what was called, `live` what was not freed yet."""

    name: ClassVar[str] = "fake"
    has_graphs: ClassVar[bool] = True

    def __init__(self, memory: int = 1 << 30) -> None:
        super().__init__()
        self.log: list[str] = []
        self.live: dict[int, str] = {}
        self.threads: set[int] = set()
        self._buffers: dict[int, Any] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._captured: list[Work] | None = None
        self._left = memory
        self._next = 1
        self.ms = 2.5

    @property
    def device(self) -> DeviceInfo:
        return DeviceInfo(0, "fake", (8, 7), 1 << 30, (12, 6))

    def put(self, what: str, work: Work) -> None:
        """Put work on the stream: run it at once, or note it in the graph being captured."""
        self._check_usable(what)
        self.threads.add(threading.get_ident())
        if self._captured is not None:
            self._captured.append(work)
            self.log.append(f"capture {what}")
        else:
            self.log.append(what)
            work()

    def malloc(self, size: int) -> int:
        return self._allocate(size, "device")

    def malloc_host(self, size: int) -> int:
        return self._allocate(size, "pinned")

    def free(self, address: int) -> None:
        self._release(address, "device")

    def free_host(self, address: int) -> None:
        self._release(address, "pinned")

    def copy_to_device(self, target: int, source: int, size: int, stream: int) -> None:
        self._copy("to device", target, source, size, stream)

    def copy_to_host(self, target: int, source: int, size: int, stream: int) -> None:
        self._copy("to host", target, source, size, stream)

    def fill_zeros(self, target: int, size: int, stream: int) -> None:
        self.put("zeros", lambda: ctypes.memset(target, 0, size) and None)

    def create_stream(self) -> int:
        return self._make("stream")

    def destroy_stream(self, stream: int) -> None:
        self._release(stream, "stream")

    def synchronize(self, stream: int) -> None:
        assert self.live[stream] == "stream"
        assert self._captured is None, "synchronising ends a capture"
        self.log.append("synchronize")

    def create_event(self, *, timing: bool = False) -> int:
        return self._make("event")

    def destroy_event(self, event: int) -> None:
        self._release(event, "event")

    def record(self, event: int, stream: int) -> None:
        self.log.append("record")

    def wait(self, stream: int, event: int) -> None:
        raise AssertionError(NO_KERNELS)

    def synchronize_event(self, event: int) -> None:
        assert self.live[event] == "event"

    def elapsed_ms(self, start: int, end: int) -> float:
        return self.ms

    def load_module(self, image: bytes) -> int:
        raise AssertionError(NO_KERNELS)

    def unload_module(self, module: int) -> None:
        raise AssertionError(NO_KERNELS)

    def get_function(self, module: int, name: str) -> int:
        raise AssertionError(NO_KERNELS)

    def launch(
        self, function: int, grid: Size3, block: Size3, stream: int, arguments: Sequence[Argument]
    ) -> None:
        raise AssertionError(NO_KERNELS)

    def begin_capture(self, stream: int) -> None:
        self._captured = []

    def end_capture(self, stream: int) -> int:
        graph = self._make("graph")
        self._graphs[graph], self._captured = self._captured or [], None
        return graph

    def instantiate(self, graph: int) -> int:
        executable = self._make("executable")
        self._graphs[executable] = self._graphs[graph]
        return executable

    def update_graph(self, executable: int, graph: int) -> bool:
        raise AssertionError(NO_KERNELS)

    def launch_graph(self, executable: int, stream: int) -> None:
        assert self.live[executable] == "executable"
        self.put("graph", lambda: [work() for work in self._graphs[executable]] and None)

    def destroy_graph(self, graph: int) -> None:
        self._release(graph, "graph")

    def destroy_executable(self, executable: int) -> None:
        self._release(executable, "executable")

    def close(self) -> None:
        self._check_usable("close")
        self.log.append("close binding")
        self._closed = True

    def _copy(self, what: str, target: int, source: int, size: int, stream: int) -> None:
        assert self.live[stream] == "stream"
        self.put(what, lambda: ctypes.memmove(target, source, size) and None)

    def _allocate(self, size: int, kind: str) -> int:
        self._check_usable("malloc")
        self._left -= size
        if self._left < 0:
            raise OutOfMemoryError("no memory left", got=size, expected="less", fix="free some")
        buffer = ctypes.create_string_buffer(b"\xff" * size, size)  # NaN where nothing was written
        address = ctypes.addressof(buffer)
        self._buffers[address], self.live[address] = buffer, kind
        return address

    def _make(self, kind: str) -> int:
        self._next += 1
        self.live[self._next] = kind
        return self._next

    def _release(self, handle: int, kind: str) -> None:
        self._check_usable("release")
        assert self.live.pop(handle) == kind
        self.log.append(f"free {kind}")


class GraphlessBinding(FakeBinding):
    """As PyCUDA is."""

    has_graphs: ClassVar[bool] = False


class DataType(Enum):
    FLOAT, HALF, INT32, INT64, INT8 = range(5)


class TensorIOMode(Enum):
    INPUT, OUTPUT = range(2)


@dataclass
class FakeContext:
    """An execution context: computes from the addresses it was given."""

    engine: FakeEngine
    binding: FakeBinding

    def __post_init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] | None = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return shape == (self.engine.batch, *self.engine.spec.input_shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.names

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.names if name not in self.addresses]

    def execute_async_v3(self, stream: int) -> bool:
        if self.engine.fails:
            return False
        self.binding.put(f"enqueue {self.engine.batch}", self._run)
        return True

    def _run(self) -> None:
        spec, batch = self.engine.spec, self.engine.batch
        self.binding.ms = self.engine.ms
        image = self._tensor(spec.input_name, spec.input_shape).astype(np.float32)
        outputs = self.engine.session.run(list(spec.output_shapes), {spec.input_name: image})
        assert len(image) == batch
        for (name, shape), value in zip(spec.output_shapes.items(), outputs, strict=True):
            self._tensor(name, shape)[:] = value

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Any:
        dtypes = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.INT64: np.int64}
        dtype = np.dtype(dtypes[self.engine.get_tensor_dtype(name)])
        size = self.engine.batch * int(np.prod(shape)) * dtype.itemsize
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.addresses[name]))
        return memory.view(dtype).reshape(self.engine.batch, *shape)


class FakeEngine:
    """An engine of one batch size: the model, run by ONNX Runtime.

    Attributes:
        changes: tensor name -> (type, shape) it states instead of its own.
        fails: whether it refuses to be enqueued.
    """

    def __init__(
        self, model: bytes, spec: NetSpec, batch: int, binding: Callable[[], FakeBinding]
    ) -> None:
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.spec, self.batch, self.binding = spec, batch, binding
        self.names = [spec.input_name, *spec.output_shapes]
        self.num_io_tensors = len(self.names)
        self.changes: dict[str, tuple[DataType, tuple[int, ...]]] = {}
        self.fails = False
        self.no_context = False
        self.ms = 2.5
        self.report: dict[str, Any] = {
            "Layers": [{"Name": "gemm", "Inputs": [{"Format/Datatype": "Float"}]}]
        }

    def create_execution_context(self) -> FakeContext | None:
        return None if self.no_context else FakeContext(self, self.binding())

    def create_engine_inspector(self) -> Any:
        text = json.dumps(self.report)
        return SimpleNamespace(get_engine_information=lambda kind: text)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == self.spec.input_name else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        own = DataType.INT64 if name == "pixel" else DataType.FLOAT
        return self.changes.get(name, (own, ()))[0]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shapes = {self.spec.input_name: self.spec.input_shape, **self.spec.output_shapes}
        own = (-1, *shapes[name])
        return self.changes.get(name, (None, own))[1]


class LayerType(Enum):
    CONVOLUTION, MATRIX_MULTIPLY, DEQUANTIZE, PLUGIN_V3, OTHER = range(5)


class FakeMonitor:
    """`IProgressMonitor`, which must be initialised."""

    def __init__(self) -> None:
        self.ready = True


class FakeLayer:
    """One node of a model, as the parser leaves it."""

    def __init__(self, node: onnx.NodeProto, plugin: bool) -> None:
        kinds = {"Conv": LayerType.CONVOLUTION, "Gemm": LayerType.MATRIX_MULTIPLY}
        kinds |= {"DequantizeLinear": LayerType.DEQUANTIZE}
        self.type = LayerType.PLUGIN_V3 if plugin else kinds.get(node.op_type, LayerType.OTHER)
        quantized = node.op_type == "DequantizeLinear"
        dtype = DataType.INT8 if quantized else DataType.FLOAT
        self.get_input = lambda i: SimpleNamespace(name=node.input[i], dtype=dtype)
        self.get_output = lambda i: SimpleNamespace(name=node.output[i], dtype=DataType.FLOAT)


class FakeNetwork:
    """What a parser fills."""

    def __init__(self) -> None:
        self.layers: list[FakeLayer] = []

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_layer(self, index: int) -> FakeLayer:
        return self.layers[index]


class FakeParser:
    """Reads ONNX as TensorRT up to 10.6 does: a local function goes before a plugin."""

    def __init__(self, network: FakeNetwork, log: Any) -> None:
        self._network, self._errors = network, ["Unsupported operator Moon"]

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> str:
        return self._errors[index]

    def parse(self, model: bytes) -> bool:
        proto = onnx.load_from_string(model)
        functions = {function.name for function in proto.functions}
        self._network.layers = [
            FakeLayer(node, bool(node.domain) and node.op_type not in functions)
            for node in proto.graph.node
        ]
        return not any(node.op_type == "Moon" for node in proto.graph.node)


class FakeTimingCache:
    """`ITimingCache`: bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data + b"+"


class FakeConfig:
    """`IBuilderConfig`: notes what it was told."""

    def __init__(self, module: FakeTensorRT) -> None:
        self._module = module
        self.limits: dict[str, int] = {}
        self.profiles: list[FakeProfile] = []
        self.timing: FakeTimingCache | None = None
        self.progress_monitor: Any = None
        self.flags = {"tf32"}

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.limits[pool] = size

    def add_optimization_profile(self, profile: FakeProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, data: bytes) -> FakeTimingCache:
        return FakeTimingCache(data)

    def set_timing_cache(self, cache: FakeTimingCache, ignore_mismatch: bool) -> bool:
        if cache.data and self._module.refuses_timing_cache and not ignore_mismatch:
            return False
        self.timing = cache
        return True

    def get_timing_cache(self) -> FakeTimingCache:
        assert self.timing is not None
        return self.timing


class FakeProfile:
    """`IOptimizationProfile`."""

    def set_shape(self, name: str, least: Any, best: Any, most: Any) -> None:
        self.name, self.shapes = name, (least, best, most)


class FakeBuilder:
    """`Builder`: an engine is its batch size, and whether a plugin is in it."""

    def __init__(self, module: FakeTensorRT) -> None:
        self._module = module
        self.flags = 0
        self.config = FakeConfig(module)

    def create_network(self, flags: int) -> FakeNetwork:
        self.flags = flags
        return FakeNetwork()

    def create_builder_config(self) -> FakeConfig:
        return self.config

    def create_optimization_profile(self) -> FakeProfile:
        return FakeProfile()

    def build_serialized_network(self, network: FakeNetwork, config: FakeConfig) -> bytes | None:
        if not self._module.builds:
            return None
        assert config.progress_monitor.ready
        config.progress_monitor.phase_start("Building", None, 1)
        config.progress_monitor.step_complete("Building", 0)
        config.progress_monitor.phase_finish("Building")
        batch = config.profiles[0].shapes[0][0]
        plugin = any(layer.type == LayerType.PLUGIN_V3 for layer in network.layers)
        return engine_bytes(batch) + (b"plugin" if plugin else b"")


class FakeTensorRT:
    """The module `tensorrt`, as far as our code goes.

    Attributes:
        engines: of what it was asked to deserialize.
        builders: that were made.
        ms: route of the gather -> how long one inference takes.
        refuses_timing_cache: whether it finds a mismatch in any it is given.
        builds: whether a build succeeds.
        change: applied to every engine that it makes.
    """

    __version__ = "10.3.0"
    DataType, TensorIOMode, LayerType = DataType, TensorIOMode, LayerType
    LayerInformationFormat = SimpleNamespace(JSON="JSON")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    BuilderFlag = SimpleNamespace(TF32="tf32")
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    HardwareCompatibilityLevel = SimpleNamespace(AMPERE_PLUS="ampere+")
    ComputeCapability = SimpleNamespace(__members__={"NONE": 0, "SM86": 86, "SM89": 89})
    IProgressMonitor = FakeMonitor
    OnnxParser = FakeParser

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal error"

    def __init__(self, model: bytes, spec: NetSpec, binding: FakeBinding) -> None:
        self._model, self._spec, self._binding = model, spec, binding
        self.engines: list[FakeEngine] = []
        self.builders: list[FakeBuilder] = []
        self.ms = {"native": 2.5, "plugin": 2.5}
        self.refuses_timing_cache = False
        self.builds = True
        self.change: Callable[[FakeEngine], object] = lambda engine: None

    def Builder(self, log: Any) -> FakeBuilder:
        self.builders.append(FakeBuilder(self))
        return self.builders[-1]

    def Runtime(self, log: Any) -> Any:
        def deserialize_cuda_engine(data: bytes) -> FakeEngine | None:
            stream = io.BytesIO(data)
            if stream.read(len(BEGINS)) != BEGINS:
                log.log("error", "magic tag does not match")
                return None
            batch = int.from_bytes(stream.read(1), "big")
            engine = FakeEngine(self._model, self._spec, batch, lambda: self._binding)
            engine.ms = self.ms["plugin" if data.endswith(b"plugin") else "native"]
            self.change(engine)
            self.engines.append(engine)
            return engine

        return SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)


def engine_bytes(batch: int) -> bytes:
    """What `FakeTensorRT` takes for an engine."""
    return BEGINS + bytes([batch]) + b"weights"


ORIN = Gpu("Orin", "sm87", "12.6")


@dataclass
class Bench:
    """A machine with a GPU, a TensorRT and a cache, none of them real but the cache."""

    artifact: Artifact
    binding: FakeBinding
    module: FakeTensorRT
    cache: EngineCache

    @property
    def trt(self) -> TensorRT:
        return TensorRT.load("tensorrt")

    def build(self, *batches: int, engine: Callable[[int], bytes] = engine_bytes) -> list[Path]:
        """Put engines for these batch sizes into the cache."""
        return [self.build_one(batch, engine(batch)) for batch in batches]

    def build_one(self, batch: int, engine: bytes, gpu: Gpu = ORIN, **options: Any) -> Path:
        sha256 = model_sha256(self.artifact, "fp32")
        header = EngineHeader(
            self.trt.key(sha256, "fp32", batch, gpu),
            BuildOptions(**options),
            hashlib.sha256(engine).hexdigest(),
            len(engine),
        )
        return self.cache.write(self.artifact, header, engine)

    def batch(self, count: int, seed: int = 0) -> Array:
        rng = np.random.default_rng(seed)
        return rng.integers(0, 256, (count, *self.artifact.spec.crop_shape), np.uint8)

    def reference(self, batch: Array) -> Any:
        return tiny.run_reference(tiny.model(self.artifact.spec), batch, self.artifact.spec)


def make_bench(
    artifact: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[FakeBinding],
    **settings: Any,
) -> Bench:
    binding: Any = None
    module = FakeTensorRT(artifact.read_model("fp32"), artifact.spec, binding)

    def open_binding() -> FakeBinding:
        opened = kind(**settings)
        module._binding = bench.binding = opened
        return opened

    bench = Bench(artifact, binding, module, EngineCache(tmp_path / "cache"))
    monkeypatch.setenv("GLNET_CACHE", str(bench.cache.root))
    monkeypatch.delenv("GLNET_PLUGIN_LIBRARY", raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt", module)  # type: ignore[arg-type]
    for where in (tensorrt_, trt):
        monkeypatch.setattr(where, "find_gpu", lambda: ORIN)
    monkeypatch.setattr(tensorrt_, "open_binding", open_binding)
    return bench
