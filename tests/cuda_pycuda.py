"""`pycuda.driver` as far as the binding uses it, over the emulated driver.

Names and arguments are those of PyCUDA 2026.1's own wrapper; only the calls beneath are emulated.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.cuda_emulator import EmulatedDriver, array_at


class Error(Exception): ...


class LogicError(Error): ...


class MemoryError(Error): ...


class EmulatedPycuda:
    """Stands in for the module `pycuda.driver`."""

    Error, LogicError, MemoryError = Error, LogicError, MemoryError
    event_flags = SimpleNamespace(DISABLE_TIMING=2)

    def __init__(self, driver: EmulatedDriver) -> None:
        self.cuda = driver
        call = self.call

        class Stream:
            def __init__(self, flags: int = 0) -> None:
                self.handle = call("cuStreamCreate", flags)

            def synchronize(self) -> None:
                call("cuStreamSynchronize", self.handle)

            def wait_for_event(self, event: Any) -> None:
                call("cuStreamWaitEvent", self.handle, event.handle, 0)

            def __del__(self) -> None:
                call("cuStreamDestroy", self.handle)

        class Event:
            def __init__(self, flags: int = 0) -> None:
                self.handle = call("cuEventCreate", flags)

            def record(self, stream: Stream) -> None:
                call("cuEventRecord", self.handle, stream.handle)

            def synchronize(self) -> None:
                call("cuEventSynchronize", self.handle)

            def time_since(self, start: Event) -> float:
                return float(call("cuEventElapsedTime", start.handle, self.handle))

            def __del__(self) -> None:
                call("cuEventDestroy", self.handle)

        self.Stream, self.Event, self.Device = Stream, Event, self._device_class()

    def call(self, name: str, *arguments: Any) -> Any:
        """One driver call; PyCUDA raises where it fails."""
        status, *results = getattr(self.cuda, name)(*arguments)
        if status.name == "CUDA_ERROR_OUT_OF_MEMORY":
            raise MemoryError(f"{name} failed: out of memory")
        if status.name == "CUDA_ERROR_NO_DEVICE":
            raise LogicError(f"{name} failed: no CUDA-capable device is detected")
        if int(status):
            raise LogicError(f"{name} failed: {status.name}")
        return results[0] if results else None

    def init(self, flags: int = 0) -> None:
        self.call("cuInit", flags)

    def get_driver_version(self) -> int:
        return int(self.call("cuDriverGetVersion"))

    def mem_alloc(self, size: int) -> Any:
        return DeviceAllocation(self, self.call("cuMemAlloc", size))

    def pagelocked_empty(self, shape: int, dtype: Any) -> Any:
        address = self.call("cuMemHostAlloc", shape, 0)

        class PagelockedArray(np.ndarray):  # its base is the allocation, as PyCUDA's is
            @property
            def base(inner) -> Any:
                return SimpleNamespace(free=lambda: self.call("cuMemFreeHost", address))

        return array_at(address, (shape,), dtype).view(PagelockedArray)

    def memcpy_htod_async(self, target: int, source: Any, stream: Any) -> None:
        size = len(source)
        self.call("cuMemcpyHtoDAsync", target, ctypes.addressof(source), size, stream.handle)

    def memcpy_dtoh_async(self, target: Any, source: int, stream: Any) -> None:
        size = len(target)
        self.call("cuMemcpyDtoHAsync", ctypes.addressof(target), source, size, stream.handle)

    def memset_d8_async(self, target: int, value: int, count: int, stream: Any) -> None:
        self.call("cuMemsetD8Async", target, value, count, stream.handle)

    def module_from_buffer(self, image: bytes) -> Any:
        return Module(self, self.call("cuModuleLoadData", image))

    def _device_class(self) -> Any:
        call = self.call

        class Context:
            def push(self) -> None:
                call("cuCtxPushCurrent", 0xC0)

            def pop(self) -> None:
                call("cuCtxPopCurrent")

            def detach(self) -> None:
                call("cuDevicePrimaryCtxRelease", 0)

        class Device:
            def __init__(self, ordinal: int) -> None:
                self.ordinal = ordinal

            @staticmethod
            def count() -> int:
                return int(call("cuDeviceGetCount"))

            def name(self) -> str:
                return "Emulated GPU"

            def compute_capability(self) -> tuple[int, int]:
                return 7, 5

            def total_memory(self) -> int:
                return int(call("cuDeviceTotalMem", self.ordinal))

            def retain_primary_context(self) -> Context:
                call("cuDevicePrimaryCtxRetain", self.ordinal)
                return Context()

        return Device


class DeviceAllocation:
    """An address that is freed by hand."""

    def __init__(self, driver: EmulatedPycuda, address: int) -> None:
        self._driver, self._address = driver, address

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        self._driver.call("cuMemFree", self._address)


class Module:
    """Unloaded with its last reference; its functions hold one."""

    def __init__(self, driver: EmulatedPycuda, handle: int) -> None:
        self.driver, self.handle = driver, handle

    def get_function(self, name: str) -> Any:
        function = self.driver.call("cuModuleGetFunction", self.handle, name.encode())

        def launch(*arguments: np.generic, grid: Any, block: Any, stream: Any) -> None:
            values = [np.array([argument]) for argument in arguments]
            pointers = np.array([value.ctypes.data for value in values], np.uint64)
            address = pointers.ctypes.data
            self.driver.call(
                "cuLaunchKernel", function, *grid, *block, 0, stream.handle, address, 0
            )

        return launch

    def __del__(self) -> None:
        self.driver.call("cuModuleUnload", self.handle)
