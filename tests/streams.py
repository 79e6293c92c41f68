"""What the tests of streams share: who may look where, slow networks, and who is still running."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pytest

from glnet_rt import Estimator, Found, Frame, Result
from glnet_rt.contracts import Array


def pictures(count: int) -> list[Array]:
    """Small pictures, each of another brightness, so that their people differ."""
    ramp = np.arange(48 * 64 * 3, dtype=np.int64).reshape(48, 64, 3)
    return [((ramp * (i + 1)) % 251).astype(np.uint8) for i in range(count)]


class Crowd:
    """A finder of a planned number of people per frame, each under an identity of its own."""

    def __init__(self, counts: Mapping[int, int], lag: int = 0) -> None:
        self.lag = lag
        self.counts = counts
        self.known: list[tuple[int, int | None]] = []

    def boxes(self, frame_id: int) -> Array:
        rng = np.random.default_rng(frame_id)
        corner = rng.uniform(0, 20, (self.counts.get(frame_id, 1), 2))
        return np.hstack([corner, corner + rng.uniform(10, 20, corner.shape)])

    def find(self, frame: Frame, known: Result | None) -> Found:
        self.known.append((frame.frame_id, None if known is None else known.frame_id))
        boxes = self.boxes(frame.frame_id)
        return Found(boxes, [100 * frame.frame_id + i for i in range(len(boxes))])


def slow_down(estimator: Estimator, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every inference take at least so long, as a larger network would."""
    infer = estimator.backend.infer

    def slow(batch: Array) -> Mapping[str, Array]:
        started = time.perf_counter()
        outputs = infer(batch)
        time.sleep(max(0.0, seconds - (time.perf_counter() - started)))
        return outputs

    monkeypatch.setattr(estimator.backend, "infer", slow)


@contextmanager
def no_thread_left() -> Iterator[None]:
    """Fail where a thread started inside outlives the block."""
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    assert not [name for name in left if name.startswith("glnet-")]
