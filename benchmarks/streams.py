"""`python -m benchmarks.streams`: what batches and streams bring a video, per frame of a clip.

Reading the file is inside. Runs are interleaved, so that what else the machine does falls on all of
them alike; CPU time is steadier than wall time where it does much.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import glnet_rt
from benchmarks._record import write
from glnet_rt import Estimator, Result
from glnet_rt.cli.demo import CLIP
from glnet_rt.stream import open_source
from train.tables import markdown_table

SETTINGS = ((1, 1, 1), (1, 4, 1), (1, 8, 1), (1, 4, 2), (2, 1, 1), (2, 4, 1))
COLUMNS = ("how", "threads", "batch", "streams", "wall_ms", "cpu_ms")
Run = Callable[[], Iterable[Result]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("--artifact", help="default: the one in the package")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    loaded = {
        threads: glnet_rt.load(arguments.artifact, backend="onnxruntime", threads=threads)
        for threads in sorted({threads for threads, _, _ in SETTINGS})
    }
    cases = {("calls", threads, 1, 1): calls(hmr) for threads, hmr in loaded.items()}
    for threads, batch, streams in SETTINGS:
        cases["video", threads, batch, streams] = video(loaded[threads], batch, streams)
    rows = [
        dict(zip(COLUMNS, (*case, *spent), strict=True))
        for case, spent in measure(cases, arguments.rounds).items()
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = {"clip": CLIP.name, "cores": cores, "rounds": arguments.rounds, "rows": rows}
    path = write(f"streams-{cores}-cores", told)
    print(table(rows))
    print(f"wrote {path.relative_to(path.parents[2])}")


def calls(hmr: Estimator) -> Run:
    """One frame read and worked on after the other."""

    def run() -> Iterable[Result]:
        with open_source(CLIP) as source:
            for frame in source:
                yield hmr(frame)

    return run


def video(hmr: Estimator, batch: int, streams: int) -> Run:
    return lambda: hmr.video(CLIP, batch=batch, streams=streams)


def measure(cases: dict[Any, Run], rounds: int) -> dict[Any, tuple[float, float]]:
    """Case -> median wall and CPU milliseconds per frame. The first round only warms up."""
    wall: dict[Any, list[float]] = {case: [] for case in cases}
    cpu: dict[Any, list[float]] = {case: [] for case in cases}
    for number in range(1 + rounds):
        for case, run in cases.items():
            started, burnt = time.perf_counter(), time.process_time()
            frames = sum(1 for _ in run())
            if number:
                wall[case].append(1000 * (time.perf_counter() - started) / frames)
                cpu[case].append(1000 * (time.process_time() - burnt) / frames)
    return {case: (statistics.median(wall[case]), statistics.median(cpu[case])) for case in cases}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    cells = [
        [f"{row[n]:.1f}" if isinstance(row[n], float) else str(row[n]) for n in COLUMNS]
        for row in rows
    ]
    return markdown_table(list(COLUMNS), cells)


if __name__ == "__main__":
    main()
