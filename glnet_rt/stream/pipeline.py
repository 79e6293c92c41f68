"""A video through stages that overlap: every frame comes out, in order.

    read -> find, crop -> infer (one thread or several) -> decode -> whoever iterates

Each arrow is a bounded queue, so memory does not grow with the video. Crops are packed, in order,
into batches that may hold people of several frames, and a frame's people may be split over two.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt._closing import Closing
from glnet_rt.contracts import Array, Crop, Frame, NetOutput, Result
from glnet_rt.crop import cut_crops
from glnet_rt.errors import ContractError
from glnet_rt.estimator import MAX_BATCH, MAX_STREAMS, Estimator
from glnet_rt.finder import BoxFinder
from glnet_rt.stream.channel import Channel, ChannelClosed
from glnet_rt.stream.passage import FRAME_ERRORS, Passage
from glnet_rt.stream.source import Source, open_source
from glnet_rt.stream.workers import SingleThreadedOpenCV, Workers, close_at_exit
from glnet_rt.trace import Trace

DEPTH = 2  # frames that may wait between two stages; more only costs memory


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """People of one frame that go through the network together.

    Attributes:
        passage: their frame.
        pixels: [n, 3, S, S] float32; None where the frame has nobody.
        crops: n of them.
        last: whether the frame has no more people.
        ready_ns: when it was cut, of `time.perf_counter_ns`.
    """

    passage: Passage
    pixels: Array | None
    crops: tuple[Crop, ...]
    last: bool
    ready_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Inferred:
    """What the network said about a batch, None where it held nobody; when it ran, and how many."""

    output: NetOutput | None
    start_ns: int
    end_ns: int
    people: int


class VideoPipeline(Closing):
    """Runs a source through an estimator. Iterate it once; `close` joins every thread.

    Args:
        estimator: crops, infers, decodes.
        source: as for `open_source`; closed with the pipeline.
        K: [3, 3] float64 intrinsics, px, for every frame, or None for each frame's own.
        finder: says where the people are.
        batch: crops per inference, 1 to MAX_BATCH.
        streams: inferences at a time, 1 to MAX_STREAMS.
        images: whether each result carries its frame's picture.
        trace: notes every stage and wait.

    Raises:
        ContractError: a number out of its range, or a backend that runs one inference at a time
            asked for several.
    """

    def __init__(
        self,
        estimator: Estimator,
        source: str | Path | int | Iterable[Array | Frame] | Source,
        *,
        K: Array | None,
        finder: BoxFinder,
        batch: int,
        streams: int,
        images: bool,
        trace: Trace | None,
    ) -> None:
        _check_count("batch", batch, MAX_BATCH)
        _check_count("streams", streams, MAX_STREAMS)
        if streams > 1 and not estimator.backend.concurrent:
            raise ContractError(
                "this backend runs one inference at a time",
                got=f"streams={streams} on {estimator.backend.name}",
                expected="streams=1",
                fix="leave streams out; a larger batch is what fills a GPU",
            )
        self._estimator = estimator
        self._source = open_source(source)
        self._K = K
        self._finder = finder
        self._batch = batch
        self._images = images
        self._trace = trace
        self._frames: Channel[Passage] = Channel(DEPTH)
        self._inferring: Channel[tuple[list[Part], Future[Inferred]]] = Channel(streams + 1)
        self._done: Channel[Passage] = Channel(DEPTH)
        self._known = _Board()
        self._quiet = SingleThreadedOpenCV()
        self._pool = ThreadPoolExecutor(streams, thread_name_prefix="glnet-infer")
        self._workers = Workers()
        close_at_exit(self)

    def __iter__(self) -> Iterator[Result]:
        """Results in order; raises what ended the stream once all before it came out."""
        self._workers.start("decode", self._as_stage(self._decode, self._inferring, self._done))
        self._workers.start("crop", self._as_stage(self._prepare, self._frames, self._inferring))
        self._workers.start("read", self._as_stage(self._read, None, self._frames))
        for passage in self._done:
            passage.unqueue("out")
            passage.timings.add("age", time.perf_counter_ns() - passage.begun_ns)
            yield self._result(passage)

    def close(self) -> None:
        """Stop, join every thread, close the source. Calling it again does nothing."""
        self._source.cancel()
        self._known.close()
        for channel in (self._frames, self._inferring, self._done):
            channel.close()
        self._pool.shutdown(cancel_futures=True)
        try:
            self._workers.join()
        finally:
            self._quiet.close()
        self._source.close()

    def _as_stage(
        self, work: Callable[[], None], inbox: Channel[Any] | None, outbox: Channel[Any]
    ) -> Callable[[], None]:
        """A thread's work whose end, good or bad, the next stage hears of and the last one too."""

        def run() -> None:
            error: BaseException | None = None
            try:
                work()
            except ChannelClosed:
                pass  # who takes the items has gone, and knows why
            except BaseException as caught:  # handed on, and raised where results are taken
                error = caught
            outbox.end(error)
            if inbox is not None:
                inbox.close()

        return run

    def _read(self) -> None:
        items = self._source.items()
        for sequence in count():
            started = time.perf_counter_ns()
            item = next(items, None)
            if item is None:
                return
            passage = Passage.of(item, sequence, self._trace, self._K)
            passage.timings.add_stage("read", started, passage.begun_ns)
            passage.queue()
            self._frames.put(passage)

    def _prepare(self) -> None:
        """Find and cut; what was cut is submitted even where something breaks off."""
        parts: list[Part] = []
        try:
            for passage in self._frames:
                passage.unqueue("find")
                lag = self._finder.lag
                known = self._known.get(passage.sequence - lag) if lag else None
                passage.find(self._finder, known)
                parts = self._pack(passage, parts, flush=lag > 0)
        finally:
            if parts:
                self._submit(parts)

    def _pack(self, passage: Passage, parts: list[Part], *, flush: bool) -> list[Part]:
        """Append a frame's crops to a batch, submit each that is full; returns the one begun.

        A batch is full too when it holds that many frames: of those without people it would
        otherwise gather any number.
        """
        start, total = 0, len(passage.boxes)
        room = self._batch - sum(len(part.crops) for part in parts)
        while True:
            stop = min(total, start + room)
            parts.append(self._cut(passage, slice(start, stop), last=stop == total))
            room -= stop - start
            if room == 0 or len(parts) == self._batch or flush:
                self._submit(parts)
                parts, room = [], self._batch
            start = stop
            if stop == total:
                return parts

    def _cut(self, passage: Passage, rows: slice, *, last: bool) -> Part:
        pixels: Array | None = None
        crops: tuple[Crop, ...] = ()
        boxes = passage.boxes[rows]
        if passage.frame is not None and len(boxes):
            with passage.timings.stage("crop"):
                pixels, crops = cut_crops(
                    passage.frame.image, boxes, self._estimator.spec, passage.frame_id
                )
        if last and not self._images:
            passage.frame = None  # only crops wait for the network, not whole pictures
        return Part(passage, pixels, crops, last, time.perf_counter_ns())

    def _submit(self, parts: list[Part]) -> None:
        self._inferring.put((parts, self._pool.submit(self._infer, parts)))

    def _infer(self, parts: list[Part]) -> Inferred:
        started = time.perf_counter_ns()
        pixels = [part.pixels for part in parts if part.pixels is not None]
        if not pixels:
            return Inferred(None, started, started, 0)
        batch = np.concatenate(pixels) if len(pixels) > 1 else pixels[0]
        output = self._estimator.infer(batch)
        ended = time.perf_counter_ns()
        if self._trace is not None:
            first = parts[0].passage.sequence
            self._trace.stage("infer", first, started, ended, people=len(batch))
        return Inferred(output, started, ended, len(batch))

    def _decode(self) -> None:
        for parts, future in self._inferring:
            inferred, row = future.result(), 0
            for part in parts:
                rows = slice(row, row + len(part.crops))
                row = rows.stop
                _note_inference(part, inferred)
                if inferred.output is not None and part.crops:
                    self._decode_part(part, inferred.output.rows(rows))
                if part.last:
                    self._finish(part.passage)

    def _decode_part(self, part: Part, output: NetOutput) -> None:
        passage = part.passage
        if passage.error is not None:
            return
        with passage.timings.stage("decode"):
            try:
                passage.people.extend(
                    self._estimator.decode(output, part.crops, passage.image_size, passage.K)
                )
            except FRAME_ERRORS as error:
                passage.fail(error)

    def _finish(self, passage: Passage) -> None:
        passage.settle(self._finder, self._estimator.body.faces)
        if self._finder.lag:
            self._known.put(passage.sequence, self._result(passage))
        passage.queue()
        self._done.put(passage)

    def _result(self, passage: Passage) -> Result:
        return passage.result(self._estimator.body.faces)


