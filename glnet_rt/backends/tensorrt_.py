"""TensorRT on an NVIDIA GPU: one engine, execution context and CUDA graph for each batch size.

Engines are built beforehand by `python -m export.build_engine`, never here: that takes minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

from glnet_rt._closing import Closing
from glnet_rt.artifact import Artifact
from glnet_rt.backends.base import check_names, session_closed
from glnet_rt.backends.cuda.binding import Binding, open_binding
from glnet_rt.backends.cuda.host_session import HostSession
from glnet_rt.backends.device import find_gpu
from glnet_rt.backends.gather_plugin import find_plugin, load_plugin
from glnet_rt.backends.trt import TensorRT
from glnet_rt.contracts import Array
from glnet_rt.crop import normalise
from glnet_rt.engine_cache import BUCKETS, EngineCache, EngineFile, model_sha256
from glnet_rt.errors import ArtifactError, BackendError
from glnet_rt.spec import NetSpec

# The fastest that keeps the bodies first; packed weights are float32 once an engine is built.
PRECISIONS = ("fp16", "fp32", "int8", "fp8", "packed")
_EXPORT_AGAIN = "export the artifact again with this version of glnet-rt, and build its engines"


class TensorRTBackend(Closing):
    """An artifact's engines, run by plain TensorRT.

    Several threads may call `infer`; they take turns, since a thread of its own owns the device.
    """

    name: ClassVar[str] = "tensorrt"
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    concurrent: ClassVar[bool] = False

    def __init__(
        self, thread: ThreadPoolExecutor, session: HostSession, spec: NetSpec, precision: str
    ) -> None:
        self._thread = thread
        self._session: HostSession | None = session
        self._spec = spec
        self.precision = precision

    @classmethod
    def open(
        cls, artifact: Artifact, precision: str, *, threads: int | None = None
    ) -> TensorRTBackend:
        """Open a session; see `Backend.open`. `threads` means nothing to a GPU."""
        find_gpu()  # the first thing that is missing where there is none
        trt, cache = TensorRT.load(cls.name), EngineCache()
        find_engines(artifact, precision, trt, cache)

        def open_session() -> HostSession:
            return HostSession(
                open_binding(),
                lambda binding: open_stage(artifact, precision, trt, cache),
                artifact.spec,
            )

        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="glnet-device")
        try:
            return cls(thread, thread.submit(open_session).result(), artifact.spec, precision)
        except BaseException:
            thread.shutdown()
            raise

    def infer(self, crops: Array) -> Mapping[str, Array]:
        """[B, S, S, 3] uint8 -> name -> array; see `Backend.infer`."""
        session = self._session
        if session is None:
            raise session_closed(self.name)
        return self._thread.submit(session.infer, normalise(crops, self._spec)).result()

    def close(self) -> None:
        """Free the session and end its thread. Calling it again does nothing."""
        session, self._session = self._session, None
        if session is not None:
            self._thread.submit(session.close).result()
            self._thread.shutdown()


class TensorRTRtxBackend(TensorRTBackend):
    """The same by TensorRT for RTX, whose engines may be built on another machine."""

    name: ClassVar[str] = "tensorrt-rtx"


class TensorRTStage(Closing):
    """The network as work on a stream; `glnet_rt.backends.cuda.stage` states the promise.

    Args:
        engines: bucket -> an engine of that batch size.
        spec: of the network.
        trt: that the engines are of.

    Raises:
        ArtifactError: an engine has other tensors than the spec.
        BackendError: there is no memory for an execution context.
    """

    def __init__(self, engines: Mapping[int, Any], spec: NetSpec, trt: TensorRT) -> None:
        self._spec, self._trt = spec, trt
        self._engines = dict(sorted(engines.items()))
        for bucket, engine in self._engines.items():
            _check_signature(engine, spec, bucket, trt)
        self._contexts = {
            bucket: self._open_context(bucket, engine) for bucket, engine in self._engines.items()
        }

    @property
    def buckets(self) -> tuple[int, ...]:
        """Batch sizes that there is an engine for, ascending."""
        return tuple(self._engines)

    @property
    def half_input(self) -> bool:
        """Whether the input is float16."""
        return any(
            engine.get_tensor_dtype(self._spec.input_name) == self._trt.module.DataType.HALF
            for engine in self._engines.values()
        )

    def bind(self, bucket: int, addresses: Mapping[str, int]) -> None:
        """Fix the device addresses of a bucket's input and outputs."""
        context, name = self._contexts[bucket], self._spec.input_name
        taken = context.set_input_shape(name, (bucket, *self._spec.input_shape))
        taken = all(
            [taken, *(context.set_tensor_address(n, address) for n, address in addresses.items())]
        )
        missing = context.infer_shapes() if taken else ["an address or the input's shape"]
        if missing:
            raise BackendError(
                f"TensorRT refuses the tensors of batch {bucket}",
                got=f"{', '.join(missing)} not taken; {self._trt.heard()}",
                expected=f"an address for each of {', '.join([name, *self._spec.output_shapes])}",
                fix=_EXPORT_AGAIN,
            )

    def enqueue(self, bucket: int, stream: int) -> None:
        """Put one inference on a stream; it may be under capture."""
        context = self._contexts[bucket]
        if not context.execute_async_v3(stream):
            raise BackendError(
                f"TensorRT failed to enqueue batch {bucket}",
                got=self._trt.heard(),
                expected="the inference on the stream",
                fix="close other programs that use the GPU; `glnet-rt verify` shows if it helped",
            )

    def close(self) -> None:
        """Free contexts, then engines. Calling it again does nothing."""
        self._contexts.clear()
        self._engines.clear()

    def _open_context(self, bucket: int, engine: Any) -> Any:
        context = engine.create_execution_context()
        if context is None:
            raise BackendError(
                f"TensorRT cannot make an execution context for batch {bucket}",
                got=self._trt.heard(),
                expected="enough GPU memory for its activations",
                fix="close other programs that use the GPU, or build for fewer batch sizes",
            )
        return context


