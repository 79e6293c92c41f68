"""One way to read pictures, folders, videos, cameras and arrays: frames in order, with times."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np

from glnet_rt._closing import Closing
from glnet_rt.contracts import Array, Frame
from glnet_rt.errors import ContractError, GlnetError, SourceError
from glnet_rt.image import read_image
from glnet_rt.stream import container

Kind: TypeAlias = Literal["image", "folder", "video", "arrays", "camera", "address"]
IMAGE_SUFFIXES = frozenset(
    (".bmp", ".jpeg", ".jpg", ".jp2", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
NOMINAL_FPS = 30.0  # where nothing states how far frames are apart
NS_PER_S = 1_000_000_000
# Of the frames that a whole container lists: edit lists and repeated frames explain fewer than that
# not coming out, more is damage.
MAX_MISSING_SHARE = 0.1


@dataclass(frozen=True)
class FailedFrame:
    """A frame that could not be read while the others could.

    Attributes:
        frame_id: its position in the source.
        name: file name, or `frame N`.
        error: why.
        timestamp_ns: when it was taken, ns; 0 where that is what is wrong.
    """

    frame_id: int
    name: str
    error: GlnetError
    timestamp_ns: int = 0


class Source(Closing):
    """Frames in order. Iterate once; a `with` block closes what is open.

    Attributes:
        name: what to call it in messages.
        kind: `image`, `folder`, `video`, `arrays`, `camera`, or `address` of a network stream.
        fps: frames per second; nominal for pictures and arrays, and where a video does not say.
        num_frames: as announced, None where unknown. A video's may be off by a few.
        size: (width, height) px where all frames share one, else None.
        errors: the frames that failed alone while `for` went on without them.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        fps: float,
        num_frames: int | None,
        size: tuple[int, int] | None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.fps = fps
        self.num_frames = num_frames
        self.size = size
        self.errors: list[FailedFrame] = []
        self._started = False

    def __iter__(self) -> Iterator[Frame]:
        """The frames, in order; what failed alone is noted in `errors`.

        Raises: as `items`.
        """
        return self._good(self.items())

    def _good(self, items: Iterator[Frame | FailedFrame]) -> Iterator[Frame]:
        for item in items:
            if isinstance(item, FailedFrame):
                self.errors.append(item)
            else:
                yield item

    def items(self) -> Iterator[Frame | FailedFrame]:
        """The frames and, each in its place, those that failed alone.

        Raises:
            SourceError: the source broke off; every frame before that has been handed over.
            ContractError: it is iterated a second time.
        """
        if self._started:
            raise ContractError(
                "a source can be iterated once",
                got=f"a second pass over {self.name}",
                expected="one pass",
                fix="open it again: open_source(...)",
            )
        self._started = True
        return self._frames()

    @abstractmethod
    def _frames(self) -> Iterator[Frame | FailedFrame]:
        """The frames, read one at a time."""

    def cancel(self) -> None:
        """Ask the thread that reads to come back soon. Safe from any thread; `close` is not."""
        return None

    def name_of(self, frame_id: int) -> str:
        """What to call one frame: its file's name where it has one."""
        return f"frame {frame_id}"

    def close(self) -> None:
        """Let go of what is open. Calling it again does nothing."""
        return None

    def _nominal_ns(self, index: int) -> int:
        return round(index * NS_PER_S / self.fps)


class _Pictures(Source):
    """Image files. One that cannot be read fails alone, unless it is the only one."""

    def __init__(self, name: str, paths: list[Path], fps: float, *, folder: bool) -> None:
        super().__init__(name, "folder" if folder else "image", fps, len(paths), None)
        self._paths = paths
        self._first: Array | None = None
        if not folder:  # read now, so that a bad path is told where it was named
            self._first = read_image(paths[0])
            self.size = (self._first.shape[1], self._first.shape[0])

    def name_of(self, frame_id: int) -> str:
        return self._paths[frame_id].name

    def _frames(self) -> Iterator[Frame | FailedFrame]:
        if self._first is not None:
            yield Frame(self._first)
            return
        for index, path in enumerate(self._paths):
            try:
                image = read_image(path)
            except SourceError as error:
                yield FailedFrame(index, path.name, error, self._nominal_ns(index))
                continue
            yield Frame(image, index, self._nominal_ns(index))


class _Arrays(Source):
    """Images, or Frames with times of their own. One of a wrong shape or time fails alone."""

    def __init__(
        self, images: Iterable[Array | Frame], fps: float, clock: Callable[[], int] | None
    ) -> None:
        count = len(images) if isinstance(images, Sized) else None
        super().__init__("arrays", "arrays", fps, count, None)
        self._images = images
        self._clock = clock

    def _frames(self) -> Iterator[Frame | FailedFrame]:
        last_ns = -1
        for index, image in enumerate(self._images):
            try:
                frame = image if isinstance(image, Frame) else self._stamped(image, index)
                _check_growth(frame.timestamp_ns, last_ns)
            except ContractError as error:
                frame_id = image.frame_id if isinstance(image, Frame) else index
                yield FailedFrame(frame_id, self.name_of(frame_id), error)
                continue
            last_ns = frame.timestamp_ns
            yield frame

    def _stamped(self, image: Array, index: int) -> Frame:
        arrived_ns = self._nominal_ns(index) if self._clock is None else self._clock()
        return Frame(image, index, arrived_ns)


def _check_growth(timestamp_ns: int, last_ns: int) -> None:
    if timestamp_ns <= last_ns:
        raise ContractError(
            "capture times do not grow",
            got=f"{timestamp_ns} ns after {last_ns} ns",
            expected="each later than the one before",
            fix="give every Frame the time it was taken: time.monotonic_ns()",
        )


