"""The driver through NVIDIA's own cuda-bindings: the default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from glnet_rt.backends.cuda.binding import (
    Argument,
    Binding,
    DeviceInfo,
    Size3,
    driver_failed,
    no_device,
    no_driver,
    out_of_memory,
)
from glnet_rt.errors import GlnetError, MissingDependencyError

_MISSING_DRIVER = {
    "CUDA_ERROR_INSUFFICIENT_DRIVER",
    "CUDA_ERROR_STUB_LIBRARY",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
    "CUDA_ERROR_SYSTEM_NOT_READY",
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
    "CUDA_ERROR_DEVICE_UNAVAILABLE",
}
_NAME_BYTES = 256


class CudaBinding(Binding):
    """See `Binding`. Retains the primary context, which TensorRT and other libraries share."""

    name: ClassVar[str] = "cuda-bindings"
    has_graphs: ClassVar[bool] = True

    def __init__(self, driver: Any, ordinal: int) -> None:
        super().__init__()
        self._driver = driver
        self._handle: Any = None
        self._context: Any = None
        self._call("cuInit", 0)
        (count,) = self._call("cuDeviceGetCount")
        if not 0 <= ordinal < count:
            raise no_device(ordinal, count)
        (self._handle,) = self._call("cuDeviceGet", ordinal)
        self.device = self._describe(ordinal)
        (self._context,) = self._call("cuDevicePrimaryCtxRetain", self._handle)
        try:
            self._call("cuCtxPushCurrent", self._context)
        except GlnetError:
            self._call("cuDevicePrimaryCtxRelease", self._handle)
            raise

    @classmethod
    def open(cls, ordinal: int) -> CudaBinding:
        """See `binding.open_binding`."""
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise MissingDependencyError(
                "the CUDA run time needs the package cuda-bindings",
                got=str(error),
                expected="cuda-bindings >= 12.6",
                fix="pip install 'glnet-rt[cuda]' (with a CUDA 12 driver: 'glnet-rt[cuda12]')",
            ) from error
        return cls(driver, ordinal)

    def malloc(self, size: int) -> int:
        return self._number("cuMemAlloc", size)

    def free(self, address: int) -> None:
        self._call("cuMemFree", address)

    def malloc_host(self, size: int) -> int:
        return self._number("cuMemHostAlloc", size, 0)

    def free_host(self, address: int) -> None:
        self._call("cuMemFreeHost", address)

    def copy_to_device(self, target: int, source: int, size: int, stream: int) -> None:
        self._call("cuMemcpyHtoDAsync", target, source, size, stream)

    def copy_to_host(self, target: int, source: int, size: int, stream: int) -> None:
        self._call("cuMemcpyDtoHAsync", target, source, size, stream)

    def fill_zeros(self, target: int, size: int, stream: int) -> None:
        self._call("cuMemsetD8Async", target, 0, size, stream)

    def create_stream(self) -> int:
        flags = self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        return self._number("cuStreamCreate", int(flags))

    def destroy_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        self._call("cuStreamSynchronize", stream)

    def create_event(self, *, timing: bool = False) -> int:
        kinds = self._driver.CUevent_flags
        flags = kinds.CU_EVENT_DEFAULT if timing else kinds.CU_EVENT_DISABLE_TIMING
        return self._number("cuEventCreate", int(flags))

    def destroy_event(self, event: int) -> None:
        self._call("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        self._call("cuEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        self._call("cuStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        self._call("cuEventSynchronize", event)

    def elapsed_ms(self, start: int, end: int) -> float:
        (elapsed,) = self._call("cuEventElapsedTime", start, end)
        return float(elapsed)

    def load_module(self, image: bytes) -> int:
        return self._number("cuModuleLoadData", image)

    def unload_module(self, module: int) -> None:
        self._call("cuModuleUnload", module)

    def get_function(self, module: int, name: str) -> int:
        return self._number("cuModuleGetFunction", module, name.encode())

    def launch(
        self, function: int, grid: Size3, block: Size3, stream: int, arguments: Sequence[Argument]
    ) -> None:
        values = [np.array([argument]) for argument in arguments]
        pointers = np.array([value.ctypes.data for value in values], np.uint64)
        # The driver copies the arguments before it returns.
        self._call("cuLaunchKernel", function, *grid, *block, 0, stream, pointers.ctypes.data, 0)

    def begin_capture(self, stream: int) -> None:
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        return self._number("cuStreamEndCapture", stream)

    def instantiate(self, graph: int) -> int:
        return self._number("cuGraphInstantiate", graph, 0)

    def update_graph(self, executable: int, graph: int) -> bool:
        self._check_usable("cuGraphExecUpdate")
        driver = self._driver
        status, *_ = driver.cuGraphExecUpdate(executable, graph)
        if status == driver.CUresult.CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE:
            return False
        self._check(status, "cuGraphExecUpdate")
        return True

    def launch_graph(self, executable: int, stream: int) -> None:
        self._call("cuGraphLaunch", executable, stream)

    def destroy_graph(self, graph: int) -> None:
        self._call("cuGraphDestroy", graph)

    def destroy_executable(self, executable: int) -> None:
        self._call("cuGraphExecDestroy", executable)

    def close(self) -> None:
        """Let go of the context. Calling it again does nothing."""
        if self._closed:
            return
        self._call("cuCtxPopCurrent")
        self._call("cuDevicePrimaryCtxRelease", self._handle)
        self._closed = True

    def _describe(self, ordinal: int) -> DeviceInfo:
        kinds = self._driver.CUdevice_attribute
        major, minor = (
            self._call("cuDeviceGetAttribute", kind, self._handle)[0]
            for kind in (
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        (name,) = self._call("cuDeviceGetName", _NAME_BYTES, self._handle)
        (memory,) = self._call("cuDeviceTotalMem", self._handle)
        (version,) = self._call("cuDriverGetVersion")
        return DeviceInfo(
            ordinal=ordinal,
            name=name.rstrip(b"\0").decode(errors="replace"),
            compute_capability=(major, minor),
            memory_bytes=memory,
            driver_version=(version // 1000, version % 1000 // 10),
        )

    def _number(self, function: str, *arguments: Any) -> int:
        (handle,) = self._call(function, *arguments)
        return int(handle)

    def _call(self, function: str, *arguments: Any) -> tuple[Any, ...]:
        """A driver function's results, its status checked and taken off."""
        self._check_usable(function)
        try:
            status, *results = getattr(self._driver, function)(*arguments)
        except (ImportError, OSError, RuntimeError) as error:
            # What its finder raises without libcuda, and its loader for a function that is missing.
            raise no_driver(f"{function}: {error}") from error
        self._check(status, function, arguments)
        return tuple(results)

    def _check(self, status: Any, function: str, arguments: Sequence[Any] = ()) -> None:
        if status == self._driver.CUresult.CUDA_SUCCESS:
            return
        got = f"{function}: {status.name} ({int(status)})"
        if status.name in _MISSING_DRIVER:
            raise no_driver(got)
        if status.name == "CUDA_ERROR_NO_DEVICE":
            raise no_device(0, 0)
        if status.name == "CUDA_ERROR_OUT_OF_MEMORY":
            asked = f", {arguments[0]} bytes asked for" if "Alloc" in function else ""
            raise out_of_memory(function, got + asked)
        raise driver_failed(function, got)
