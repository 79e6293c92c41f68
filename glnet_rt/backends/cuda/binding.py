"""The few things asked of the CUDA driver, behind one protocol, and the errors they end in.

Addresses and handles are plain numbers, so that a session, TensorRT and either library agree on
them. A binding belongs to the thread that opened it: the device's primary context is current there
and nowhere else, and a call from another thread is refused.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

import numpy as np

from glnet_rt._closing import Closing
from glnet_rt.errors import BackendError, ContractError, MissingDependencyError

Size3 = tuple[int, int, int]
# Kernel arguments carry their type: numpy.uint64 for addresses, numpy.int32 and so on.
Argument = np.generic


class NoDriverError(MissingDependencyError):
    """The NVIDIA driver is not installed, or too old for the library that asked for it."""


class NoDeviceError(BackendError):
    """The driver is there and finds no GPU, or not the one asked for."""


class OutOfMemoryError(BackendError):
    """The device, or the memory that can be pinned, is used up."""


class WrongThreadError(BackendError):
    """A binding was called from a thread other than the one that opened it, or after its close."""


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One GPU.

    Attributes:
        ordinal: among those CUDA_VISIBLE_DEVICES shows, from 0.
        name: as the driver gives it.
        compute_capability: (major, minor).
        memory_bytes: of the device, in all.
        driver_version: newest CUDA the driver runs, (major, minor).
    """

    ordinal: int
    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    driver_version: tuple[int, int]

    @property
    def arch(self) -> str:
        """What `nvrtc.compile_cubin` calls it, such as `sm_87`."""
        major, minor = self.compute_capability
        return f"sm_{major}{minor}"


class Binding(Closing):
    """One device's driver calls. `open_binding` makes one.

    Every method raises WrongThreadError off its thread, OutOfMemoryError, or BackendError with the
    driver's own code. Work put on a stream may report an earlier kernel's failure.

    Attributes:
        name: of the library behind it.
        has_graphs: whether stream capture and graphs can be used.
        device: the GPU this is bound to.
    """

    name: ClassVar[str]
    has_graphs: ClassVar[bool]
    device: DeviceInfo

    def __init__(self) -> None:
        self._owner = threading.get_ident()
        self._closed = False

    @abstractmethod
    def malloc(self, size: int) -> int:
        """Address of `size` bytes on the device, aligned to 256."""

    @abstractmethod
    def free(self, address: int) -> None: ...

    @abstractmethod
    def malloc_host(self, size: int) -> int:
        """Address of `size` bytes of pinned memory on the host."""

    @abstractmethod
    def free_host(self, address: int) -> None: ...

    @abstractmethod
    def copy_to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Pinned host -> device, in stream order."""

    @abstractmethod
    def copy_to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Device -> pinned host, in stream order."""

    @abstractmethod
    def fill_zeros(self, target: int, size: int, stream: int) -> None: ...

    @abstractmethod
    def create_stream(self) -> int:
        """A stream that does not wait for the legacy default stream."""

    @abstractmethod
    def destroy_stream(self, stream: int) -> None: ...

    @abstractmethod
    def synchronize(self, stream: int) -> None:
        """Wait until all work on the stream is done."""

    @abstractmethod
    def create_event(self, *, timing: bool = False) -> int: ...

    @abstractmethod
    def destroy_event(self, event: int) -> None: ...

    @abstractmethod
    def record(self, event: int, stream: int) -> None: ...

    @abstractmethod
    def wait(self, stream: int, event: int) -> None:
        """Let later work on the stream wait for the event's last record; never recorded is done."""

    @abstractmethod
    def synchronize_event(self, event: int) -> None: ...

    @abstractmethod
    def elapsed_ms(self, start: int, end: int) -> float:
        """Between two recorded timing events that are done."""

    @abstractmethod
    def load_module(self, image: bytes) -> int:
        """A cubin, or PTX with its zero byte."""

    @abstractmethod
    def unload_module(self, module: int) -> None: ...

    @abstractmethod
    def get_function(self, module: int, name: str) -> int: ...

    @abstractmethod
    def launch(
        self, function: int, grid: Size3, block: Size3, stream: int, arguments: Sequence[Argument]
    ) -> None: ...

    @abstractmethod
    def begin_capture(self, stream: int) -> None:
        """From here on work on the stream goes into a graph; other threads are not restricted."""

    @abstractmethod
    def end_capture(self, stream: int) -> int:
        """The graph."""

    @abstractmethod
    def instantiate(self, graph: int) -> int:
        """An executable graph; `graph` may be destroyed afterwards."""

    @abstractmethod
    def update_graph(self, executable: int, graph: int) -> bool:
        """Take over the parameters of a graph of the same shape; False where its shape differs."""

    @abstractmethod
    def launch_graph(self, executable: int, stream: int) -> None: ...

    @abstractmethod
    def destroy_graph(self, graph: int) -> None: ...

    @abstractmethod
    def destroy_executable(self, executable: int) -> None: ...

    def _check_usable(self, action: str) -> None:
        if self._closed:
            raise WrongThreadError(
                f"the {self.name} binding is closed",
                got=f"{action} after close()",
                expected="an open binding",
                fix="open a session anew",
            )
        if threading.get_ident() != self._owner:
            raise WrongThreadError(
                f"the {self.name} binding was called from a thread that does not own the device",
                got=f"{action} in thread {threading.current_thread().name}",
                expected="the thread that opened it",
                fix="hand the work to the session, which runs it on its own thread",
            )