def _note_inference(part: Part, inferred: Inferred) -> None:
    """The frames of a batch share its time by their people; each waited on both sides of it."""
    timings = part.passage.timings
    timings.add_wait("wait_infer", part.ready_ns, inferred.start_ns)
    timings.add(
        "infer", (inferred.end_ns - inferred.start_ns) * len(part.crops) / max(inferred.people, 1)
    )
    timings.add_wait("wait_decode", inferred.end_ns, time.perf_counter_ns())


class _Board:
    """Results that the finder is going to ask for, by sequence; each is asked for once."""

    def __init__(self) -> None:
        self._results: dict[int, Result] = {}
        self._changed = threading.Condition()
        self._closed = False

    def put(self, sequence: int, result: Result) -> None:
        with self._changed:
            self._results[sequence] = result
            self._changed.notify_all()

    def get(self, sequence: int) -> Result | None:
        """The result, once it is there; None before the first.

        Raises:
            ChannelClosed: it will not come.
        """
        if sequence < 0:
            return None
        with self._changed:
            self._changed.wait_for(lambda: self._closed or sequence in self._results)
            if self._closed:
                raise ChannelClosed
            return self._results.pop(sequence)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _check_count(name: str, value: object, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise ContractError(
            f"{name} is out of range",
            got=repr(value),
            expected=f"a whole number from 1 to {most}",
            fix=f"leave {name} out",
        )
