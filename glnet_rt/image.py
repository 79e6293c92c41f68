"""Reading one picture from disk, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import SourceError

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


def read_image(path: str | Path) -> Array:
    """Read a picture of any kind OpenCV knows, turned upright by its EXIF tag.

    Args:
        path: a JPEG, PNG, WebP, BMP or TIFF file; any characters, any depth, grey or colour.

    Returns:
        [H, W, 3] uint8, BGR; an alpha channel is dropped.

    Raises:
        SourceError: the file is missing, unreadable, no picture, or truncated.
    """
    path = Path(path)
    data = _read_bytes(path)
    image = None
    if data and not _is_cut_jpeg(data):  # some versions of OpenCV fill the lost rest with grey
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error as error:
            raise _undecodable(path, data, str(error).strip()) from error
    if image is None:
        raise _undecodable(path, data, "OpenCV cannot decode it")
    return image


def _read_bytes(path: Path) -> bytes:
    # Not cv2.imread: it tells a missing file from a broken one by nothing, and on Windows it
    # cannot open names outside the system's code page.
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise SourceError(
            "the image file is missing",
            got=str(path),
            expected="an existing file",
            fix="check the path; relative ones start at the current folder",
        ) from error
    except IsADirectoryError as error:
        raise SourceError(
            "the image path is a folder",
            got=str(path),
            expected="one image file",
            fix="name a file in it, or run the whole folder: glnet-rt run FOLDER",
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise SourceError(
            "the image file cannot be read",
            got=f"{str(path)!r}: {error}",
            expected="a readable file",
            fix="check its permissions and the disk it lies on",
        ) from error


def _undecodable(path: Path, data: bytes, reason: str) -> SourceError:
    return SourceError(
        "the image file is truncated" if _is_cut_jpeg(data) else "the file holds no whole picture",
        got=f"{path}: {len(data)} bytes, {reason}" if data else f"{path}: empty file",
        expected="a complete JPEG, PNG, WebP, BMP or TIFF file",
        fix="copy or download the file again, or convert it to PNG",
    )


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether a JPEG's compressed data begins but never ends.

    Segments are skipped by their lengths, so an end mark in an embedded thumbnail does not count,
    and bytes appended behind the picture do no harm.
    """
    if not data.startswith(_JPEG_START):
        return False
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at : at + 2] == _JPEG_SCAN:
            return data.find(_JPEG_END, at) < 0
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False
