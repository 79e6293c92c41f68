"""One frame on its way through the stages of a stream."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np

from glnet_rt.contracts import Array, Frame, Person, Result
from glnet_rt.errors import ContractError, GlnetError, SourceError
from glnet_rt.finder import BoxFinder, as_settler, look, named
from glnet_rt.stream.source import FailedFrame
from glnet_rt.trace import Timings, Trace

FRAME_ERRORS = (ContractError, SourceError)  # these fail one frame; any other ends the stream


@dataclass(slots=True, eq=False)
class Passage:
    """A frame, and what the stages have made of it so far. One stage at a time holds it.

    Attributes:
        sequence: position among all that the source gave, from 0.
        frame_id, timestamp_ns: the frame's own.
        frame: the picture; None where it could not be read, and once it is no longer needed.
        image_size: (width, height), px; (0, 0) where it could not be read.
        K: of the frame.
        timings: of its stages and waits.
        error: why it gives no people, or None.
        boxes: [N, 4] float64, edges in image px.
        track_ids: one per box.
        people: those decoded so far.
        begun_ns, queued_ns: when it came, and began to wait for the next stage, of
            `time.perf_counter_ns`.
    """

    sequence: int
    frame_id: int
    timestamp_ns: int
    frame: Frame | None
    timings: Timings
    image_size: tuple[int, int] = (0, 0)
    K: Array | None = None
    error: GlnetError | None = None
    boxes: Array = field(default_factory=lambda: np.empty((0, 4)))
    track_ids: tuple[int | None, ...] = ()
    people: list[Person] = field(default_factory=list)
    queued_ns: int = 0
    begun_ns: int = field(default_factory=time.perf_counter_ns)

    @classmethod
    def of(
        cls, item: Frame | FailedFrame, sequence: int, trace: Trace | None, K: Array | None
    ) -> Passage:
        """What a source gave, at its start; K goes before the frame's own."""
        timings = Timings(sequence, trace)
        if isinstance(item, FailedFrame):
            return cls(sequence, item.frame_id, item.timestamp_ns, None, timings, error=item.error)
        height, width = item.image.shape[:2]
        if K is not None:
            item = replace(item, K=K)
        time_ns = int(item.timestamp_ns)
        return cls(sequence, item.frame_id, time_ns, item, timings, (width, height), item.K)

    def fail(self, error: GlnetError) -> None:
        """This frame gives no people, because of `error`."""
        self.error, self.people = error, []

    def find(self, finder: BoxFinder, known: Result | None) -> None:
        """Ask who is where; a frame of which that cannot be said fails."""
        if self.frame is None or self.error is not None:
            return
        with self.timings.stage("find"):
            try:
                self.boxes, self.track_ids = look(finder, self.frame, known)
            except FRAME_ERRORS as error:
                self.fail(error)

    def settle(self, finder: BoxFinder, faces: Array) -> None:
        """Name the people, and let the finder have the last word; a frame it refuses fails."""
        if self.error is not None:
            return
        self.people = list(named(self.people, self.track_ids))
        settler = as_settler(finder)
        if settler is None:
            return
        with self.timings.stage("settle"):
            try:
                self.people = list(settler.settle(self.result(faces)).people)
            except FRAME_ERRORS as error:
                self.fail(error)

    def queue(self) -> None:
        """It now waits for the next stage."""
        self.queued_ns = time.perf_counter_ns()

    def unqueue(self, stage: str) -> None:
        """The wait for `stage` is over."""
        self.timings.add_wait(f"wait_{stage}", self.queued_ns, time.perf_counter_ns())

    def result(self, faces: Array, *, dropped: int = 0) -> Result:
        """What is handed out."""
        return Result(
            people=tuple(self.people),
            frame_id=self.frame_id,
            timestamp_ns=self.timestamp_ns,
            image_size=self.image_size,
            faces=faces,
            timings_ms=dict(self.timings.ms),
            error=self.error,
            dropped=dropped,
            image=None if self.frame is None else self.frame.image,
        )
