"""`python -m benchmarks.live`: how old the results of a live stream are that is too much to do.

A camera gives 30 frames a second, each of which takes 50 ms of work: the network's, and a finder
that sleeps for the rest. Told are the age of results (from capture to the caller), which bound two
frame times and the work make, the account of frames, what the process's memory grew by, and for how
long a virtual machine's processors were taken from it meanwhile, in which nobody can be in time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import glnet_rt
from benchmarks._record import ROOT, write
from glnet_rt import Frame, Result, Trace
from glnet_rt.contracts import Array
from glnet_rt.finder import Found
from train.tables import markdown_table

FPS, WORK_MS = 30, 50.0
STAGES = ("find", "crop", "infer", "decode")
STATM, STAT = Path("/proc/self/statm"), Path("/proc/stat")
STOLEN = 8  # field of the first line of /proc/stat, ticks of all processors
PAGE_MB = 4096 / 1e6
SETTLED = 0.1  # of the time: what is made once is made by then


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("--seconds", type=int, nargs="+", default=[60, 600])
    arguments = parser.parse_args()
    rows = [soak(seconds) for seconds in arguments.seconds]
    path = write("live", {"fps": FPS, "work_ms": WORK_MS, "rows": rows})
    columns = list(rows[0])
    cells = [[shown(row[column]) for column in columns] for row in rows]
    print(markdown_table(columns, cells))
    print(f"wrote {path.relative_to(ROOT)}")


class Busy:
    """One box, after what is left of the work to be done."""

    lag = 0

    def __init__(self, rest_ms: float) -> None:
        self.rest_ms = rest_ms

    def find(self, frame: Frame, known: Result | None) -> Found:
        time.sleep(self.rest_ms / 1000)
        return Found(np.array([[400.0, 100.0, 800.0, 650.0]]))


def camera(seconds: int) -> Iterator[Array]:
    """720p pictures at a steady rate: a camera waits for nobody."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    picture = cv2.resize(noise, (1280, 720))
    started = time.monotonic()
    for i in range(seconds * FPS):
        time.sleep(max(0.0, started + i / FPS - time.monotonic()))
        yield picture


def soak(
    seconds: int, each: Callable[[Result], None] = lambda result: None, trace: Trace | None = None
) -> dict[str, Any]:
    """One stream of so many seconds; `each` is shown every result."""
    ages: list[float] = []
    works: list[float] = []
    memory: list[float] = []
    with glnet_rt.load() as hmr:
        rest = WORK_MS - network_ms(hmr)
        stolen_before = stolen_s()
        with hmr.live(camera(seconds), finder=Busy(rest), trace=trace) as session:
            for result in session:
                each(result)
                ages.append(result.timings_ms["age"])
                works.append(sum(result.timings_ms[stage] for stage in STAGES))
                memory.append(resident_mb())
        stats = session.stats()
    work = float(np.median(works))
    settled = memory[int(SETTLED * len(memory))]
    return {
        "seconds": seconds, "frames_in": stats.frames_in, "frames_out": len(ages),
        "dropped": sum(stats.dropped.values()), "work_p50_ms": work,
        "age_p50_ms": float(np.median(ages)), "age_p90_ms": float(np.percentile(ages, 90)),
        "age_p99_ms": float(np.percentile(ages, 99)), "age_max_ms": max(ages),
        "bound_ms": 2 * 1000 / FPS + work, "stolen_s": stolen_s() - stolen_before,
        "memory_mb": memory[-1], "memory_grown_mb": memory[-1] - settled,
    }  # fmt: skip


def network_ms(hmr: glnet_rt.Estimator) -> float:
    """What the network and what is around it take of a frame."""
    picture, box = next(camera(1)), np.array([[400.0, 100.0, 800.0, 650.0]])
    taken = []
    for _ in range(20):
        started = time.perf_counter()
        hmr(picture, boxes=box)
        taken.append(1000 * (time.perf_counter() - started))
    return float(np.median(taken))


def resident_mb() -> float:
    """Of this process; 0 where there is no /proc."""
    return int(STATM.read_text().split()[1]) * PAGE_MB if STATM.exists() else 0.0


def stolen_s() -> float:
    """Processor seconds that the host has given to others; 0 where nobody tells."""
    if not STAT.exists():
        return 0.0
    return int(STAT.read_text().split("\n", 1)[0].split()[STOLEN]) / os.sysconf("SC_CLK_TCK")


def shown(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
