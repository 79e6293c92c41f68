"""`python -m tests.soak SECONDS`: one long stream that is held to every account; prints JSON.

A process of its own: a test run's is full of what others have loaded and left.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from benchmarks.live import soak
from glnet_rt import Result, Trace
from tests.streams import no_thread_left


class Watch:
    """Each result says what was dropped before it and is younger than the last; ages by halves."""

    def __init__(self, seconds: int) -> None:
        self.half_s = seconds / 2
        self.started: float | None = None
        self.count, self.previous_ns = 0, 0
        self.ages: list[list[float]] = [[], []]

    def __call__(self, result: Result) -> None:
        now = time.monotonic()
        if self.started is None:
            self.started = now
        assert result.dropped == result.frame_id - self.count
        assert result.timestamp_ns > self.previous_ns
        self.count, self.previous_ns = self.count + 1, result.timestamp_ns
        self.ages[now - self.started > self.half_s].append(result.timings_ms["age"])


def main() -> None:
    seconds = int(sys.argv[1])
    watch = Watch(seconds)
    with no_thread_left():
        told = soak(seconds, watch, Trace(max_events=1000))
    halves = [float(np.percentile(half, 99)) for half in watch.ages]
    print(json.dumps({**told, "age_p99_of_halves_ms": halves}))


if __name__ == "__main__":
    main()
