"""A live stream: the newest frame at once rather than every frame late.

    capture -> [queue] -> find, crop, infer, decode -> [queue] -> on_result, or whoever iterates

One frame is worked on at a time: a second one in flight would only grow older. What comes meanwhile
waits in a queue that drops, so the age of results is bounded by the work on one frame, not by how
long the stream has been running.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from glnet_rt._closing import Closing
from glnet_rt.contracts import Array, Frame, Result
from glnet_rt.errors import CallbackError, ContractError
from glnet_rt.estimator import Estimator
from glnet_rt.finder import BoxFinder
from glnet_rt.stream.channel import Channel, ChannelClosed, Drop
from glnet_rt.stream.passage import FRAME_ERRORS, Passage
from glnet_rt.stream.source import FailedFrame, Source, open_source
from glnet_rt.stream.workers import SingleThreadedOpenCV, Workers, close_at_exit
from glnet_rt.trace import Trace

log = logging.getLogger(__name__)
NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class LiveStats:
    """Where every frame has gone. frames_in = frames_out + in_flight + all of `dropped`, always.

    Attributes:
        frames_in: taken from the source.
        frames_out: handed out as results.
        failed: of these, the ones with an error instead of people.
        dropped: lost frames by reason: `queue` gave way before the work, `stale` was older than
            max_age_ms, `result` gave way after the work, `closed` was under way at `close`.
        in_flight: queued or worked on now; 0 once the stream is over.
        callback_errors: how often on_result raised.
        reconnects: how often the source was lost and came back.
    """

    frames_in: int = 0
    frames_out: int = 0
    failed: int = 0
    dropped: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("queue", "stale", "result", "closed"), 0)
    )
    in_flight: int = 0
    callback_errors: int = 0
    reconnects: int = 0


class _Ledger:
    """Counts every frame in once, and out or lost once."""

    def __init__(self, trace: Trace | None) -> None:
        self._lock = threading.Lock()
        self._trace = trace
        self._in = self._out = self._failed = 0
        self._dropped = LiveStats().dropped

    def take_in(self) -> int:
        """A frame came; its place among all, from 0."""
        with self._lock:
            self._in += 1
            return self._in - 1

    def drop(self, why: str, passage: Passage) -> None:
        """A frame was lost."""
        with self._lock:
            self._dropped[why] += 1
        if self._trace is not None:
            self._trace.drop(why, passage.sequence)

    def hand_out(self, passage: Passage) -> int:
        """A frame goes out; how many of those before it never did, since order is kept."""
        with self._lock:
            self._out += 1
            self._failed += passage.error is not None
            return passage.sequence - (self._out - 1)

    def stats(self, callback_errors: int, reconnects: int) -> LiveStats:
        with self._lock:
            in_flight = self._in - self._out - sum(self._dropped.values())
            return LiveStats(
                self._in,
                self._out,
                self._failed,
                dict(self._dropped),
                in_flight,
                callback_errors,
                reconnects,
            )


class LiveSession(Closing):
    """A running live stream; `Estimator.live` starts one.

    Iterate it, or give `on_result`. It ends when its source does, or with `close`, which any thread
    may call.

    Args: see `Estimator.live`; K is checked already.
    """

    def __init__(
        self,
        estimator: Estimator,
        source: str | Path | int | Iterable[Array | Frame] | Source,
        *,
        queue: int,
        drop: Drop,
        max_age_ms: float | None,
        on_result: Callable[[Result], None] | None,
        K: Array | None,
        finder: BoxFinder,
        images: bool,
        pace: bool,
        trace: Trace | None,
        clock: Callable[[], int] | None,
    ) -> None:
        _check_age(max_age_ms)
        self._clock = time.monotonic_ns if clock is None else clock
        self._ledger = _Ledger(trace)
        self._inbox = Channel[Passage](queue, drop, lambda lost: self._lose("queue", lost))
        self._outbox = Channel[Passage](queue, drop, lambda lost: self._lose("result", lost))
        self._estimator = estimator
        self._max_age_ms = None if drop == "none" else max_age_ms
        self._on_result = on_result
        self._K = K
        self._finder = finder
        self._images = images
        self._pace = pace
        self._trace = trace
        self._closed = threading.Event()
        self._ending = threading.Event()  # what is lost from now on is lost to the end
        self._over = threading.Event()
        self._taking = threading.Lock()
        self._error: BaseException | None = None
        self._callback_error: CallbackError | None = None
        self._callback_errors = 0
        self.source = open_source(source, clock=self._clock)
        self._quiet = SingleThreadedOpenCV()
        self._workers = Workers()
        close_at_exit(self)
        if on_result is not None:
            self._workers.start("deliver", self._deliver)
        self._workers.start("work", self._work)
        self._workers.start("capture", self._capture)

    # -- for whoever uses it ----------------------------------------------------------------------

    def __iter__(self) -> Iterator[Result]:
        """Results in capture order, as they come.

        Raises:
            ContractError: the session has on_result, which gets them all.
            SourceError, BackendError: what ended the stream, once all before it came out.
        """
        if self._on_result is not None:
            raise ContractError(
                "the results of this session go to its on_result",
                got="a loop over it",
                expected="either on_result or a loop",
                fix="leave out on_result, or wait() for the end",
            )
        while (passage := self._take()) is not None:
            yield self._result(*passage)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the stream is over. With drop="none" somebody must take the results meanwhile.

        Returns:
            Whether it is over.

        Raises:
            SourceError, BackendError: what ended it.
            CallbackError: it is over, and on_result raised; the first error is the cause.
        """
        if not self._over.wait(timeout_s):
            return False
        if self._error is not None:
            raise self._error
        if self._callback_error is not None:
            raise self._callback_error
        return True

    def stats(self) -> LiveStats:
        """Where every frame has gone so far."""
        reconnects = getattr(self.source, "reconnects", 0)
        return self._ledger.stats(self._callback_errors, reconnects)

    def close(self) -> None:
        """Stop, drop what is under way, join every thread, close the source.

        Any thread may call it, on_result too, and as often as it likes.

        Raises:
            SourceError: the source or on_result does not return.
        """
        self._closed.set()
        self._ending.set()
        self.source.cancel()
        self._inbox.close()
        self._outbox.close()
        try:
            self._workers.join()
        finally:
            self._quiet.close()
            self._over.set()
        self.source.close()

    # -- threads ----------------------------------------------------------------------------------

    def _capture(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items():
                passage = Passage.of(item, self._ledger.take_in(), self._trace, self._K)
                self._note_reading(passage)
                passage.queue()
                self._put(self._inbox, passage)
        except ChannelClosed:
            pass
        except BaseException as caught:  # handed on, and raised where results are taken
            error = caught
        self._inbox.end(error)

    def _items(self) -> Iterator[Frame | FailedFrame]:
        """What the source gives; files as a player shows them, stamped when they are."""
        played = self.source.kind in ("image", "folder", "video")
        items = self.source.items()
        return _play(items, self._pace, self._clock, self._closed) if played else items

    def _work(self) -> None:
        error: BaseException | None = None
        known: Result | None = None
        try:
            for passage in self._inbox:
                passage.unqueue("find")
                if self._is_stale(passage):
                    self._lose("stale", passage)
                    continue
                try:
                    self._estimate(passage, known)
                except BaseException:  # it ends the stream
                    self._ending.set()
                    self._lose("closed", passage)
                    raise
                if self._finder.lag:
                    known = passage.result(self._estimator.body.faces)
                if not self._images:
                    passage.frame = None
                passage.queue()
                self._put(self._outbox, passage)
        except ChannelClosed:
            pass
        except BaseException as caught:
            error = caught
        self._end_work(error)

    def _end_work(self, error: BaseException | None) -> None:
        """Nothing more will come out; without a thread that delivers, the stream is over."""
        if error is not None:
            self._ending.set()
            if not self._closed.is_set():
                self._error = error
        self._inbox.close()
        self._outbox.end(error)
        if self._on_result is None:
            self._over.set()
        if error is not None:
            self.source.cancel()

    def _deliver(self) -> None:
        """Call on_result; what it raises is told, and the next result comes all the same."""
        assert self._on_result is not None
        try:
            while (passage := self._take()) is not None:
                result = self._result(*passage)
                try:
                    self._on_result(result)
                except Exception as error:
                    self._note_callback_error(error, result)
        except BaseException:
            log.debug("the stream ended with an error, which wait() raises", exc_info=True)
        self._over.set()

    # -- one frame --------------------------------------------------------------------------------

    def _estimate(self, passage: Passage, known: Result | None) -> None:
        if passage.frame is not None and self._age_ms(passage) < 0:
            passage.fail(_from_the_future(-self._age_ms(passage)))
        passage.find(self._finder, known)
        if passage.frame is None or passage.error is not None:
            return
        try:
            passage.people = list(
                self._estimator.people(passage.frame, passage.boxes, passage.timings)
            )
        except FRAME_ERRORS as error:
            passage.fail(error)
        passage.settle(self._finder, self._estimator.body.faces)

    def _note_reading(self, passage: Passage) -> None:
        """What has passed since the frame was taken."""
        now_ns, age_ms = time.perf_counter_ns(), self._age_ms(passage)
        if passage.frame is not None and age_ms >= 0:
            passage.timings.add_stage("read", now_ns - round(age_ms * 1e6), now_ns)

    def _put(self, channel: Channel[Passage], passage: Passage) -> None:
        try:
            channel.put(passage)
        except ChannelClosed:
            self._lose("closed", passage)
            raise

    def _lose(self, why: str, passage: Passage) -> None:
        self._ledger.drop("closed" if self._ending.is_set() else why, passage)

    def _take(self) -> tuple[Passage, int] | None:
        """The next frame to hand out and how many were dropped before it; None at the end."""
        with self._taking:  # two who iterate must not count in another order than they take
            try:
                passage = self._outbox.get()
            except ChannelClosed:
                return None
            return passage, self._ledger.hand_out(passage)

    def _result(self, passage: Passage, dropped: int) -> Result:
        passage.unqueue("out")
        if passage.timestamp_ns:
            passage.timings.ms["age"] = self._age_ms(passage)
            if self._trace is not None:
                self._trace.number("age_ms", passage.timings.ms["age"])
        return passage.result(self._estimator.body.faces, dropped=dropped)

    def _age_ms(self, passage: Passage) -> float:
        return (self._clock() - passage.timestamp_ns) / 1e6

    def _is_stale(self, passage: Passage) -> bool:
        if self._max_age_ms is None or passage.error is not None:
            return False
        return self._age_ms(passage) > self._max_age_ms

    def _note_callback_error(self, error: Exception, result: Result) -> None:
        self._callback_errors += 1
        if self._callback_error is None:
            log.error("on_result raised; the stream goes on", exc_info=error)
            self._callback_error = CallbackError(
                "on_result raised",
                got=f"{type(error).__name__}: {error}, first at frame {result.frame_id}",
                expected="a function that returns",
                fix="catch there what may go wrong; the stream went on all the same",
            )
            self._callback_error.__cause__ = error


def _play(
    items: Iterator[Frame | FailedFrame],
    pace: bool,
    clock: Callable[[], int],
    stop: threading.Event,
) -> Iterator[Frame | FailedFrame]:
    """Frames of a file as if they were taken now: each when it is due, with the time it then is.

    A file that is read too slowly is played more slowly; it does not try to catch up.
    """
    offset_ns, last_ns = None, -1
    for item in items:
        if stop.is_set():
            return
        if isinstance(item, FailedFrame):
            yield item
            continue
        if pace:
            ahead_ns = 0 if offset_ns is None else item.timestamp_ns + offset_ns - clock()
            if ahead_ns <= 0:
                offset_ns = clock() - item.timestamp_ns
            elif stop.wait(ahead_ns / NS_PER_S):
                return
        last_ns = max(clock(), last_ns + 1)
        yield replace(item, timestamp_ns=last_ns)


def _check_age(max_age_ms: object) -> None:
    if max_age_ms is None:
        return
    if not isinstance(max_age_ms, (int, float)) or not max_age_ms > 0:
        raise ContractError(
            "max_age_ms is no age",
            got=repr(max_age_ms),
            expected="milliseconds > 0, or None for any age",
            fix="leave it out for 150 ms",
        )


def _from_the_future(by_ms: float) -> ContractError:
    return ContractError(
        "the frame was taken in the future",
        got=f"a capture time {by_ms:.1f} ms after now",
        expected="a time of the clock that ages are measured with",
        fix="stamp frames with time.monotonic_ns(), or name their clock: live(clock=time.time_ns)",
    )
