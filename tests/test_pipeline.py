"""Videos through overlapping stages: every frame once, in order, whatever befalls one of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import glnet_rt
from glnet_rt import (
    BackendError,
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
from glnet_rt.estimator import MAX_BATCH
from tests.streams import Crowd, no_thread_left, pictures

STAGES = {
    "read", "wait_find", "find", "crop", "wait_infer", "infer", "wait_decode", "decode",
    "wait_out", "age",
}  # fmt: skip


@pytest.fixture(scope="module")
def hmr(tiny_path: Path) -> Iterator[Estimator]:
    with glnet_rt.load(tiny_path, backend="onnxruntime", threads=1) as estimator:
        yield estimator


def assert_same(got: Result, wanted: Result) -> None:
    assert got.image_size == wanted.image_size
    assert len(got.people) == len(wanted.people)
    for one, other in zip(got.people, wanted.people, strict=True):
        np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-4)
        np.testing.assert_array_equal(one.bbox_xyxy, other.bbox_xyxy)


@pytest.mark.parametrize(("batch", "streams"), [(1, 1), (4, 1), (5, 2), (MAX_BATCH, 3)])
def test_a_video_is_its_frames(hmr: Estimator, batch: int, streams: int) -> None:
    """Nobody, one, and crowds that no batch holds: each gets what a call of its own would give."""
    images = pictures(12)
    crowd = Crowd({0: 0, 1: 3, 2: 0, 3: 0, 5: 2 * MAX_BATCH + 3, 6: 4, 8: 9, 11: 0})
    with no_thread_left():
        results = list(hmr.video(images, finder=crowd, batch=batch, streams=streams))
    assert [result.frame_id for result in results] == list(range(12))
    for i, result in enumerate(results):
        assert result.error is None
        assert_same(result, hmr(images[i], boxes=crowd.boxes(i)))
        assert [person.track_id for person in result.people] == [
            100 * i + k for k in range(len(result.people))
        ]


def test_many_frames_without_people_do_not_pile_up(hmr: Estimator) -> None:
    read: list[int] = []

    def source() -> Iterator[Array]:
        for i, image in enumerate(pictures(3) * 40):
            read.append(i)
            yield image

    results = hmr.video(source(), finder=Crowd(dict.fromkeys(range(120), 0)), batch=4)
    for i, result in enumerate(results):
        assert result.frame_id == i
        assert len(read) <= i + 40, "frames were read far ahead of the one that came out"
    assert len(read) == 120


def test_batches_never_exceed_what_was_asked(
    hmr: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    infer = hmr.backend.infer
    monkeypatch.setattr(hmr.backend, "infer", lambda b: (sizes.append(len(b)), infer(b))[1])
    list(hmr.video(pictures(10), finder=Crowd({2: 7}), batch=4))
    assert sizes == [4, 4, 4, 4]  # 9 frames of one and one of seven: packed over frames


def test_reading_runs_ahead_by_a_bounded_number(hmr: Estimator) -> None:
    given: list[int] = []

    def source() -> Iterator[Array]:
        for i in range(100):
            given.append(i)
            yield pictures(1)[0]

    with no_thread_left():
        results = hmr.video(source(), batch=1)
        next(results)
        threading.Event().wait(0.5)  # time enough to read all of it, were there no bound
        results.close()
    assert 1 < len(given) < 20


def test_a_bad_frame_fails_alone(hmr: Estimator) -> None:
    images: list[Array] = pictures(6)
    images[1] = np.zeros((4, 4), np.uint8)
    outside = Crowd({4: 2})
    outside.boxes = lambda i: np.array([[0, 0, 20, 20.0] if i != 4 else [900, 900, 990, 990]])  # type: ignore[method-assign]
    results = list(hmr.video(images, finder=outside))
    assert [result.frame_id for result in results] == list(range(6))
    assert [result.frame_id for result in results if result.error] == [1, 4]
    for i in (1, 4):
        assert isinstance(results[i].error, ContractError)
        assert results[i].people == ()
    assert (results[1].image_size, results[4].image_size) == ((0, 0), (64, 48))
    assert all(len(results[i].people) == 1 for i in (0, 2, 3, 5))


def test_a_broken_picture_of_a_folder_keeps_its_place(hmr: Estimator, tmp_path: Path) -> None:
    for i, image in enumerate(pictures(4)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    (tmp_path / "2.png").write_bytes(b"nothing")
    results = list(hmr.video(tmp_path))
    assert [(r.frame_id, r.timestamp_ns) for r in results] == [
        (i, round(i * 1e9 / 30)) for i in range(4)
    ]
    assert [isinstance(r.error, SourceError) for r in results] == [False, False, True, False]


def test_times_that_do_not_grow_fail_their_frame_alone(hmr: Estimator) -> None:
    image = pictures(1)[0]
    frames = [Frame(image, i, t) for i, t in enumerate([10, 20, 20, 5, 30])]
    results = list(hmr.video(frames))
    assert [r.frame_id for r in results] == list(range(5))
    assert [r.error is None for r in results] == [True, True, False, False, True]
    assert [r.timestamp_ns for r in results if r.error is None] == [10, 20, 30]


@pytest.mark.parametrize("time", [-1, 0.5, None, "now"])
def test_a_time_that_is_none_is_refused(
    time: object, assert_helpful: Callable[[GlnetError], None]
) -> None:
    with pytest.raises(ContractError, match="capture time") as caught:
        Frame(pictures(1)[0], 0, time)  # type: ignore[arg-type]
    assert_helpful(caught.value)


def broken_source(count: int) -> Iterator[Array]:
    yield from pictures(count)
    raise RuntimeError("the cable was pulled")


def test_what_ends_the_source_comes_after_all_its_frames(hmr: Estimator) -> None:
    results: list[Result] = []
    with no_thread_left(), pytest.raises(RuntimeError, match="cable"):
        results.extend(hmr.video(broken_source(6), batch=4))
    assert [result.frame_id for result in results] == list(range(6))


def test_a_finder_that_crashes_ends_the_stream_after_the_frames_before(hmr: Estimator) -> None:
    class Crashing(Crowd):
        def find(self, frame: Frame, known: Result | None) -> Found:
            if frame.frame_id == 5:
                raise ZeroDivisionError
            return super().find(frame, known)

    results: list[Result] = []
    with no_thread_left(), pytest.raises(ZeroDivisionError):
        results.extend(hmr.video(pictures(9), finder=Crashing({}), batch=4))
    assert [result.frame_id for result in results] == list(range(5))


def test_a_network_that_fails_ends_the_stream_after_the_frames_before(
    hmr: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer, calls = hmr.backend.infer, iter(range(100))

    def failing(batch: Array) -> object:
        if next(calls) == 3:
            raise BackendError("the device was lost")
        return infer(batch)

    monkeypatch.setattr(hmr.backend, "infer", failing)
    results: list[Result] = []
    with no_thread_left(), pytest.raises(BackendError, match="device was lost"):
        results.extend(hmr.video(pictures(50), batch=2))
    assert [result.frame_id for result in results] == list(range(6))


@pytest.mark.parametrize("lag", [1, 3])
def test_a_finder_that_looks_back_sees_exactly_that_frame(hmr: Estimator, lag: int) -> None:
    crowd = Crowd({2: 0, 4: 2 * MAX_BATCH}, lag=lag)
    results = list(hmr.video(pictures(10), finder=crowd, batch=4, streams=2))
    assert len(results) == 10
    assert crowd.known == [(i, i - lag if i >= lag else None) for i in range(10)]


def test_a_finder_that_does_not_look_back_is_told_nothing(hmr: Estimator) -> None:
    crowd = Crowd({})
    list(hmr.video(pictures(4), finder=crowd))
    assert crowd.known == [(i, None) for i in range(4)]


def test_a_finder_that_looks_back_does_not_outlive_a_failed_network(
    hmr: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(batch: Array) -> object:
        raise BackendError("the device was lost")

    monkeypatch.setattr(hmr.backend, "infer", failing)
    with no_thread_left(), pytest.raises(BackendError):
        list(hmr.video(pictures(9), finder=Crowd({}, lag=1)))


def test_identities_must_match_boxes(hmr: Estimator) -> None:
    class Odd(Crowd):
        def find(self, frame: Frame, known: Result | None) -> Found:
            return Found([[0, 0, 20, 20]], [1, 2])

    (result,) = hmr.video(pictures(1), finder=Odd({}))
    assert "identities" in str(result.error)


def test_leaving_early_joins_every_thread(hmr: Estimator) -> None:
    with no_thread_left():
        for result in hmr.video(pictures(40), streams=2):
            if result.frame_id == 3:
                break
        del result


def test_every_stage_and_wait_is_timed(hmr: Estimator) -> None:
    results = list(hmr.video(pictures(5), batch=2, finder=Crowd({3: 0})))
    for result in results:
        expected = STAGES - {"crop", "decode"} if result.frame_id == 3 else STAGES
        assert set(result.timings_ms) == expected
        assert all(0 <= spent < 60_000 for spent in result.timings_ms.values())
    assert results[3].timings_ms["infer"] == 0
    whole = results[0].timings_ms
    assert whole["age"] >= whole["find"] + whole["crop"] + whole["decode"]


def test_pictures_come_along_where_asked_for(hmr: Estimator) -> None:
    images = pictures(3)
    for result, image in zip(hmr.video(images, images=True), images, strict=True):
        assert result.image is image
    assert all(result.image is None for result in hmr.video(images))


def test_opencv_gets_its_threads_back(hmr: Estimator) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        first, second = hmr.video(pictures(9)), hmr.video(pictures(9))
        next(first), next(second)
        assert cv2.getNumThreads() == 1
        first.close()
        assert cv2.getNumThreads() == 1
        second.close()
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize(
    "arguments",
    [{"batch": 0}, {"batch": MAX_BATCH + 1}, {"batch": 1.0}, {"streams": 0}, {"K": np.eye(2)},
     {"K": [[1, 1, 0], [0, 1, 0], [0, 0, 1]]}],
)  # fmt: skip
def test_arguments_that_cannot_be_used(
    hmr: Estimator, arguments: dict[str, object], assert_helpful: Callable[[GlnetError], None]
) -> None:
    with pytest.raises(ContractError):
        next(hmr.video(pictures(2), **arguments))  # type: ignore[arg-type]


def test_streams_want_a_backend_that_can(
    hmr: Estimator, monkeypatch: pytest.MonkeyPatch, assert_helpful: Callable[[GlnetError], None]
) -> None:
    monkeypatch.setattr(type(hmr.backend), "concurrent", False)
    with pytest.raises(ContractError, match="one inference at a time") as caught:
        next(hmr.video(pictures(2), streams=2))
    assert_helpful(caught.value)


def test_streams_do_run_at_the_same_time(hmr: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two inferences waits inside for the other: one at a time would never get past it."""
    infer, both = hmr.backend.infer, threading.Barrier(2)

    def meeting(batch: Array) -> object:
        both.wait(30)
        return infer(batch)

    monkeypatch.setattr(hmr.backend, "infer", meeting)
    assert len(list(hmr.video(pictures(8), batch=1, streams=2))) == 8


