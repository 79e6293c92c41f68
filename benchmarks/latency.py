"""`python -m benchmarks.latency`: milliseconds per stage and frames per second, by people a frame.

Everything a live application pays for is inside: crop, inference, decoding to vertices; decoding
the video is not. Frames are 1280x720 noise, so no stage can profit from flat pictures.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import glnet_rt
from benchmarks._record import write
from glnet_rt.contracts import Array
from train.tables import markdown_table

STAGES = ("crop", "infer", "decode")
WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--artifact", help="default: the one in the package")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--people", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    rows = []
    for threads in arguments.threads:
        started = time.perf_counter()
        with glnet_rt.load(arguments.artifact, threads=threads) as hmr:
            hmr(noise(0))
            cold_s = time.perf_counter() - started
            for people in arguments.people:
                row = measure(hmr, people, arguments.frames)
                rows.append({"threads": threads, "people": people, "cold_start_s": cold_s, **row})
    path = write("latency", {"frame": "1280x720", "frames": arguments.frames, "rows": rows})
    print(table(rows))
    print(f"wrote {path.relative_to(path.parents[2])}")


def measure(hmr: Callable[..., Any], people: int, frames: int) -> dict[str, float]:
    """p50, p90, p99 and max of the whole call in ms, p50 per stage, and frames per second."""
    boxes = person_boxes(people)
    totals: list[float] = []
    stages: dict[str, list[float]] = {name: [] for name in STAGES}
    pictures = [noise(i) for i in range(4)]
    for i in range(WARM_UP + frames):
        started = time.perf_counter_ns()
        result = hmr(pictures[i % len(pictures)], boxes=boxes)
        elapsed = (time.perf_counter_ns() - started) / 1e6
        if i >= WARM_UP:
            totals.append(elapsed)
            for name in STAGES:
                stages[name].append(result.timings_ms[name])
    percentiles = np.percentile(totals, [50, 90, 99, 100])
    row = dict(zip(("p50_ms", "p90_ms", "p99_ms", "max_ms"), map(float, percentiles), strict=True))
    row |= {f"{name}_ms": statistics.median(values) for name, values in stages.items()}
    return {**row, "fps": 1000 / row["p50_ms"]}


def noise(seed: int) -> Array:
    """[720, 1280, 3] uint8."""
    return np.random.default_rng(seed).integers(0, 256, (720, 1280, 3), np.uint8)


def person_boxes(people: int) -> Array:
    """[people, 4], upright boxes side by side."""
    left = np.linspace(20, 1280 - 220, people)
    return np.stack([left, np.full(people, 150.0), left + 200, np.full(people, 600.0)], axis=1)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    names = ["threads", "people", "p50_ms", "p99_ms", *(f"{s}_ms" for s in STAGES), "fps"]
    cells = [
        [f"{row[n]:.2f}" if isinstance(row[n], float) else str(row[n]) for n in names]
        for row in rows
    ]
    return markdown_table(names, cells)


if __name__ == "__main__":
    main()