class _Video(Source):
    """A video file, through OpenCV."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._container = container.inspect(path)
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise self._unreadable("neither a video nor a picture that OpenCV can open")
        stated = self._capture.get(cv2.CAP_PROP_FPS)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        width, height = (
            int(self._capture.get(key))
            for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        super().__init__(
            path.name,
            "video",
            stated if math.isfinite(stated) and 0 < stated <= 1000 else fps,
            int(count) if math.isfinite(count) and 0 < count < 1e9 else None,
            (width, height) if width > 0 and height > 0 else None,
        )

    def _frames(self) -> Iterator[Frame | FailedFrame]:
        got, timestamp_ns = 0, -1
        while True:
            ok, image = self._capture.read()
            if not ok:
                break
            timestamp_ns = self._time_after(timestamp_ns)
            yield Frame(image, got, timestamp_ns)
            got += 1
        self.close()
        self._check_end(got)

    def _time_after(self, previous_ns: int) -> int:
        """Presentation time of the frame just read; a container that repeats itself is mended."""
        stated = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        stated_ns = round(stated * 1e6) if math.isfinite(stated) else 0
        if previous_ns < 0:
            return max(0, stated_ns)
        return stated_ns if stated_ns > previous_ns else previous_ns + self._nominal_ns(1)

    def _check_end(self, got: int) -> None:
        """Raise SourceError where the file ended before its own header says."""
        expected, missing = self.num_frames, self._container.missing_bytes
        if got == 0:
            raise self._unreadable("opens as a video but no frame of it can be decoded")
        all_came = expected is not None and got >= expected
        listed = self._container.counts_frames and expected is not None
        damaged = expected is not None and listed and got < (1 - MAX_MISSING_SHARE) * expected
        if all_came or not (missing or damaged):
            return
        cut = f", {missing} bytes are missing at the end of the file" if missing else ""
        raise SourceError(
            f"the video {self._path} ended early",
            got=f"{got} frames{cut}",
            expected=f"{expected if expected is not None else 'more'} frames",
            fix="copy or download the file again; the frames before the cut were delivered",
        )

    def _unreadable(self, why: str) -> SourceError:
        missing = self._container.missing_bytes
        return SourceError(
            f"cannot read {self._path}",
            got=why + (f"; the file was cut, {missing} bytes are missing" if missing else ""),
            expected="a video (mp4, avi, mov, mkv, webm ...) or a picture (jpg, png ...)",
            fix="copy or download the file again, or convert it: ffmpeg -i FILE out.mp4",
        )

    def close(self) -> None:
        self._capture.release()


def open_source(
    source: str | Path | int | Array | Iterable[Array | Frame] | Source,
    *,
    fps: float = NOMINAL_FPS,
    clock: Callable[[], int] | None = None,
) -> Source:
    """Open whatever holds pictures.

    Args:
        source: an image file, a folder of images (in natural order: 2 before 10), a video file, one
            image [H, W, 3] uint8 BGR, any iterable of such images or of Frames, a camera's index
            or its device (`/dev/video0`), the address of a network stream (`rtsp://`, `http://`
            ...), or a Source, which is handed back as it is.
        fps: how far apart the frames of a folder or of arrays are taken to be.
        clock: ns, gives arrays the time they arrive, and cameras the time of capture. None: arrays
            get times `fps` apart, cameras those of `time.monotonic_ns`.

    Returns:
        A Source; its frames carry times in ns that grow.

    Raises:
        SourceError: missing, unreadable, neither picture nor video, a folder without pictures, or a
            camera or address that does not answer.
        ContractError: `source` is nothing that holds pictures, or `fps` is not positive.
    """
    from glnet_rt.stream.capture import is_live, open_capture

    if isinstance(source, Source):
        return source
    if not fps > 0:
        raise ContractError(
            "fps is not positive", got=fps, expected="fps > 0", fix="leave it out for 30"
        )
    if is_live(source):
        return open_capture(source, clock=clock)
    if isinstance(source, (str, Path)):
        return _open_path(Path(source), fps)
    if isinstance(source, np.ndarray) and source.ndim < 4:
        return _Arrays([source], fps, clock)
    if isinstance(source, Iterable):
        return _Arrays(source, fps, clock)
    raise ContractError(
        "nothing that holds pictures",
        got=type(source).__name__,
        expected="a path, a camera's index, an address, an image [H, W, 3] uint8, or several",
        fix="read frames yourself and hand over the list, or name a file",
    )


def _open_path(path: Path, fps: float) -> Source:
    if path.is_dir():
        paths = sorted((p for p in path.iterdir() if _is_picture(p)), key=_natural)
        if not paths:
            raise SourceError(
                f"the folder {path} holds no pictures",
                got=f"{sum(1 for _ in path.iterdir())} other entries",
                expected="files ending in " + " ".join(sorted(IMAGE_SUFFIXES)),
                fix="name the folder that holds the pictures themselves; subfolders are not read",
            )
        return _Pictures(path.name, paths, fps, folder=True)
    if not path.exists():
        raise SourceError(
            "there is no such file or folder",
            got=str(path),
            expected="a picture, a folder of pictures, or a video",
            fix="check the spelling; relative paths start from the current folder",
        )
    if not path.is_file() or path.stat().st_size == 0:
        raise SourceError(
            "the file is empty" if path.is_file() else "this is no regular file",
            got=str(path),
            expected="a picture, a folder of pictures, or a video",
            fix="copy or download the file again",
        )
    if path.suffix.lower() in IMAGE_SUFFIXES or cv2.haveImageReader(str(path)):
        return _Pictures(path.name, [path], fps, folder=False)
    return _Video(path, fps)


def _is_picture(path: Path) -> bool:
    return (
        path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and not path.is_dir()
    )


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key in which `img2` comes before `img10`."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
