"""Sources: order, times, sizes, and what happens to files that are missing, wrong or cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from glnet_rt.errors import ContractError, GlnetError, SourceError
from glnet_rt.stream import container, open_source

Helpful = Callable[[GlnetError], None]
FRAMES = 40
FPS = 12.5
SIZE = (96, 64)
REAL_VIDEO = Path(__file__).resolve().parents[2] / "shared/data/real/video/vtest.avi"


def picture(index: int) -> np.ndarray:
    """Noise, so that no codec makes it small, with a bar whose length tells the index."""
    rng = np.random.default_rng(index)
    image = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    image[:16] = 0
    image[:16, : 2 * index] = 255
    return image


def index_of(image: np.ndarray) -> int:
    return round(int((image[:16].mean(axis=(0, 2)) > 127).sum()) / 2)


def write_video(path: Path, fourcc: str) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), FPS, SIZE)
    assert writer.isOpened()
    for index in range(FRAMES):
        writer.write(picture(index))
    writer.release()
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    codecs = {"mp4": "mp4v", "avi": "MJPG", "mkv": "MJPG"}
    return {kind: write_video(folder / f"clip.{kind}", code) for kind, code in codecs.items()}


def cut(path: Path, tmp_path: Path, share: float) -> Path:
    """The first `share` of a file."""
    data = path.read_bytes()
    target = tmp_path / path.name
    target.write_bytes(data[: int(len(data) * share)])
    return target


def faststart(data: bytes) -> bytes:
    """Move an MP4's index before its pictures, as files made for the web have it."""
    boxes, offset = {}, 0
    while offset < len(data):
        length = int.from_bytes(data[offset : offset + 4], "big")
        boxes[data[offset + 4 : offset + 8]] = data[offset : offset + length]
        offset += length
    moov = bytearray(boxes[b"moov"])
    table = moov.index(b"stco")
    for k in range(int.from_bytes(moov[table + 8 : table + 12], "big")):
        entry = slice(table + 12 + 4 * k, table + 16 + 4 * k)
        moved = int.from_bytes(moov[entry], "big") + len(moov)
        moov[entry] = moved.to_bytes(4, "big")
    rest = b"".join(box for name, box in boxes.items() if name not in (b"ftyp", b"moov"))
    return boxes[b"ftyp"] + bytes(moov) + rest


def drain(path: Path) -> tuple[list[int], SourceError | None]:
    """Indices of the frames that came, and the error at the end if there was one."""
    seen: list[int] = []
    try:
        with open_source(path) as source:
            for frame in source:
                assert frame.frame_id == len(seen)
                seen.append(index_of(frame.image))
    except SourceError as error:
        return seen, error
    return seen, None


@pytest.mark.parametrize("kind", ["mp4", "avi", "mkv"])
def test_video_gives_every_frame_in_order_with_its_time(videos: dict[str, Path], kind: str) -> None:
    with open_source(videos[kind]) as source:
        assert source.kind == "video"
        assert source.size == SIZE
        assert source.num_frames == FRAMES
        assert source.fps == pytest.approx(FPS)
        frames = list(source)
    assert [index_of(frame.image) for frame in frames] == list(range(FRAMES))
    times = np.array([frame.timestamp_ns for frame in frames])
    assert (np.diff(times) > 0).all()
    np.testing.assert_allclose(times, np.arange(FRAMES) * 1e9 / FPS, atol=1.1e6)  # mkv: whole ms
    assert container.inspect(videos[kind]).missing_bytes == 0


