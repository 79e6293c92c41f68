"""`python -m benchmarks.synthetic`: synthetic people drawn per second by one process.

With `--against DIR`, an older checkout of this project, rounds of both alternate, so that what
else the machine does weighs on both alike; the ratio of processor time is what to read.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks._record import ROOT, write

_MEASURE = """
import json, sys, time
import cv2
from glnet_rt.body_model import BodyModel
from train.synthetic.__main__ import BODY_PATH
from train.synthetic.generate import Generator
size, first, people = map(int, sys.argv[1:])
cv2.setNumThreads(1)
generator = Generator(BodyModel.load(BODY_PATH), "train", 1, size)
for index in range(20):
    generator.sample(index)
wall, processor = time.perf_counter(), time.process_time()
for index in range(first, first + people):
    generator.sample(index)
print(json.dumps([time.perf_counter() - wall, time.process_time() - processor]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic", description=__doc__)
    parser.add_argument("--people", type=int, default=200, help="in one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=160, help="side of a picture, px")
    parser.add_argument("--against", type=Path, help="another checkout")
    arguments = parser.parse_args()
    checkouts = {"this": ROOT}
    if arguments.against:
        checkouts["other"] = arguments.against.resolve()
    rounds: dict[str, list[list[float]]] = {name: [] for name in checkouts}
    for number in range(arguments.rounds):
        for name, folder in checkouts.items():
            first = 1000 + number * arguments.people
            rounds[name].append(measure(folder, arguments.size, first, arguments.people))
    rows = {name: speeds(times, arguments.people) for name, times in rounds.items()}
    values: dict[str, Any] = {
        "size_px": arguments.size, "people_per_round": arguments.people,
        "rounds": arguments.rounds, **rows["this"],
    }  # fmt: skip
    if arguments.against:
        values["other"] = rows["other"]
        values["cost_ratio"] = round(
            rows["other"]["people_per_core_s"] / rows["this"]["people_per_core_s"], 3
        )
    path = write("synthetic", values)
    print(json.dumps(values, indent=1))
    print(f"wrote {path.relative_to(ROOT)}")


def measure(folder: Path, size: int, first: int, people: int) -> list[float]:
    """Wall and processor seconds for some people, by the code in `folder`, in a process of its own.

    Each round draws other people, and every checkout the same numbers.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", _MEASURE, str(size), str(first), str(people)]
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    times: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times


def speeds(times: list[list[float]], people: int) -> dict[str, float]:
    """Medians over the rounds."""
    wall, processor = (statistics.median(row[k] for row in times) for k in range(2))
    return {
        "people_per_core_s": round(people / processor, 1),
        "people_per_wall_s": round(people / wall, 1),
    }


if __name__ == "__main__":
    main()