def test_a_trace_shows_every_stage_of_every_frame(hmr: Estimator, tmp_path: Path) -> None:
    trace = Trace()
    list(hmr.video(pictures(6), batch=2, trace=trace))
    written = json.loads(trace.write(tmp_path / "trace.json").read_text())
    events = written["traceEvents"]
    lines = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    for name, thread in (
        ("read", "glnet-read"),
        ("crop", "glnet-crop"),
        ("decode", "glnet-decode"),
    ):
        stages = [e for e in events if e["ph"] == "X" and e["name"] == name]
        assert [e["args"]["frame"] for e in stages] == list(range(6))
        assert {lines[e["tid"]] for e in stages} == {thread}
        assert all(e["dur"] >= 0 and e["ts"] > 0 for e in stages)
    infers = [e for e in events if e["ph"] == "X" and e["name"] == "infer"]
    assert [e["args"]["people"] for e in infers] == [2, 2, 2]
    begun = sorted((e["name"], e["id"]) for e in events if e["ph"] == "b")
    assert begun == sorted((e["name"], e["id"]) for e in events if e["ph"] == "e")
    assert len(begun) == 6 * 4


def test_a_trace_is_bounded() -> None:
    trace = Trace(max_events=10)
    for i in range(100):
        trace.stage("work", i, i, i + 1)
    assert [e["args"]["frame"] for e in trace._events] == list(range(90, 100))