def find_engines(
    artifact: Artifact, precision: str, trt: TensorRT, cache: EngineCache
) -> dict[int, EngineFile]:
    """Batch size -> the engine that fits this machine; nothing is loaded yet.

    Raises:
        BackendError: there is no driver or GPU.
        EngineError: none was built, or one is damaged or was built for something else.
    """
    here = trt.key(model_sha256(artifact, precision), precision, 1, find_gpu())
    plugin = find_plugin()
    here = replace(here, plugin_sha256=plugin.sha256 if plugin else "")
    found = {bucket: cache.find(artifact, replace(here, batch=bucket)) for bucket in BUCKETS}
    files = {bucket: file for bucket, file in found.items() if file is not None}
    if not files:
        raise cache.missing(artifact, here)
    return files


def open_stage(
    artifact: Artifact, precision: str, trt: TensorRT, cache: EngineCache
) -> TensorRTStage:
    """Find, check and load the engines of an artifact, with the GPU's context current.

    Raises:
        BackendError, EngineError, ArtifactError: as `find_engines` and `TensorRTStage` say.
    """
    files = find_engines(artifact, precision, trt, cache)
    if any(file.header.options.gather == "plugin" for file in files.values()):
        load_plugin(trt.module)
    engines = {
        bucket: trt.deserialize(file.read(), str(file.path), file.rebuild)
        for bucket, file in files.items()
    }
    return TensorRTStage(engines, artifact.spec, trt)


def _check_signature(engine: Any, spec: NetSpec, bucket: int, trt: TensorRT) -> None:
    """An engine's tensors have the names, types and shapes of the spec.

    Raises:
        ArtifactError: one has not.
    """
    module = trt.module
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = {n for n in names if engine.get_tensor_mode(n) == module.TensorIOMode.INPUT}
    check_names("inputs", inputs, {spec.input_name})
    check_names("outputs", set(names) - inputs, set(spec.output_shapes))
    dtypes: dict[str, tuple[Any, ...]] = dict.fromkeys(spec.output_shapes, (module.DataType.FLOAT,))
    dtypes |= {
        "pixel": (module.DataType.INT64,),
        spec.input_name: (module.DataType.FLOAT, module.DataType.HALF),
    }
    for name, shape in {spec.input_name: spec.input_shape, **spec.output_shapes}.items():
        dtype, stated = engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name))
        fits = len(stated) == len(shape) + 1 and all(
            n in (-1, m) for n, m in zip(stated, (bucket, *shape), strict=True)
        )
        if dtype not in dtypes[name] or not fits:
            raise ArtifactError(
                f"the engine's tensor {name} is another than the manifest's spec states",
                got=f"{dtype.name} {list(stated)}",
                expected=f"{' or '.join(kind.name for kind in dtypes[name])} {[bucket, *shape]}",
                fix=_EXPORT_AGAIN,
            )


def measure_ms(trt: TensorRT, engine: Any, spec: NetSpec, batch: int) -> float:
    """Median milliseconds of one inference of an engine, on this thread's GPU.

    Raises:
        MissingDependencyError: there is no CUDA binding.
        BackendError: it cannot run.
    """

    def stage(binding: Binding) -> TensorRTStage:
        return TensorRTStage({batch: engine}, spec, trt)

    with HostSession(open_binding(), stage, spec) as session:
        return session.time_ms(batch)
