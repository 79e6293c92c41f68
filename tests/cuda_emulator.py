"""The CUDA driver as far as a session uses it, on the CPU: for the order of calls, not for speed.

`EmulatedDriver` has the functions of `cuda.bindings.driver` with its own result codes and argument
counts. Kernels are the package's own, compiled by g++ from the very sources that go to the GPU.
Streams are as lazy as CUDA permits: work runs only when something waits for it, so that a missing
event, or a buffer used too early, shows in the results. Memory comes poisoned and between guards,
and every handle is accounted for.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest

from glnet_rt.backends.cuda.kernels import ENTRY_POINTS, SOURCES
from glnet_rt.contracts import Array
from tests.native import build_library

GUARD, GUARD_BYTE = 4096, 0xA5  # some on either side of every allocation
POISON = 0xFF  # four of them are a NaN
Operation = Callable[[], None]


class Stream:
    """Work in order; what is captured goes into a graph instead."""

    def __init__(self) -> None:
        self.todo: list[Operation] = []
        self.captured: list[Operation] | None = None

    def put(self, operation: Operation) -> None:
        (self.todo if self.captured is None else self.captured).append(operation)

    def run(self, until: Operation | None = None) -> None:
        """Run what stands here, up to and with one operation."""
        while self.todo and (until is None or until in self.todo):
            operation = self.todo.pop(0)
            operation()


class Event:
    """The operation of its last record, and the stream that will run it."""

    def __init__(self) -> None:
        self.last: tuple[Stream, Operation] | None = None

    def finish(self) -> None:
        if self.last is not None:
            stream, operation = self.last
            if operation in stream.todo:
                stream.run(operation)


@cache
def compile_all(flags: tuple[str, ...] = ()) -> dict[str, tuple[Any, list[int]]]:
    """Entry point -> its CPU launcher and the bytes of each of its arguments."""
    kernels = {}
    for source, names in ENTRY_POINTS.items():
        library = build_library(SOURCES / source, include=[SOURCES], flags=flags)
        for name in names:
            sizes = (ctypes.c_int * 16)()
            count = getattr(library, f"arguments_{name}")(sizes)
            kernels[name] = (getattr(library, f"launch_{name}"), list(sizes)[:count])
    return kernels


def launch_on_cpu(
    launcher: Any, grid: tuple[int, ...], block: tuple[int, ...], data: list[bytes], backwards: bool
) -> None:
    """Run one kernel; `data` are its arguments."""
    values = [ctypes.create_string_buffer(value, len(value)) for value in data]
    pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
    launcher((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), pointers, int(backwards))


class EmulatedDriver:
    """Stands in for the module `cuda.bindings.driver`.

    Args:
        devices: how many GPUs there are.
        fail: call number -> name of the result code it ends in, from 0.

    Attributes:
        calls: name and arguments of every call so far.
        threads: that called.
        faults: what a GPU might have forgiven: double frees, writes beyond an allocation.
    """

    def __init__(self, devices: int = 1, fail: Mapping[int, str] | None = None) -> None:
        self.real = pytest.importorskip("cuda.bindings.driver", reason="no cuda-bindings")
        self.kernels = compile_all()
        self.devices = devices
        self.fail = dict(fail or {})
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.threads: set[int] = set()
        self.faults: list[str] = []
        self.live: dict[int, Any] = {}
        self.backwards = False
        self._next = 0x1000
        self._contexts = 0

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            return getattr(self.real, name)  # enumerations
        wanted = _arity(getattr(self.real, name))
        implementation = getattr(EmulatedDriver, f"_{name}", None)
        if implementation is None:
            raise AttributeError(f"the emulator has no {name}")

        def call(*arguments: Any) -> tuple[Any, ...]:
            assert len(arguments) == wanted, f"{name} takes {wanted} arguments"
            self.calls.append((name, arguments))
            self.threads.add(threading.get_ident())
            code = self.fail.pop(len(self.calls) - 1, None)
            if code is not None:
                if name == "cuStreamEndCapture":  # a capture ends, whatever becomes of it
                    self.live[arguments[0]].captured = None
                return (getattr(self.real.CUresult, code), *[None] * 3)
            result = implementation(self, *arguments)
            if isinstance(result, self.real.CUresult):
                return (result, None)
            result = () if result is None else result if isinstance(result, tuple) else (result,)
            return (self.real.CUresult.CUDA_SUCCESS, *result)

        return call

    def names(self) -> list[str]:
        """Names of all calls, in order."""
        return [name for name, _ in self.calls]

    def leaks(self) -> list[str]:
        """What is not given back."""
        left = [f"{type(value).__name__} {handle:#x}" for handle, value in self.live.items()]
        return left + ["primary context"] * self._contexts

    def put(self, stream: int, operation: Operation) -> None:
        """Put any work on a stream, as cuLaunchHostFunc would; it can be captured."""
        self.live[stream].put(operation)

    # -- the driver's functions ------------------------------------------------------------------

    def _cuInit(self, flags: int) -> Any:
        return None if self.devices else self.real.CUresult.CUDA_ERROR_NO_DEVICE

    def _cuDeviceGetCount(self) -> int:
        return self.devices

    def _cuDeviceGet(self, ordinal: int) -> int:
        return ordinal

    def _cuDriverGetVersion(self) -> int:
        return 13000

    def _cuDeviceGetName(self, length: int, device: int) -> bytes:
        return b"Emulated GPU".ljust(length, b"\0")

    def _cuDeviceTotalMem(self, device: int) -> int:
        return 8 << 30

    def _cuDeviceGetAttribute(self, kind: Any, device: int) -> int:
        return {"MAJOR": 7, "MINOR": 5}[kind.name.rsplit("_", 1)[1]]

    def _cuDevicePrimaryCtxRetain(self, device: int) -> int:
        self._contexts += 1
        return 0xC0

    def _cuDevicePrimaryCtxRelease(self, device: int) -> None:
        self._contexts -= 1

    def _cuCtxPushCurrent(self, context: int) -> None: ...

    def _cuCtxPopCurrent(self) -> int:
        return 0xC0

    def _cuMemAlloc(self, size: int) -> Any:
        if self._capturing():
            return self.real.CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        return self._allocate(size)

    def _cuMemHostAlloc(self, size: int, flags: int) -> int:
        return self._allocate(size)

    def _cuMemFree(self, address: int) -> None:
        self._release(address)

    def _cuMemFreeHost(self, address: int) -> None:
        self._release(address)

    def _cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: int) -> None:
        self.put(stream, lambda: ctypes.memmove(target, source, size) and None)

    def _cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: int) -> None:
        self.put(stream, lambda: ctypes.memmove(target, source, size) and None)

    def _cuMemsetD8Async(self, target: int, value: int, size: int, stream: int) -> None:
        self.put(stream, lambda: ctypes.memset(target, value, size) and None)

    def _cuStreamCreate(self, flags: int) -> int:
        return self._keep(Stream())

    def _cuStreamDestroy(self, stream: int) -> None:
        self.live[stream].run()
        self._drop(stream)

    def _cuStreamSynchronize(self, stream: int) -> Any:
        if self.live[stream].captured is not None:
            return self.real.CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        self.live[stream].run()
        return None

    def _cuStreamWaitEvent(self, stream: int, event: int, flags: int) -> None:
        last = self.live[event].last
        if last is not None:
            frozen = Event()
            frozen.last = last
            self.put(stream, frozen.finish)

    def _cuEventCreate(self, flags: int) -> int:
        return self._keep(Event())

    def _cuEventDestroy(self, event: int) -> None:
        self._drop(event)

    def _cuEventRecord(self, event: int, stream: int) -> None:
        def reached() -> None: ...

        self.put(stream, reached)
        self.live[event].last = (self.live[stream], reached)

    def _cuEventSynchronize(self, event: int) -> None:
        self.live[event].finish()

    def _cuEventElapsedTime(self, start: int, end: int) -> float:
        return 1.0

    def _cuModuleLoadData(self, image: bytes) -> Any:
        if image[:4] != b"\x7fELF":
            return self.real.CUresult.CUDA_ERROR_INVALID_IMAGE
        return self._keep(bytes(image))

    def _cuModuleUnload(self, module: int) -> None:
        self._drop(module)

    def _cuModuleGetFunction(self, module: int, name: bytes) -> Any:
        if name not in self.live[module]:
            return self.real.CUresult.CUDA_ERROR_NOT_FOUND
        return id(self.kernels[name.decode()])

    def _cuLaunchKernel(self, function: int, *arguments: Any) -> None:
        *shape, shared, stream, pointers, extra = arguments
        grid, block = shape[:3], shape[3:]
        assert min(shape) >= 1
        assert np.prod(block) <= 1024
        assert shared == extra == 0
        launcher, sizes = next(k for k in self.kernels.values() if id(k) == function)
        places = (ctypes.c_void_p * len(sizes)).from_address(pointers)
        data = [ctypes.string_at(at, size) for at, size in zip(places, sizes, strict=True)]
        self.put(stream, lambda: launch_on_cpu(launcher, grid, block, data, self.backwards))

    def _cuStreamBeginCapture(self, stream: int, mode: Any) -> None:
        self.live[stream].captured = []

    def _cuStreamEndCapture(self, stream: int) -> int:
        operations = self.live[stream].captured
        self.live[stream].captured = None
        return self._keep(list(operations))

    def _cuGraphInstantiate(self, graph: int, flags: int) -> int:
        return self._keep(tuple(self.live[graph]))

    def _cuGraphExecUpdate(self, executable: int, graph: int) -> Any:
        if len(self.live[executable]) != len(self.live[graph]):
            return self.real.CUresult.CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE
        self.live[executable] = tuple(self.live[graph])
        return None

    def _cuGraphLaunch(self, executable: int, stream: int) -> None:
        operations = self.live[executable]

        def run() -> None:
            for operation in operations:
                operation()

        self.put(stream, run)

    def _cuGraphDestroy(self, graph: int) -> None:
        self._drop(graph)

    def _cuGraphExecDestroy(self, executable: int) -> None:
        self._drop(executable)

    # -- its memory and handles ------------------------------------------------------------------

    def _capturing(self) -> bool:
        streams = (value for value in self.live.values() if isinstance(value, Stream))
        return any(stream.captured is not None for stream in streams)

    def _allocate(self, size: int) -> int:
        block = np.full(size + 2 * GUARD, GUARD_BYTE, np.uint8)
        address = -(-(block.ctypes.data + GUARD // 2) // 256) * 256
        first = address - block.ctypes.data
        block[first : first + size] = POISON
        self.live[address] = Allocation(block, first, size)
        return address

    def _release(self, address: int) -> None:
        allocation = self.live.get(address)
        if isinstance(allocation, Allocation) and not allocation.is_intact():
            self.faults.append(f"something wrote beside {address:#x}")
        self._drop(address)

    def _keep(self, value: Any) -> int:
        self._next += 8
        self.live[self._next] = value
        return self._next

    def _drop(self, handle: int) -> None:
        if self.live.pop(handle, None) is None:
            self.faults.append(f"{handle:#x} was freed twice, or never made")


class Allocation:
    """Memory between two guards."""

    def __init__(self, block: Array, first: int, size: int) -> None:
        self.block, self.first, self.size = block, first, size

    def is_intact(self) -> bool:
        """Whether the guards are."""
        guards = (self.block[: self.first], self.block[self.first + self.size :])
        return all((guard == GUARD_BYTE).all() for guard in guards)


def array_at(address: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """Emulated device memory as an array."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = (ctypes.c_ubyte * size).from_address(address)
    return np.ctypeslib.as_array(data).view(dtype).reshape(shape)


def _arity(function: Any) -> int:
    """Positional arguments of a function of cuda-bindings, from its signature line."""
    signature = function.__doc__.splitlines()[0]
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    return len(inside.split(",")) if inside.strip() else 0
