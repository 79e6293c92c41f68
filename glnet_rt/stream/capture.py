"""Cameras and network streams: frames as they come, and reconnecting when they stop."""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2

from glnet_rt.contracts import Array, Frame
from glnet_rt.errors import ContractError, SourceError
from glnet_rt.stream.source import NOMINAL_FPS, FailedFrame, Source

OPEN_TIMEOUT_MS = 10_000  # for a network stream to answer
READ_TIMEOUT_MS = 5_000  # for its next frame; then the connection counts as lost
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # two letters: C:// is a drive
_DEVICE = re.compile(r"/dev/video(\d+)")


class Capture(Protocol):
    """What is used of a `cv2.VideoCapture`."""

    def isOpened(self) -> bool: ...

    def grab(self) -> bool: ...

    def retrieve(self) -> tuple[bool, Array]: ...

    def get(self, propId: int) -> float: ...

    def release(self) -> None: ...


@dataclass(frozen=True)
class Backoff:
    """How long to wait before trying again: longer each time, and never quite the same.

    Attributes:
        first_s: before the first try.
        factor: by which each wait is longer than the one before.
        longest_s: at which they stop growing.
        jitter: share by which a wait is shortened at random, 0 to 1, so that many who lost the same
            camera do not come back at once.
        attempts: tries in a row that may fail before the source is given up. A frame that comes
            starts the count again.
    """

    first_s: float = 0.25
    factor: float = 2.0
    longest_s: float = 8.0
    jitter: float = 0.25
    attempts: int = 10

    def __post_init__(self) -> None:
        sane = 0 <= self.first_s <= self.longest_s < math.inf and 1 <= self.factor < math.inf
        if not (sane and 0 <= self.jitter <= 1 and self.attempts >= 0):
            raise ContractError(
                "this is no way to back off",
                got=self,
                expected="0 <= first_s <= longest_s, factor >= 1, jitter in [0, 1], attempts >= 0",
                fix="leave out what need not differ from Backoff()",
            )

    def wait_s(self, failures: int, chance: float) -> float:
        """Seconds to wait after that many failures in a row; `chance` is in [0, 1)."""
        grown = self.first_s * self.factor ** min(failures - 1, 64)
        return min(grown, self.longest_s) * (1 - self.jitter * chance)


