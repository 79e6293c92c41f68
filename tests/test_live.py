"""Live streams: bounded age, exact accounts, order, and every way they can end."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import glnet_rt
from benchmarks._record import ROOT
from benchmarks.live import STATM, WORK_MS
from glnet_rt import (
    BackendError,
    CallbackError,
    ContractError,
    Estimator,
    Found,
    Frame,
    GlnetError,
    Result,
    SourceError,
    Trace,
)
from glnet_rt.contracts import Array
from glnet_rt.stream.channel import Drop
from glnet_rt.stream.live import LiveStats
from glnet_rt.stream.workers import Workers
from tests.streams import Crowd, no_thread_left, pictures, slow_down

IMAGE = pictures(1)[0]
FPS = 30
SLACK_MS = 150  # what a machine with other work may keep a thread waiting


@pytest.fixture(scope="module")
def hmr(tiny_path: Path) -> Iterator[Estimator]:
    with glnet_rt.load(tiny_path, backend="onnxruntime", threads=1) as estimator:
        estimator(IMAGE)  # compiles the kernels
        yield estimator


def camera(seconds: float, fps: float = FPS) -> Iterator[Array]:
    """Pictures at a steady rate, as a camera gives them: it does not wait for anybody."""
    started = time.monotonic()
    for i in range(round(seconds * fps)):
        time.sleep(max(0.0, started + i / fps - time.monotonic()))
        yield IMAGE


def assert_account(stats: LiveStats, results: list[Result]) -> None:
    """Every frame came out once or was dropped once; each result says how many before it were."""
    assert stats.in_flight == 0
    assert stats.frames_out == len(results)
    assert stats.frames_in - stats.frames_out == sum(stats.dropped.values())
    ids = [result.frame_id for result in results]
    assert ids == sorted(set(ids))
    assert [result.dropped for result in results] == [i - k for k, i in enumerate(ids)]


def percentile(results: list[Result], q: float) -> float:
    return float(np.percentile([result.timings_ms["age"] for result in results], q))


def soak(hmr: Estimator, seconds: float) -> tuple[list[Result], LiveStats]:
    with hmr.live(camera(seconds)) as session:
        results = list(session)
    return results, session.stats()


def test_the_age_of_results_is_bounded_by_the_work(
    hmr: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 frames a second against 50 ms of work. Kept in a queue, the last would be 1.2 s late."""
    slow_down(hmr, 0.050, monkeypatch)
    with no_thread_left():
        results, stats = soak(hmr, 3)
    assert_account(stats, results)
    assert stats.frames_in == 3 * FPS
    work_ms = np.percentile([sum(r.timings_ms[s] for s in ("crop", "infer", "decode"))
                             for r in results], 99)  # fmt: skip
    assert percentile(results, 99) <= 2 * 1000 / FPS + work_ms + SLACK_MS
    late = [result.timings_ms["age"] for result in results[-5:]]
    early = [result.timings_ms["age"] for result in results[:5]]
    assert np.median(late) - np.median(early) < SLACK_MS, "it grew with time"


@pytest.mark.parametrize("drop", ["oldest", "newest", "none"])
@pytest.mark.parametrize("queue", [1, 3])
@pytest.mark.parametrize("slow", ["network", "consumer", "nobody"])
def test_the_account_is_exact(
    hmr: Estimator, monkeypatch: pytest.MonkeyPatch, drop: Drop, queue: int, slow: str
) -> None:
    if slow == "network":
        slow_down(hmr, 0.03, monkeypatch)
    results: list[Result] = []
    with no_thread_left(), hmr.live(camera(0.4, 100), drop=drop, queue=queue) as session:
        for result in session:
            results.append(result)
            time.sleep(0.03 if slow == "consumer" else 0)
    assert_account(session.stats(), results)
    assert session.stats().frames_in == 40
    if drop == "none":
        assert len(results) == 40
        assert results[-1].dropped == 0
    elif slow != "nobody":
        assert sum(session.stats().dropped.values()) > 0


