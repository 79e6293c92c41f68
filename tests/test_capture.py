"""Cameras and network streams: a scripted capture that fails, and a real stream over HTTP."""

from __future__ import annotations

import http.server
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import glnet_rt
from glnet_rt import ContractError, GlnetError, SourceError
from glnet_rt.contracts import Array, Frame
from glnet_rt.stream import Backoff, FailedFrame, LiveCapture, open_source
from tests.streams import no_thread_left, pictures

Helpful = Callable[[GlnetError], None]
QUICK = Backoff(first_s=0.001, longest_s=0.004, attempts=3)
IMAGE = pictures(1)[0]


class Script:
    """Connections one after the other: how many frames each gives, None where it does not open."""

    def __init__(self, *frames: int | None, announced: float = 0, fps: float = 25) -> None:
        self.connections = iter(frames)
        self.made: list[Scripted] = []
        self.announced = announced
        self.fps = fps

    def __call__(self) -> Scripted:
        self.made.append(Scripted(next(self.connections, None), self))
        return self.made[-1]


class Scripted:
    """A capture that ends when its frames are used up."""

    def __init__(self, frames: int | None, script: Script) -> None:
        self.frames = frames
        self.script = script
        self.released = False

    def isOpened(self) -> bool:
        return self.frames is not None and not self.released

    def grab(self) -> bool:
        assert not self.released
        if not self.frames:
            return False
        self.frames -= 1
        return True

    def retrieve(self) -> tuple[bool, Array]:
        return True, IMAGE

    def get(self, propId: int) -> float:
        known = {
            cv2.CAP_PROP_FPS: self.script.fps,
            cv2.CAP_PROP_FRAME_COUNT: self.script.announced,
            cv2.CAP_PROP_FRAME_WIDTH: 64,
            cv2.CAP_PROP_FRAME_HEIGHT: 48,
        }
        return known[propId]

    def release(self) -> None:
        self.released = True


def test_a_lost_camera_is_opened_again(assert_helpful: Helpful) -> None:
    """It comes back at once, then after two tries; then never, and that is told."""
    script = Script(3, 2, None, None, 4)
    ticks = itertools.count(1000, 7)
    source = LiveCapture("camera 0", script, backoff=QUICK, clock=lambda: next(ticks))
    frames: list[Frame] = []
    with source, pytest.raises(SourceError, match="did not come back") as caught:
        frames.extend(source)
    assert_helpful(caught.value)
    assert "9 frames, then 3 tries" in str(caught.value)
    assert [frame.frame_id for frame in frames] == list(range(9))
    assert [frame.timestamp_ns for frame in frames] == [1000 + 7 * i for i in range(9)]
    assert source.reconnects == 2
    assert all(capture.released for capture in script.made)
    assert (source.fps, source.size, source.num_frames) == (25, (64, 48), None)


def test_connections_without_a_frame_do_not_start_the_count_again() -> None:
    """A camera that opens each time and never gives a frame is given up all the same."""
    script = Script(1, *[0] * 100)
    source = LiveCapture("camera 0", script, backoff=QUICK)
    with source, pytest.raises(SourceError, match="did not come back"):
        list(source)
    assert len(script.made) == 1 + QUICK.attempts


def test_waits_grow_up_to_a_bound_and_differ() -> None:
    backoff = Backoff(first_s=0.5, factor=2, longest_s=3, jitter=0.2)
    assert [backoff.wait_s(n, 0) for n in (1, 2, 3, 4, 5, 10_000)] == [0.5, 1, 2, 3, 3, 3]
    assert backoff.wait_s(1, 0.5) == pytest.approx(0.45)
    assert backoff.wait_s(1, 0.999) > 0.4


@pytest.mark.parametrize(
    "wrong",
    [{"first_s": -1}, {"first_s": 9}, {"factor": 0.5}, {"longest_s": float("inf")}, {"jitter": 2},
     {"attempts": -1}],
)  # fmt: skip
def test_a_wait_that_makes_no_sense_is_refused(
    wrong: dict[str, float], assert_helpful: Helpful
) -> None:
    with pytest.raises(ContractError) as caught:
        Backoff(**wrong)  # type: ignore[arg-type]
    assert_helpful(caught.value)


