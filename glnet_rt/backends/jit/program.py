"""A trunk as a list of operations, and the one function that runs it."""

from __future__ import annotations

import zlib
from enum import IntEnum
from pathlib import Path
from typing import Any

import numba as nb

from glnet_rt.backends.jit._code import LEVEL
from glnet_rt.backends.jit.kernels import Field, addition, convolution, image, winograd
from glnet_rt.contracts import Array


class Operation(IntEnum):
    """What an operation computes, and in which numbers."""

    DIRECT_F32 = 0
    WINOGRAD_F32 = 1
    ADD_F32 = 2
    DIRECT_LEVELS_F32 = 3
    DIRECT_LEVELS_BF16 = 4
    DIRECT_BF16 = 5
    WINOGRAD_BF16 = 6
    ADD_BF16 = 7
    IMAGE_F32 = 8
    IMAGE_BF16 = 9
    WINOGRAD_I16 = 10


_direct_f32, _direct_bf16 = convolution("f32", "f32"), convolution("bf16", "bf16")
_direct_levels_f32, _direct_levels_bf16 = convolution(LEVEL, "f32"), convolution(LEVEL, "bf16")
_winograd_f32, _winograd_bf16 = winograd("f32", "f32"), winograd("bf16", "bf16")
_winograd_i16 = winograd("i16", "f32")
_add_f32, _add_bf16 = addition("f32"), addition("bf16")
_image_f32, _image_bf16 = image("f32"), image("bf16")


_CODE = int(Field.CODE)  # numba 0.59 takes no IntEnum for an index


def _runner(sources: int) -> Any:
    """`run`, compiled once for these sources: numba keeps compiled code by this file's date alone,
    and by what a function finds around it."""

    @nb.njit(cache=True, nogil=True)
    def run(operations: Array, address: int) -> int:
        for i in range(len(operations)):
            code = operations[i, _CODE]
            at = address + 8 * i * operations.shape[1]
            if code == Operation.DIRECT_F32:
                _direct_f32(at)
            elif code == Operation.WINOGRAD_F32:
                _winograd_f32(at)
            elif code == Operation.ADD_F32:
                _add_f32(at)
            elif code == Operation.DIRECT_LEVELS_F32:
                _direct_levels_f32(at)
            elif code == Operation.DIRECT_LEVELS_BF16:
                _direct_levels_bf16(at)
            elif code == Operation.DIRECT_BF16:
                _direct_bf16(at)
            elif code == Operation.WINOGRAD_BF16:
                _winograd_bf16(at)
            elif code == Operation.ADD_BF16:
                _add_bf16(at)
            elif code == Operation.IMAGE_F32:
                _image_f32(at)
            elif code == Operation.IMAGE_BF16:
                _image_bf16(at)
            elif code == Operation.WINOGRAD_I16:
                _winograd_i16(at)
        return sources

    return run


def _digest() -> int:
    """Of the files that kernels are written in."""
    files = [Path(__file__).with_name(name) for name in ("_code.py", "kernels.py")]
    return zlib.crc32(b"".join(path.read_bytes() for path in files))


# Runs operations, one after the other: (table [N, FIELDS] int64, address of its first number).
run = _runner(_digest())