class LiveCapture(Source):
    """A camera or a network stream. Frames carry the time at which they were taken from it.

    When no frame comes, it is opened again, after a wait that grows; `cancel` cuts the wait short.
    An address that says how many frames it holds is a file, and ends after them.

    Args:
        name: what to call it.
        connect: opens it; the first time at once, then again after each loss.
        kind: `camera` or `address`.
        backoff: how long to wait between tries, and how many there are.
        clock: ns, read when a frame is taken.

    Attributes:
        reconnects: how often it was lost and came back.

    Raises:
        SourceError: it cannot be opened the first time.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Capture],
        *,
        kind: Any = "camera",
        backoff: Backoff | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._connect = connect
        self._backoff = Backoff() if backoff is None else backoff
        self._clock = time.monotonic_ns if clock is None else clock
        self._cancelled = threading.Event()
        self._random = random.Random()  # not seeded: others must wait another time
        self._capture: Capture | None = connect()
        if not self._capture.isOpened():
            raise _does_not_answer(name, kind)
        fps, frames, width, height = (
            self._capture.get(key)
            for key in (
                cv2.CAP_PROP_FPS,
                cv2.CAP_PROP_FRAME_COUNT,
                cv2.CAP_PROP_FRAME_WIDTH,
                cv2.CAP_PROP_FRAME_HEIGHT,
            )
        )
        sane_fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else NOMINAL_FPS
        is_file = kind == "address" and math.isfinite(frames) and 0 < frames < 1e9
        size = (int(width), int(height)) if width > 0 and height > 0 else None
        super().__init__(name, kind, sane_fps, int(frames) if is_file else None, size)
        self.reconnects = 0

    def _frames(self) -> Iterator[Frame | FailedFrame]:
        frame_id, failures = 0, 0
        while not self._cancelled.is_set():
            capture = self._capture
            if capture is not None and capture.grab():
                yield self._retrieve(capture, frame_id)
                frame_id, failures = frame_id + 1, 0
                continue
            if self._cancelled.is_set() or frame_id == self.num_frames:
                return
            failures += 1
            if failures > self._backoff.attempts:
                raise _gave_up(self.name, frame_id, self._backoff)
            self._reconnect(failures)

    def _retrieve(self, capture: Capture, frame_id: int) -> Frame | FailedFrame:
        taken_ns = self._clock()
        ok, image = capture.retrieve()
        try:
            if ok:
                return Frame(image, frame_id, taken_ns)
            error: ContractError | SourceError = SourceError(
                "a frame came that cannot be decoded",
                got=f"frame {frame_id} of {self.name}",
                expected="a whole picture",
                fix="check the cable or the network; rtsp over TCP loses no packets",
            )
        except ContractError as caught:
            error = caught
        return FailedFrame(frame_id, self.name_of(frame_id), error, taken_ns)

    def _reconnect(self, failures: int) -> None:
        """Let go, wait, and try once."""
        self.close()
        if self._cancelled.wait(self._backoff.wait_s(failures, self._random.random())):
            return
        capture = self._connect()
        if capture.isOpened():
            self._capture = capture
            self.reconnects += 1
        else:
            capture.release()

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()


def is_live(source: object) -> bool:
    """Whether this names a camera or a network stream."""
    if isinstance(source, int):
        return not isinstance(source, bool)
    if isinstance(source, Path):
        return _DEVICE.fullmatch(str(source)) is not None
    return isinstance(source, str) and bool(_ADDRESS.match(source) or _DEVICE.fullmatch(source))


def open_capture(
    source: object,
    *,
    backoff: Backoff | None = None,
    clock: Callable[[], int] | None = None,
) -> LiveCapture:
    """Open a camera or a network stream through OpenCV.

    Args:
        source: what `is_live` says yes to.
        backoff, clock: as for `LiveCapture`.

    Raises:
        SourceError: it does not answer.
    """
    text = str(source)
    if _ADDRESS.match(text):
        return LiveCapture(
            _without_password(text),
            lambda: _connect_to_address(text),
            kind="address",
            backoff=backoff,
            clock=clock,
        )
    device = _DEVICE.fullmatch(text)
    index = int(device[1] if device else text)
    return LiveCapture(
        f"camera {index}", lambda: _connect_to_camera(index), backoff=backoff, clock=clock
    )


def _connect_to_camera(index: int) -> Capture:
    capture = cv2.VideoCapture(index)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # of those drivers that can: a queue only ages frames
    return capture


def _connect_to_address(address: str) -> Capture:
    # One decoding thread: with more, FFmpeg holds a frame back for each.
    settings = {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: READ_TIMEOUT_MS,
        cv2.CAP_PROP_N_THREADS: 1,
    }
    flat = [number for pair in settings.items() for number in pair]
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, flat)


def _without_password(address: str) -> str:
    """The address as it may be shown and logged."""
    return re.sub(r"//[^/@]*@", "//", address)


def _does_not_answer(name: str, kind: str) -> SourceError:
    return SourceError(
        f"{name} cannot be opened",
        got="OpenCV did not open it",
        expected="a camera that is plugged in and free, or a stream that answers",
        fix="try its address in ffplay or VLC"
        if kind == "address"
        else "see which there are: ls /dev/video*; close what else uses it; check permissions",
    )


def _gave_up(name: str, frames: int, backoff: Backoff) -> SourceError:
    return SourceError(
        f"{name} was lost and did not come back",
        got=f"{frames} frames, then {backoff.attempts} tries without one",
        expected="a frame after reconnecting",
        fix="check the camera and its network, then open it again; Backoff(attempts=) allows more",
    )