@pytest.mark.parametrize("kind", ["avi", "mkv"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_cut_video_hands_over_its_good_frames_and_then_says_how_many(
    videos: dict[str, Path], tmp_path: Path, assert_helpful: Helpful, kind: str, share: float
) -> None:
    seen, error = drain(cut(videos[kind], tmp_path, share))
    assert error is not None
    assert_helpful(error)
    assert 0 < len(seen) < FRAMES
    assert len(seen) == pytest.approx(FRAMES * share, abs=3)
    assert seen[:-1] == list(range(len(seen) - 1))  # the last one may itself be torn
    assert str(len(seen)) in str(error.got)
    assert str(FRAMES) in str(error.expected)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_mp4_that_lost_its_index_is_unreadable(
    videos: dict[str, Path], tmp_path: Path, assert_helpful: Helpful, share: float
) -> None:
    with pytest.raises(SourceError, match=r"(?s)cannot read .*bytes are missing") as caught:
        open_source(cut(videos["mp4"], tmp_path, share))
    assert_helpful(caught.value)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_cut_mp4_with_its_index_in_front_hands_over_its_good_frames(
    videos: dict[str, Path], tmp_path: Path, share: float
) -> None:
    whole = tmp_path / "whole.mp4"
    whole.write_bytes(faststart(videos["mp4"].read_bytes()))
    seen, error = drain(whole)
    assert (seen, error) == (list(range(FRAMES)), None)
    seen, error = drain(cut(whole, tmp_path, share))
    assert error is not None
    assert 0 < len(seen) < FRAMES
    assert f"{FRAMES} frames" in str(error.expected)


def test_cut_that_takes_no_frame_is_no_error(videos: dict[str, Path], tmp_path: Path) -> None:
    data = videos["avi"].read_bytes()
    target = tmp_path / "clip.avi"
    target.write_bytes(data[: data.rindex(b"idx1") + 8])  # only the index at the end is gone
    assert container.inspect(target).missing_bytes > 0
    assert drain(target) == (list(range(FRAMES)), None)


def test_video_whose_second_half_was_never_written_is_an_error(
    videos: dict[str, Path], tmp_path: Path
) -> None:
    data = bytearray(videos["avi"].read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    target = tmp_path / "holes.avi"
    target.write_bytes(data)
    assert container.inspect(target).missing_bytes == 0
    seen, error = drain(target)
    assert error is not None
    assert 0 < len(seen) < FRAMES


@pytest.mark.parametrize(
    ("head", "kind", "missing"),
    [
        (b"RIFF" + (100).to_bytes(4, "little") + b"AVI ", "riff", 8),
        (b"RIFF" + bytes(4) + b"AVI ", "riff", 0),  # a recorder that crashed
        ((50).to_bytes(4, "big") + b"ftyp" + bytes(42) + b"\0\0\0\0mdat", "iso", 0),  # to the end
        ((50).to_bytes(4, "big") + b"ftyp" + bytes(42) + b"\0\0\0\1mdat"
         + (70).to_bytes(8, "big"), "iso", 20),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff", "matroska", 0),  # live, length unknown
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x40\x80", "matroska", 39),
        (b"\x1a\x45\xdf\xa3\x80\x00\x00\x00\x00\x00\x00\x00", "matroska", 0),
        (b"\x1a\x45\xdf\xa3\x40", "matroska", 0),
        (b"GIF89a", "other", 0),
    ],
)  # fmt: skip
def test_container_tells_what_is_missing(
    tmp_path: Path, head: bytes, kind: str, missing: int
) -> None:
    path = tmp_path / "clip"
    path.write_bytes(head.ljust(100, b"\0"))
    found = container.inspect(path)
    assert (found.kind, found.missing_bytes) == (kind, missing)


def test_pictures_of_a_folder_come_in_natural_order(tmp_path: Path) -> None:
    for index in (10, 2, 1):
        cv2.imwrite(str(tmp_path / f"img{index}.png"), picture(index))
    (tmp_path / "notes.txt").write_text("no picture")
    cv2.imwrite(str(tmp_path / ".hidden.png"), picture(0))
    with open_source(tmp_path, fps=10) as source:
        assert (source.kind, source.num_frames, source.size) == ("folder", 3, None)
        frames = list(source)
    assert [index_of(frame.image) for frame in frames] == [1, 2, 10]
    assert [source.name_of(frame.frame_id) for frame in frames] == [
        "img1.png",
        "img2.png",
        "img10.png",
    ]
    assert [frame.timestamp_ns for frame in frames] == [0, 100_000_000, 200_000_000]
    assert source.errors == []


def test_bad_picture_in_a_folder_fails_alone(tmp_path: Path) -> None:
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.jpg"), picture(index))
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8 no picture at all")
    source = open_source(tmp_path)
    frames = list(source)
    assert [frame.frame_id for frame in frames] == [0, 2]
    assert [(failed.frame_id, failed.name) for failed in source.errors] == [(1, "1.jpg")]
    assert isinstance(source.errors[0].error, SourceError)


def test_single_picture(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(7))
    with open_source(str(tmp_path / "a.png")) as source:
        assert (source.kind, source.num_frames, source.size) == ("image", 1, SIZE)
        (frame,) = source
        assert source.name_of(0) == "a.png"
    np.testing.assert_array_equal(frame.image, picture(7))


def test_picture_without_a_suffix_is_told_by_its_content(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(7))
    (tmp_path / "a.png").rename(tmp_path / "upload")
    assert open_source(tmp_path / "upload").kind == "image"


def test_arrays_and_bad_arrays_among_them() -> None:
    images = [picture(0), np.zeros((4, 4), np.uint8), picture(2)]
    source = open_source(iter(images), fps=5)
    assert source.num_frames is None
    frames = list(source)
    assert [frame.frame_id for frame in frames] == [0, 2]
    assert [frame.timestamp_ns for frame in frames] == [0, 400_000_000]
    assert [failed.name for failed in source.errors] == ["frame 1"]
    assert isinstance(source.errors[0].error, ContractError)
    assert open_source(images).num_frames == 3
    assert len(list(open_source(np.stack([picture(0), picture(1)])))) == 2
    assert len(list(open_source(picture(0)))) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.mp4", None, "no such file"),
        ("empty.mp4", b"", "file is empty"),
        ("text.mp4", b"these are words, no pictures\n" * 50, "cannot read"),
        ("text.jpg", b"these are words, no pictures\n" * 50, "picture|image"),
    ],
)
def test_what_cannot_be_read_is_told_when_it_is_opened(
    tmp_path: Path, assert_helpful: Helpful, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(tmp_path / name)
    assert name in str(caught.value)
    assert_helpful(caught.value)


def test_folder_without_pictures(tmp_path: Path, assert_helpful: Helpful) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(SourceError, match="holds no pictures") as caught:
        open_source(tmp_path)
    assert "1 other" in str(caught.value.got)
    assert_helpful(caught.value)


def test_misuse_is_a_contract_error(tmp_path: Path) -> None:
    source = open_source([picture(0)])
    list(source)
    with pytest.raises(ContractError, match="iterated once"):
        iter(source)
    with pytest.raises(ContractError, match="nothing that holds pictures"):
        open_source(3.5)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="fps"):
        open_source([picture(0)], fps=0)


def test_close_twice(videos: dict[str, Path]) -> None:
    source = open_source(videos["avi"])
    next(iter(source))
    source.close()
    source.close()


@pytest.mark.skipif(not REAL_VIDEO.exists(), reason="the real clip is not on this machine")
def test_real_clip_gives_all_its_frames() -> None:
    with open_source(REAL_VIDEO) as source:
        count = sum(1 for _ in source)
    assert count == source.num_frames == 795
