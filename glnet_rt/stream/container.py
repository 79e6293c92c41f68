"""How much of a video file is there: what its container announces against what the disk holds.

A frame count in a header proves little: edit lists, repeated frames and guesses from the duration
all make it differ from the frames that come out of a file in perfect health. The sizes that the
container states for its own top-level boxes prove a cut file to the byte.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

Kind = Literal["riff", "iso", "matroska", "other"]

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_ISO_FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp")


@dataclass(frozen=True)
class Container:
    """What a look at the file's outermost structure tells.

    Attributes:
        kind: `riff` (AVI), `iso` (MP4, MOV), `matroska` (MKV, WebM) or `other`.
        missing_bytes: announced but not in the file; 0 also where the container does not say.
    """

    kind: Kind
    missing_bytes: int

    @property
    def counts_frames(self) -> bool:
        """Whether the header lists its frames. Elsewhere a count is a guess from the duration."""
        return self.kind in ("riff", "iso")


def inspect(path: str | Path) -> Container:
    """Read a few headers of `path`; the frames themselves are not touched."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF":
            return Container("riff", max(0, _end_of_riff(file) - size))
        if head[4:8] in _ISO_FIRST:
            return Container("iso", max(0, _end_of_iso(file, size) - size))
        if head[:4] == _EBML:
            return Container("matroska", max(0, _end_of_matroska(file) - size))
    return Container("other", 0)


def _end_of_riff(file: BinaryIO) -> int:
    """Offset at which the last RIFF chunk ends; long AVI files hold several in a row."""
    offset = 0
    while True:
        file.seek(offset)
        header = file.read(8)
        length = int.from_bytes(header[4:8], "little")
        # A recorder that crashed leaves 0 or all ones: no length was ever written.
        if header[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):
            return offset
        offset += 8 + length + length % 2


def _end_of_iso(file: BinaryIO, size: int) -> int:
    """Offset at which the last top-level box of an MP4 ends."""
    offset = 0
    while offset + 8 <= size:
        file.seek(offset)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        # 0 says "to the end of the file"; a type that is no text is padding after the last box.
        if length < 8 or not header[4:8].isascii():
            return offset
        offset += length
    return offset


def _end_of_matroska(file: BinaryIO) -> int:
    """Offset at which the segment ends, 0 where it was written live and has no length."""
    file.seek(4)
    header_length = _read_vint(file)
    if header_length is None:
        return 0
    file.seek(header_length, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return 0
    length = _read_vint(file)
    return 0 if length is None else file.tell() + length


def _read_vint(file: BinaryIO) -> int | None:
    """EBML's integer: leading zero bits tell how many bytes follow. All ones mean unknown."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    extra = 8 - first[0].bit_length()
    rest = file.read(extra)
    value = int.from_bytes(bytes([first[0] & ((1 << (7 - extra)) - 1)]) + rest, "big")
    unknown = (1 << (7 * (extra + 1))) - 1
    return None if len(rest) < extra or value == unknown else value
