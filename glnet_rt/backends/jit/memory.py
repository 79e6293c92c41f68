"""Memory by address."""

from __future__ import annotations

import numpy as np

from glnet_rt.contracts import Array

ALIGNED = 64  # bytes, a vector


class Arena:
    """Zeroed memory that is handed out piece by piece, by address."""

    def __init__(self, size: int) -> None:
        whole = np.zeros(size + ALIGNED, np.uint8)
        start = -whole.ctypes.data % ALIGNED
        self._bytes = whole[start : start + size]
        self.address = self._bytes.ctypes.data

    def write(self, offset: int, array: Array) -> None:
        """Copy an array to an offset."""
        raw = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        self._bytes[offset : offset + raw.size] = raw

    def array(self, offset: int, shape: tuple[int, ...], dtype: type) -> Array:
        """What lies at an offset, not copied."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._bytes[offset : offset + size].view(dtype).reshape(shape)


def aligned(size: int) -> int:
    """Rounded up to whole vectors."""
    return -(-size // ALIGNED) * ALIGNED