def test_a_camera_that_is_not_there_is_told_at_once(assert_helpful: Helpful) -> None:
    with pytest.raises(SourceError, match="cannot be opened") as caught:
        LiveCapture("camera 0", Script(None), backoff=QUICK)
    assert_helpful(caught.value)
    with pytest.raises(SourceError, match="camera 97 cannot be opened"):
        open_source(97)
    for name in ("/dev/video97", Path("/dev/video97")):
        with pytest.raises(SourceError, match="camera 97 cannot be opened"):
            open_source(name)


def test_closing_does_not_wait_for_the_next_try(tiny_path: Path) -> None:
    patient = Backoff(first_s=3600, longest_s=3600)
    source = LiveCapture("camera 0", Script(2), backoff=patient)
    with glnet_rt.load(tiny_path, backend="onnxruntime", threads=1) as hmr, no_thread_left():
        session = hmr.live(source, drop="none")
        results = iter(session)
        assert [next(results).frame_id for _ in range(2)] == [0, 1]
        started = time.monotonic()
        session.close()
        assert time.monotonic() - started < 20
        assert list(results) == []
    assert session.stats().frames_in == session.stats().frames_out == 2


def test_a_session_counts_reconnections_and_tells_the_end(tiny_path: Path) -> None:
    source = LiveCapture("camera 0", Script(2, 2), backoff=QUICK)
    with glnet_rt.load(tiny_path, backend="onnxruntime", threads=1) as hmr, no_thread_left():
        session = hmr.live(source, drop="none")
        results = []
        with session, pytest.raises(SourceError, match="did not come back"):
            results.extend(session)
    assert [result.frame_id for result in results] == [0, 1, 2, 3]
    assert session.stats().reconnects == 1


def test_an_address_that_counts_its_frames_ends_after_them() -> None:
    source = LiveCapture("a file", Script(5, announced=5), kind="address", backoff=QUICK)
    assert len(list(source)) == source.num_frames == 5


def test_frames_that_cannot_be_used_fail_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    came = iter([(True, IMAGE), (False, IMAGE), (True, IMAGE[..., 0]), (True, IMAGE)])
    monkeypatch.setattr(Scripted, "retrieve", lambda self: next(came))
    source = LiveCapture("camera 0", Script(4, announced=4), kind="address", backoff=QUICK)
    items = list(source.items())
    assert [item.frame_id for item in items] == [0, 1, 2, 3]
    assert [isinstance(item, FailedFrame) for item in items] == [False, True, True, False]
    times = [item.timestamp_ns for item in items]
    assert times == sorted(times)


# -- a real stream --------------------------------------------------------------------------------


class _Camera(http.server.BaseHTTPRequestHandler):
    """Motion JPEG, as network cameras speak it. Each connection breaks after some frames."""

    served = 0
    breaks_after = 30

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for _ in range(type(self).breaks_after):
            level = 40 + type(self).served % 160
            ok, jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), level, np.uint8))
            assert ok
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + jpeg.tobytes() + b"\r\n")
                self.wfile.flush()
            except OSError:
                return
            type(self).served += 1
            time.sleep(0.01)

    def log_message(self, *args: object) -> None:
        return None


@pytest.fixture
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Camera)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://user:secret@127.0.0.1:{server.server_address[1]}/stream.mjpg"
    server.shutdown()
    thread.join(30)
    server.server_close()


def test_a_network_camera_that_breaks_off_comes_back(address: str, tiny_path: Path) -> None:
    try:
        source = open_source(address)
    except SourceError as error:
        if "FFMPEG:                      YES" in cv2.getBuildInformation():
            raise
        pytest.skip(f"this OpenCV cannot open network streams: {error}")
    assert source.kind == "address"
    assert "secret" not in source.name
    with glnet_rt.load(tiny_path, backend="onnxruntime", threads=1) as hmr, no_thread_left():
        with hmr.live(source, drop="none", images=True) as session:
            results = list(itertools.islice(session, 45))
        assert session.stats().reconnects >= 1
    assert [result.frame_id for result in results] == list(range(45))
    assert np.all(np.diff([result.timestamp_ns for result in results]) > 0)
    levels = [int(np.median(result.image)) for result in results if result.image is not None]
    assert len(set(levels)) > 20


def test_an_address_that_does_not_answer_is_told(assert_helpful: Helpful) -> None:
    with pytest.raises(SourceError, match="cannot be opened") as caught:
        open_source("http://user:secret@127.0.0.1:9/nothing")
    assert_helpful(caught.value)
    assert "secret" not in str(caught.value)
