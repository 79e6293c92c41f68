"""Pictures are read whole and upright, or refused with a reason."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from glnet_rt.contracts import Array
from glnet_rt.errors import SourceError
from glnet_rt.image import read_image


@pytest.fixture
def picture() -> Array:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)


def encode(image: Array, suffix: str, *options: int) -> bytes:
    return bytes(cv2.imencode(suffix, image, list(options))[1])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_lossless_files_come_back_exactly(tmp_path: Path, picture: Array, suffix: str) -> None:
    path = tmp_path / f"Bild – фото{suffix}"
    path.write_bytes(encode(picture, suffix))
    np.testing.assert_array_equal(read_image(path), picture)
    np.testing.assert_array_equal(read_image(str(path)), picture)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_files_come_back_nearly(tmp_path: Path, picture: Array, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(encode(picture, suffix))
    assert np.abs(read_image(path).astype(int) - picture).mean() < 6


def test_grey_alpha_and_deep_pictures_become_8_bit_colour(tmp_path: Path, picture: Array) -> None:
    grey = picture[:, :, 1]
    with_alpha = np.dstack([picture, grey])
    deep = picture.astype(np.uint16) * 257
    for name, image, wanted in (
        ("grey.png", grey, np.dstack([grey] * 3)),
        ("alpha.png", with_alpha, picture),
        ("deep.png", deep, picture),
    ):
        (tmp_path / name).write_bytes(encode(image, ".png"))
        read = read_image(tmp_path / name)
        assert read.shape == (120, 160, 3)
        assert read.dtype == np.uint8
        np.testing.assert_allclose(read, wanted, atol=1)


def test_exif_turns_the_picture_upright(tmp_path: Path, picture: Array) -> None:
    # A minimal EXIF segment: little-endian TIFF, one entry, orientation 6 (turn clockwise).
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
    tiff = b"II*\x00\x08\x00\x00\x00\x01\x00" + entry + b"\x00\x00\x00\x00"
    body = b"Exif\x00\x00" + tiff
    data = encode(picture, ".jpg")
    path = tmp_path / "turned.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:])
    upright = read_image(path)
    assert upright.shape == (160, 120, 3)
    assert np.abs(upright.astype(int) - np.rot90(picture, -1)).mean() < 6


def test_bytes_behind_a_picture_do_no_harm(tmp_path: Path, picture: Array) -> None:
    """Phones append a short film, with marks of its own, behind a photo."""
    path = tmp_path / "motion.jpg"
    path.write_bytes(encode(picture, ".jpg") + b"ftypmp4\xff\xda" + bytes(500))
    assert read_image(path).shape == picture.shape


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_cut_file_is_refused(
    tmp_path: Path, picture: Array, suffix: str, share: float, assert_helpful
) -> None:
    data = encode(picture, suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(SourceError) as caught:
        read_image(path)
    assert_helpful(caught.value)
    assert path.name in str(caught.value)


def test_a_cut_jpeg_is_named_so_whatever_opencv_makes_of_it(tmp_path: Path, picture: Array) -> None:
    for progressive in (0, 1):
        data = encode(picture, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
        path = tmp_path / "cut.jpg"
        path.write_bytes(data[: len(data) * 3 // 4])
        with pytest.raises(SourceError, match="truncated"):
            read_image(path)


BAD_FILES = {
    "missing": (None, "missing"),
    "empty": (b"", "no whole picture"),
    "text": (b"this is no picture at all", "no whole picture"),
    "start of a jpeg": (b"\xff\xd8\xff\xe0", "no whole picture"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_no_picture_is_refused(tmp_path: Path, name: str, assert_helpful) -> None:
    content, message = BAD_FILES[name]
    path = tmp_path / "photo.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        read_image(path)
    assert_helpful(caught.value)
    assert "photo.jpg" in str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_small_file_that_claims_a_huge_picture_is_refused(
    tmp_path: Path, picture: Array, suffix: str, assert_helpful
) -> None:
    data = bytearray(encode(picture, suffix))
    if suffix == ".png":
        data[16:24] = struct.pack(">II", 100_000, 100_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    else:
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    path = tmp_path / f"huge{suffix}"
    path.write_bytes(data)
    with pytest.raises(SourceError) as caught:
        read_image(path)
    assert_helpful(caught.value)


def test_a_folder_is_refused(tmp_path: Path, assert_helpful) -> None:
    with pytest.raises(SourceError, match="is a folder") as caught:
        read_image(tmp_path)
    assert_helpful(caught.value)


def test_a_path_no_system_knows_is_refused(assert_helpful) -> None:
    for path in ("a\0b.jpg", "x" * 5000):
        with pytest.raises(SourceError, match="cannot be read") as caught:
            read_image(path)
        assert_helpful(caught.value)