@pytest.mark.parametrize(("drop", "second"), [("oldest", 9), ("newest", 1)])
def test_which_frame_gives_way(hmr: Estimator, drop: Drop, second: int) -> None:
    """The worker is held with the first of ten frames; what it takes next tells who gave way."""
    held, all_came = threading.Event(), threading.Event()

    class Holding(Crowd):
        def find(self, frame: Frame, known: Result | None) -> Found:
            found = super().find(frame, known)
            held.set()
            assert all_came.wait(60)
            return found

    def source() -> Iterator[Array]:
        yield IMAGE
        assert held.wait(60)
        for _ in range(9):
            yield IMAGE
        all_came.set()

    holding = Holding({})
    with hmr.live(source(), drop=drop, finder=holding, max_age_ms=None) as session:
        results = list(session)
    assert [frame_id for frame_id, _ in holding.known] == [0, second]
    assert session.stats().dropped["queue"] == 8
    assert_account(session.stats(), results)


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_ns = 10**9

    def __call__(self) -> int:
        return self.now_ns


def test_a_frame_that_is_too_old_is_dropped_before_the_work(hmr: Estimator) -> None:
    clock = Clock()
    ages_ms = [0, 151, 150, 400, 20]
    starts = [clock.now_ns + i * 10**9 for i in range(5)]
    crowd = Crowd({})

    def source() -> Iterator[Frame]:
        for i, (start, age) in enumerate(zip(starts, ages_ms, strict=True)):
            while session.stats().in_flight:  # each is done before the clock goes on
                time.sleep(0.001)
            clock.now_ns = start + age * 10**6
            yield Frame(IMAGE, i, start)

    session = hmr.live(_later(source), clock=clock, finder=crowd)
    with session:
        results = list(session)
    assert [result.frame_id for result in results] == [0, 2, 4]
    assert [result.timestamp_ns for result in results] == [starts[i] for i in (0, 2, 4)]
    assert [result.timings_ms["age"] for result in results] == [0, 150, 20]
    assert [frame_id for frame_id, _ in crowd.known] == [0, 2, 4]
    assert session.stats().dropped["stale"] == 2
    assert_account(session.stats(), results)


def _later(source: Callable[[], Iterator[Frame]]) -> Iterator[Frame]:
    """Begin once the session is there that the source asks."""
    time.sleep(0.1)
    yield from source()


def test_times_are_those_of_capture(hmr: Estimator) -> None:
    before = time.monotonic_ns()
    with hmr.live(camera(0.3), drop="none") as session:
        results = list(session)
    times = [result.timestamp_ns for result in results]
    assert all(type(t) is int for t in times)
    assert before < times[0] < times[-1] < time.monotonic_ns()
    assert np.all(np.diff(times) > 0)


def test_bad_frames_and_bad_times_fail_alone(hmr: Estimator) -> None:
    clock = Clock()
    now = clock.now_ns
    items = [
        Frame(IMAGE, 0, now - 5),
        np.zeros((4, 4), np.uint8),  # no picture
        Frame(IMAGE, 2, now - 9),  # before the one before
        Frame(IMAGE, 3, now + 10**9),  # taken in the future
        Frame(IMAGE, 4, now + 2 * 10**9),
    ]

    with hmr.live(iter(items), clock=clock, drop="none") as session:  # type: ignore[arg-type]
        results = list(session)
    assert [result.frame_id for result in results] == [0, 1, 2, 3, 4]
    assert [result.error is None for result in results] == [True, False, False, False, False]
    assert all(isinstance(result.error, ContractError) for result in results[1:])
    assert "future" in str(results[3].error)
    assert session.stats().failed == 4
    assert_account(session.stats(), results)


def test_every_wait_and_the_age_are_told(hmr: Estimator, tmp_path: Path) -> None:
    trace = Trace()
    with hmr.live(camera(0.3), drop="none", trace=trace) as session:
        results = list(session)
    for result in results:
        spent = result.timings_ms
        stages = ("read", "wait_find", "find", "crop", "infer", "decode", "wait_out")
        assert set(spent) == {*stages, "age"}
        assert spent["age"] >= 0.9 * sum(spent[stage] for stage in stages)
    names = {event["name"] for event in trace._events}
    assert names >= {"read", "wait_find", "find", "crop", "infer", "decode", "wait_out", "age_ms"}


