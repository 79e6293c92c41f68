"""What happened when: the milliseconds of each stage of a frame, and a trace of all of them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_EVENTS = 200_000  # kept by a Trace, about 50 MB; the oldest go first


class Trace:
    """A record of stages, waits and drops that Perfetto and chrome://tracing open.

    Each thread is a line of stages, each wait in a queue a line of its own, each lost frame a mark.
    May be written to from any thread. Bounded: a long stream keeps its last events.

    Args:
        max_events: how many are kept.
    """

    def __init__(self, max_events: int = MAX_EVENTS) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=max_events)
        self._threads: dict[int, str] = {}

    def stage(self, name: str, frame: int, start_ns: int, end_ns: int, **told: int) -> None:
        """One stage of a frame, on the line of the thread that calls.

        Args:
            name: of the stage.
            frame: its position in the source; of a batch, that of the first.
            start_ns, end_ns: of `time.perf_counter_ns`.
            told: what else to show of it.
        """
        took = (end_ns - start_ns) / 1000
        self._add("X", name, start_ns, dur=took, args={"frame": frame, **told})

    def wait(self, name: str, frame: int, start_ns: int, end_ns: int) -> None:
        """The time a frame lay in a queue; several may lie there at once."""
        told = {"cat": "queue", "id": f"{name}-{frame}"}
        self._add("b", name, start_ns, **told, args={"frame": frame})
        self._add("e", name, end_ns, **told)

    def drop(self, why: str, frame: int) -> None:
        """A frame that was lost now."""
        now_ns = time.perf_counter_ns()
        self._add("i", f"dropped: {why}", now_ns, s="p", args={"frame": frame})

    def number(self, name: str, value: float) -> None:
        """A value that is drawn as a curve over time."""
        self._add("C", name, time.perf_counter_ns(), args={name: value})

    def write(self, path: str | Path) -> Path:
        """Write everything kept so far as Chrome's trace JSON; times in it are µs."""
        path, process = Path(path), {"pid": os.getpid()}
        names = [
            {"ph": "M", "name": "thread_name", "tid": thread, "args": {"name": name}, **process}
            for thread, name in list(self._threads.items())
        ]
        events = names + [{**event, **process} for event in list(self._events)]
        text = json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
        path.write_text(text, encoding="utf-8")
        return path

    def _add(self, phase: str, name: str, at_ns: int, **more: Any) -> None:
        thread = threading.get_ident()
        self._threads[thread] = threading.current_thread().name
        self._events.append({"ph": phase, "name": name, "ts": at_ns / 1000, "tid": thread, **more})


class Timings:
    """Wall milliseconds by stage of one frame, and the same as events of a trace.

    Args:
        frame: position of the frame in its source.
        trace: where the events go; None keeps the sums alone.

    Attributes:
        ms: stage -> milliseconds so far.
    """

    __slots__ = ("_frame", "_trace", "ms")

    def __init__(self, frame: int = 0, trace: Trace | None = None) -> None:
        self.ms: dict[str, float] = {}
        self._frame = frame
        self._trace = trace

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall time of the block."""
        started = time.perf_counter_ns()
        try:
            yield
        finally:
            self.add_stage(name, started, time.perf_counter_ns())

    def add_stage(self, name: str, start_ns: int, end_ns: int) -> None:
        """Add a stage that is over."""
        self.add(name, end_ns - start_ns)
        if self._trace is not None:
            self._trace.stage(name, self._frame, start_ns, end_ns)

    def add_wait(self, name: str, start_ns: int, end_ns: int) -> None:
        """Add a time spent in a queue."""
        self.add(name, end_ns - start_ns)
        if self._trace is not None:
            self._trace.wait(name, self._frame, start_ns, end_ns)

    def add(self, name: str, ns: float) -> None:
        """Add to the sums alone."""
        self.ms[name] = self.ms.get(name, 0.0) + ns / 1e6