def _open_cuda_bindings(ordinal: int) -> Binding:
    module = import_module("glnet_rt.backends.cuda.cuda_bindings_")
    return module.CudaBinding.open(ordinal)


def _open_pycuda(ordinal: int) -> Binding:
    module = import_module("glnet_rt.backends.cuda.pycuda_")
    return module.PycudaBinding.open(ordinal)


_OPEN: dict[str, Callable[[int], Binding]] = {
    "cuda-bindings": _open_cuda_bindings,
    "pycuda": _open_pycuda,
}


def open_binding(name: str = "cuda-bindings", ordinal: int = 0) -> Binding:
    """Bind the calling thread to a device; a name never falls back to the other.

    Args:
        name: `cuda-bindings`, or `pycuda`, which has no graphs.
        ordinal: of the device, from 0.

    Raises:
        ContractError: an unknown name.
        MissingDependencyError: the library is not installed; the fix is a pip command.
        NoDriverError: no usable driver.
        NoDeviceError: no such device.
        BackendError: the device cannot be used.
    """
    if name not in _OPEN:
        raise ContractError(
            "there is no such CUDA binding", got=repr(name), expected=", ".join(_OPEN)
        )
    return _OPEN[name](ordinal)


def no_driver(got: object) -> NoDriverError:
    """The error for a driver that is missing or too old."""
    return NoDriverError(
        "the NVIDIA driver cannot be used",
        got=got,
        expected="libcuda.so.1 of the driver, new enough for the CUDA library in use",
        fix="install NVIDIA's driver and check it with nvidia-smi; in a container, start it with "
        "--gpus all (on a Jetson: --runtime nvidia); with a CUDA 12 driver use 'glnet-rt[cuda12]'",
    )


def no_device(ordinal: int, count: int) -> NoDeviceError:
    """The error for an ordinal beyond the devices there are."""
    return NoDeviceError(
        "there is no such CUDA device",
        got=f"device {ordinal} of {count}",
        expected=f"a number below {count}" if count else "at least one GPU",
        fix="check nvidia-smi and CUDA_VISIBLE_DEVICES",
    )


def out_of_memory(action: str, got: object) -> OutOfMemoryError:
    """The error for memory used up."""
    return OutOfMemoryError(
        f"{action} found no memory left",
        got=got,
        expected="enough free memory on the device, and enough that may be pinned",
        fix="close other programs on this GPU, or open the session with smaller buckets, fewer "
        "slots or a smaller frame",
    )


def driver_failed(action: str, got: object) -> BackendError:
    """The error for any other failure."""
    return BackendError(
        f"CUDA failed at {action}",
        got=got,
        expected="success",
        fix="after a failed kernel the process must be started anew; run `glnet-rt doctor`",
    )
