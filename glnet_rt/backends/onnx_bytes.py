"""The little of an ONNX file that building an engine must read or drop, without the onnx package.

An ONNX file is one protobuf message: fields, each a number with a wire type, then its value. Only
fields of the outer levels are walked; weights are skipped over, never parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from glnet_rt.errors import ArtifactError

_GRAPH, _FUNCTIONS = 7, 25  # of ModelProto
_NODE = 1  # of GraphProto
_OP_TYPE = 4  # of NodeProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


@dataclass(frozen=True)
class _Field:
    """One field of a message: all of it is [start, end), its value [value, end)."""

    number: int
    wire: int
    start: int
    value: int
    end: int


def without_functions(model: bytes) -> bytes:
    """The same model without its local functions, so that only a plugin can be what they name.

    Raises:
        ArtifactError: the bytes are no ONNX model.
    """
    view = memoryview(model)
    kept = [view[f.start : f.end] for f in _fields(view) if f.number != _FUNCTIONS]
    return b"".join(kept)


def op_types(model: bytes) -> set[str]:
    """Operators that the model's main graph uses.

    Raises:
        ArtifactError: the bytes are no ONNX model.
    """
    view = memoryview(model)
    return {
        bytes(op_type).decode(errors="replace")
        for graph in _values(view, _GRAPH)
        for node in _values(graph, _NODE)
        for op_type in _values(node, _OP_TYPE)
    }


def _values(view: memoryview, number: int) -> Iterator[memoryview]:
    """The values of every field of one number that holds bytes."""
    for field in _fields(view):
        if field.number == number and field.wire == _BYTES:
            yield view[field.value : field.end]


def _fields(view: memoryview) -> Iterator[_Field]:
    """The fields of one message, in order."""
    position = 0
    while position < len(view):
        tag, value = _varint(view, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _, end = _varint(view, value)
        elif wire == _BYTES:
            size, value = _varint(view, value)
            end = value + size
        elif wire in _FIXED_SIZES:
            end = value + _FIXED_SIZES[wire]
        else:
            raise _broken(f"wire type {wire} at byte {position}")
        if end > len(view):
            raise _broken(f"a field that ends at byte {end} of {len(view)}")
        yield _Field(number, wire, position, value, end)
        position = end


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    number = shift = 0
    while True:
        if position >= len(view) or shift > 63:
            raise _broken(f"a number that does not end by byte {position}")
        byte = view[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return number, position


def _broken(got: str) -> ArtifactError:
    return ArtifactError(
        "the model is no ONNX file",
        got=got,
        expected="a protobuf message",
        fix="export the artifact again with this version of glnet-rt",
    )
