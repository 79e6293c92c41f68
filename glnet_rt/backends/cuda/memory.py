"""Many arrays in one piece of memory, at addresses that never move, which captured graphs need."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glnet_rt.contracts import Array

ALIGNMENT = 256  # bytes; what cudaMalloc aligns to, and TensorRT expects of every tensor


@dataclass(frozen=True, slots=True)
class _Field:
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


class Layout:
    """Names, shapes and places of arrays, one behind the other.

    Attributes:
        size: bytes in all.
    """

    def __init__(self) -> None:
        self.size = 0
        self._fields: dict[str, _Field] = {}

    def add(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Append an array; a scalar has the shape ()."""
        kind = np.dtype(dtype)
        self._fields[name] = _Field(self.size, shape, kind)
        size = max(1, math.prod(shape) * kind.itemsize)
        self.size += -(-size // ALIGNMENT) * ALIGNMENT

    def offset(self, name: str) -> int:
        """Bytes from the beginning."""
        return self._fields[name].offset

    def nbytes(self, name: str) -> int:
        """Bytes of one array, without the gap behind it."""
        field = self._fields[name]
        return math.prod(field.shape) * field.dtype.itemsize

    def view(self, address: int, name: str) -> Array:
        """The array of that name where the layout lies at an address of the host."""
        field = self._fields[name]
        size = self.nbytes(name)
        data = (ctypes.c_ubyte * size).from_address(address + field.offset)
        return np.ctypeslib.as_array(data).view(field.dtype).reshape(field.shape)
