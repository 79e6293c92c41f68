"""The NVIDIA GPU at hand, asked of the driver itself, so that nothing need be installed to know it.

Whatever needs a GPU asks here first: libraries of NVIDIA may crash where there is no driver.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from glnet_rt.errors import BackendError

_DRIVER = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NAME_BYTES = 256
_FIX = (
    "install NVIDIA's driver and check it with nvidia-smi; in a container, start it with "
    "--gpus all (on a Jetson: --runtime nvidia)"
)


@dataclass(frozen=True)
class Gpu:
    """The first GPU that CUDA shows (CUDA_VISIBLE_DEVICES chooses which that is).

    Attributes:
        name: as the driver gives it, such as `Orin`.
        sm: compute capability, such as `sm87`.
        cuda: newest CUDA version the driver runs, such as `12.6`.
    """

    name: str
    sm: str
    cuda: str


def find_gpu() -> Gpu:
    """Start the driver and ask it.

    Raises:
        BackendError: no driver, or it finds no GPU.
    """
    driver = _load_driver()
    _call(driver, "cuInit", 0)
    device, version = ctypes.c_int(), ctypes.c_int()
    _call(driver, "cuDeviceGet", ctypes.byref(device), 0)
    _call(driver, "cuDriverGetVersion", ctypes.byref(version))
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call(driver, "cuDeviceGetName", name, _NAME_BYTES, device)
    digits = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        digits.append(str(value.value))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), "sm" + "".join(digits), cuda)


def _load_driver() -> Any:
    try:
        return ctypes.CDLL(_DRIVER)
    except OSError as error:
        raise BackendError(
            "there is no NVIDIA driver on this machine",
            got=str(error),
            expected=f"{_DRIVER}, which comes with the driver",
            fix=_FIX,
        ) from error


def _call(driver: Any, function: str, *arguments: Any) -> None:
    status = getattr(driver, function)(*arguments)
    if status:
        text = ctypes.c_char_p()
        driver.cuGetErrorName(status, ctypes.byref(text))
        known = text.value.decode() if text.value else "an unknown error"
        raise BackendError(
            "the NVIDIA driver finds no GPU that can be used",
            got=f"{function}: {known} ({status})",
            expected="CUDA_SUCCESS (0)",
            fix=_FIX,
        )
