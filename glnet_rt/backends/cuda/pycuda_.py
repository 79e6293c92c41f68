"""The driver through PyCUDA, for programs that use it already. It has no graphs.

The primary context is retained, never `pycuda.autoinit`'s own, so that TensorRT shares it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NoReturn

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
from glnet_rt.errors import BackendError, MissingDependencyError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which PyCUDA does not name


class PycudaBinding(Binding):
    """See `Binding`. PyCUDA's objects are kept here, each under the number that stands for it."""

    name: ClassVar[str] = "pycuda"
    has_graphs: ClassVar[bool] = False

    def __init__(self, driver: Any, ordinal: int) -> None:
        super().__init__()
        self._driver = driver
        self._objects: dict[int, Any] = {}
        with self._guard("cuInit"):
            driver.init()
            count = driver.Device.count()
        if not 0 <= ordinal < count:
            raise no_device(ordinal, count)
        with self._guard("cuDevicePrimaryCtxRetain"):
            self.device = self._describe(ordinal)
            self._context = driver.Device(ordinal).retain_primary_context()
            self._context.push()

    @classmethod
    def open(cls, ordinal: int) -> PycudaBinding:
        """See `binding.open_binding`."""
        try:
            import pycuda.driver as driver
        except ImportError as error:
            if "libcuda" in str(error):
                raise no_driver(error) from error
            raise MissingDependencyError(
                "the pycuda binding needs the package pycuda",
                got=str(error),
                expected="pycuda >= 2024.1",
                fix="pip install 'glnet-rt[pycuda]', which compiles it and needs the CUDA toolkit",
            ) from error
        return cls(driver, ordinal)

    def malloc(self, size: int) -> int:
        with self._guard("cuMemAlloc", size):
            allocation = self._driver.mem_alloc(size)
        return self._keep(int(allocation), allocation)

    def free(self, address: int) -> None:
        with self._guard("cuMemFree"):
            self._objects.pop(address).free()

    def malloc_host(self, size: int) -> int:
        with self._guard("cuMemHostAlloc", size):
            array = self._driver.pagelocked_empty(size, np.uint8)
        return self._keep(array.ctypes.data, array)

    def free_host(self, address: int) -> None:
        with self._guard("cuMemFreeHost"):
            self._objects.pop(address).base.free()

    def copy_to_device(self, target: int, source: int, size: int, stream: int) -> None:
        with self._guard("cuMemcpyHtoDAsync"):
            view = (ctypes.c_ubyte * size).from_address(source)
            self._driver.memcpy_htod_async(target, view, self._objects[stream])

    def copy_to_host(self, target: int, source: int, size: int, stream: int) -> None:
        with self._guard("cuMemcpyDtoHAsync"):
            view = (ctypes.c_ubyte * size).from_address(target)
            self._driver.memcpy_dtoh_async(view, source, self._objects[stream])

    def fill_zeros(self, target: int, size: int, stream: int) -> None:
        with self._guard("cuMemsetD8Async"):
            self._driver.memset_d8_async(target, 0, size, self._objects[stream])

    def create_stream(self) -> int:
        with self._guard("cuStreamCreate"):
            stream = self._driver.Stream(_NON_BLOCKING)
        return self._keep(int(stream.handle), stream)

    def destroy_stream(self, stream: int) -> None:
        self._drop("cuStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        with self._guard("cuStreamSynchronize"):
            self._objects[stream].synchronize()

    def create_event(self, *, timing: bool = False) -> int:
        kinds = self._driver.event_flags
        with self._guard("cuEventCreate"):
            event = self._driver.Event(0 if timing else int(kinds.DISABLE_TIMING))
        return self._keep(id(event), event)

    def destroy_event(self, event: int) -> None:
        self._drop("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        with self._guard("cuEventRecord"):
            self._objects[event].record(self._objects[stream])

    def wait(self, stream: int, event: int) -> None:
        with self._guard("cuStreamWaitEvent"):
            self._objects[stream].wait_for_event(self._objects[event])

    def synchronize_event(self, event: int) -> None:
        with self._guard("cuEventSynchronize"):
            self._objects[event].synchronize()

    def elapsed_ms(self, start: int, end: int) -> float:
        with self._guard("cuEventElapsedTime"):
            return float(self._objects[end].time_since(self._objects[start]))

    def load_module(self, image: bytes) -> int:
        with self._guard("cuModuleLoadData"):
            module = self._driver.module_from_buffer(image)
        return self._keep(id(module), module)

    def unload_module(self, module: int) -> None:
        self._drop("cuModuleUnload", module)

    def get_function(self, module: int, name: str) -> int:
        with self._guard("cuModuleGetFunction"):
            function = self._objects[module].get_function(name)
        return self._keep(id(function), function)

    def launch(
        self, function: int, grid: Size3, block: Size3, stream: int, arguments: Sequence[Argument]
    ) -> None:
        with self._guard("cuLaunchKernel"):
            call, on = self._objects[function], self._objects[stream]
            call(*arguments, grid=grid, block=block, stream=on)

    def begin_capture(self, stream: int) -> None:
        self._no_graphs("begin_capture")

    def end_capture(self, stream: int) -> int:
        self._no_graphs("end_capture")

    def instantiate(self, graph: int) -> int:
        self._no_graphs("instantiate")

    def update_graph(self, executable: int, graph: int) -> bool:
        self._no_graphs("update_graph")

    def launch_graph(self, executable: int, stream: int) -> None:
        self._no_graphs("launch_graph")

    def destroy_graph(self, graph: int) -> None:
        self._no_graphs("destroy_graph")

    def destroy_executable(self, executable: int) -> None:
        self._no_graphs("destroy_executable")

    def close(self) -> None:
        """Let go of the context. Calling it again does nothing."""
        if self._closed:
            return
        with self._guard("cuDevicePrimaryCtxRelease"):
            self._objects.clear()  # functions among them, which no call destroys
            self._context.pop()
            self._context.detach()
        self._closed = True

    def _describe(self, ordinal: int) -> DeviceInfo:
        device = self._driver.Device(ordinal)
        version = self._driver.get_driver_version()
        return DeviceInfo(
            ordinal=ordinal,
            name=device.name(),
            compute_capability=tuple(device.compute_capability()),
            memory_bytes=device.total_memory(),
            driver_version=(version // 1000, version % 1000 // 10),
        )

    def _keep(self, handle: int, value: Any) -> int:
        self._objects[handle] = value
        return handle

    def _drop(self, action: str, handle: int) -> None:
        with self._guard(action):
            del self._objects[handle]  # PyCUDA destroys it with its last reference

    def _no_graphs(self, action: str) -> NoReturn:
        raise BackendError(
            "the pycuda binding has no CUDA graphs",
            got=action,
            expected="`has_graphs` to be asked first",
            fix="use the binding cuda-bindings: pip install 'glnet-rt[cuda]'",
        )

    @contextmanager
    def _guard(self, action: str, size: int | None = None) -> Iterator[None]:
        """Check the thread, and turn PyCUDA's errors into ours."""
        self._check_usable(action)
        try:
            yield
        except self._driver.MemoryError as error:
            asked = "" if size is None else f", {size} bytes asked for"
            raise out_of_memory(action, f"{error}{asked}") from error
        except self._driver.Error as error:
            if "no CUDA-capable device" in str(error):
                raise no_device(0, 0) from error
            if action == "cuInit":
                raise no_driver(error) from error
            raise driver_failed(action, error) from error