def test_drops_are_marked_in_the_trace(hmr: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(hmr, 0.05, monkeypatch)
    trace = Trace()
    with hmr.live(camera(0.5, 60), trace=trace) as session:
        results = list(session)
    marks = [e["args"]["frame"] for e in trace._events if e["name"].startswith("dropped")]
    assert len(marks) == sum(session.stats().dropped.values()) > 0
    assert sorted([*marks, *(result.frame_id for result in results)]) == list(range(30))


# -- on_result ------------------------------------------------------------------------------------


def test_results_go_to_the_callback_in_its_own_thread(hmr: Estimator) -> None:
    results: list[Result] = []
    threads: set[str] = set()

    def take(result: Result) -> None:
        results.append(result)
        threads.add(threading.current_thread().name)

    with (
        no_thread_left(),
        hmr.live(camera(0.3), drop="none", on_result=take, images=True) as session,
    ):
        assert session.wait(60)
    assert threads == {"glnet-deliver"}
    assert len(results) == 9
    assert all(result.image is not None for result in results)
    assert_account(session.stats(), results)


def test_a_callback_that_raises_does_not_stop_the_stream(
    hmr: Estimator, caplog: pytest.LogCaptureFixture, assert_helpful: Callable[[GlnetError], None]
) -> None:
    results: list[Result] = []

    def take(result: Result) -> None:
        results.append(result)
        if len(results) in (3, 5):
            raise ZeroDivisionError("a bug")

    with (
        caplog.at_level(logging.ERROR, "glnet_rt"),
        hmr.live(camera(0.3), drop="none", on_result=take) as session,
    ):
        with pytest.raises(CallbackError, match="ZeroDivisionError: a bug, first at frame 2") as e:
            session.wait(60)
        assert_helpful(e.value)
        assert isinstance(e.value.__cause__, ZeroDivisionError)
    assert len(results) == 9
    assert session.stats().callback_errors == 2
    assert len([r for r in caplog.records if "on_result raised" in r.message]) == 1
    assert_account(session.stats(), results)


def test_a_session_with_a_callback_is_not_iterated(hmr: Estimator) -> None:
    with (
        hmr.live(camera(0.1), on_result=lambda result: None) as session,
        pytest.raises(ContractError, match="on_result"),
    ):
        next(iter(session))


def test_a_callback_may_close_the_session(hmr: Estimator) -> None:
    results: list[Result] = []

    def take(result: Result) -> None:
        results.append(result)
        session.close()

    with no_thread_left():
        session = hmr.live(_later(lambda: camera(60)), on_result=take)  # type: ignore[arg-type]
        assert session.wait(60)
        session.close()
    assert len(results) == 1
    assert_account(session.stats(), results)


# -- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop", ["oldest", "none"])
@pytest.mark.parametrize("times", [1, 3])
def test_closing_from_other_threads(hmr: Estimator, drop: Drop, times: int) -> None:
    results: list[Result] = []
    with no_thread_left():
        session = hmr.live(camera(60), drop=drop)
        closers = [threading.Timer(0.2, session.close) for _ in range(times)]
        for closer in closers:
            closer.start()
        results.extend(session)
        for closer in closers:
            closer.join(60)
        session.close()
        assert session.wait(0)
    assert_account(session.stats(), results)
    assert 0 < session.stats().frames_in < 60 * FPS


def test_closing_without_having_looked_loses_no_count(
    hmr: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_down(hmr, 0.05, monkeypatch)
    with no_thread_left(), hmr.live(camera(60, 100), queue=4) as session:
        time.sleep(0.4)
    stats = session.stats()
    assert_account(stats, [])
    assert stats.dropped["closed"] >= 1


def test_what_ends_the_source_is_raised_after_its_frames(hmr: Estimator) -> None:
    def source() -> Iterator[Array]:
        yield from camera(0.2)
        raise SourceError("the cable was pulled")

    results: list[Result] = []
    with no_thread_left(), hmr.live(source(), drop="none") as session:
        with pytest.raises(SourceError, match="cable"):
            results.extend(session)
        with pytest.raises(SourceError, match="cable"):
            session.wait()
    assert len(results) == 6
    got: list[Result] = []
    with (
        hmr.live(source(), drop="none", on_result=got.append) as session,
        pytest.raises(SourceError, match="cable"),
    ):
        session.wait(60)
    assert len(got) == 6


def test_a_network_that_fails_ends_the_stream(
    hmr: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(batch: Array) -> object:
        raise BackendError("the device was lost")

    monkeypatch.setattr(hmr.backend, "infer", failing)
    with no_thread_left(), hmr.live(camera(60)) as session:
        with pytest.raises(BackendError, match="device was lost"):
            session.wait(60)
        with pytest.raises(BackendError, match="device was lost"):
            list(session)
    assert_account(session.stats(), [])


def test_wait_with_a_time_limit(hmr: Estimator) -> None:
    with hmr.live(camera(60)) as session:
        assert session.wait(0.05) is False


def test_a_thread_that_does_not_come_back_is_told(
    assert_helpful: Callable[[GlnetError], None],
) -> None:
    workers, gate = Workers(), threading.Event()
    workers.start("stuck", lambda: gate.wait(60) and None)
    with pytest.raises(SourceError, match="does not come back") as caught:
        workers.join(0.05)
    assert_helpful(caught.value)
    assert "glnet-stuck" in str(caught.value)
    gate.set()
    workers.join(60)


@pytest.mark.parametrize(
    "arguments",
    [{"queue": 0}, {"drop": "some"}, {"max_age_ms": 0}, {"max_age_ms": "old"}, {"K": np.eye(2)}],
)
def test_arguments_that_cannot_be_used(
    hmr: Estimator, arguments: dict[str, object], assert_helpful: Callable[[GlnetError], None]
) -> None:
    with no_thread_left(), pytest.raises(ContractError):
        hmr.live(camera(1), **arguments)  # type: ignore[arg-type]
    with no_thread_left(), pytest.raises(SourceError):
        hmr.live("nowhere.mp4")


def test_a_closed_estimator_starts_nothing(tiny_path: Path) -> None:
    estimator = glnet_rt.load(tiny_path, backend="onnxruntime")
    estimator.close()
    with no_thread_left(), pytest.raises(BackendError, match="closed"):
        estimator.live(camera(1))


def test_a_finder_that_looks_back_sees_the_last_result(hmr: Estimator) -> None:
    crowd = Crowd({1: 0}, lag=1)
    with hmr.live(camera(0.2), drop="none", finder=crowd) as session:
        results = list(session)
    assert crowd.known == [(i, i - 1 if i else None) for i in range(6)]
    assert [person.track_id for person in results[3].people] == [300]


@pytest.mark.parametrize("last_words", ["", "raise SystemError('a bug')"])
def test_a_program_that_forgets_to_close_still_ends(tiny_path: Path, last_words: str) -> None:
    code = f"""
import itertools, time
import numpy as np
import glnet_rt
hmr = glnet_rt.load({str(tiny_path)!r}, backend="onnxruntime", threads=1)
def forever():
    for _ in itertools.count():
        time.sleep(0.005)
        yield np.zeros((48, 64, 3), np.uint8)
streams = [hmr.video(forever()), hmr.live(forever()), hmr.live(forever(), on_result=print)]
next(streams[0]), next(iter(streams[1]))
{last_words}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == (1 if last_words else 0), done.stderr
    assert "terminate" not in done.stderr


# -- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for image in pictures(10):
        writer.write(image)
    writer.release()
    return path


def test_a_file_is_played_at_its_own_rate(hmr: Estimator, clip: Path) -> None:
    started = time.monotonic()
    with hmr.live(clip, drop="none") as session:
        results = list(session)
    assert [result.frame_id for result in results] == list(range(10))
    took_s = (results[-1].timestamp_ns - results[0].timestamp_ns) / 1e9
    assert 9 / 25 - 0.03 <= took_s <= time.monotonic() - started


def test_a_file_may_be_read_as_fast_as_can_be(hmr: Estimator, clip: Path) -> None:
    with hmr.live(clip, drop="none", pace=False) as session:
        results = list(session)
    assert len(results) == 10
    assert np.all(np.diff([result.timestamp_ns for result in results]) > 0)


def test_a_broken_picture_fails_alone_when_played(hmr: Estimator, tmp_path: Path) -> None:
    for i, image in enumerate(pictures(3)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    (tmp_path / "1.png").write_bytes(b"nothing")
    with hmr.live(tmp_path, drop="none") as session:
        results = list(session)
    assert [result.error is None for result in results] == [True, False, True]


# -- for long -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [60, 600])
def test_age_and_memory_stay_flat(seconds: int) -> None:
    if not STATM.exists():
        pytest.skip("memory is read from /proc")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.soak", str(seconds)], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["frames_in"] == seconds * FPS
    assert told["frames_in"] - told["frames_out"] == told["dropped"] > 0
    assert told["memory_mb"] > 0
    assert told["memory_grown_mb"] < 10, ran.stdout
    for age_ms in told["age_p99_of_halves_ms"]:
        assert age_ms <= 2 * 1000 / FPS + WORK_MS + SLACK_MS, ran.stdout
