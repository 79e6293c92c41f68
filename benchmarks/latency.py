"""`python -m benchmarks.latency`: what every stage and a whole frame cost on this machine.

Tables. *Frames*: crop, network, decoding to vertices, for every backend, precision and number
of people, each in a process of its own that also tells cold start and memory; decoding the video is
not inside. *Stages*: each stage beside the ways it is usually done, in turns in one process.
*Network*: the same for one inference. *Systems*: whole frames
beside any other system that is named. Pictures are 1920x1080 noise; none of it is flat.

    python -m benchmarks.latency --quick                                 # a look, nothing written
    python -m benchmarks.latency --compare old.json --fail-regress 5     # exit code 3 where slower
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _alternatives as alternatives
from benchmarks._record import RESULTS, ROOT, write
from glnet_rt.artifact import Artifact
from glnet_rt.backends import BACKENDS
from glnet_rt.contracts import Array
from train.tables import markdown_table

FRAME = (1080, 1920)
WARM_UP = 5
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "packed")
# What identifies a row when two records are compared.
KEYS = ("table", "stage", "name", "backend", "precision", "threads", "people")
REGRESSED = 3
WARMING = 6  # the last level of a cache may keep only what it has seen again and again
COLD_BYTES = 64 << 20  # written between two cold runs: more than the last level of any cache here


def main() -> None:
    arguments = parse()
    if arguments.one:
        print(json.dumps(measure_here(json.loads(arguments.one))))
        return
    rows = frame_rows(arguments)
    if not arguments.frames_only:
        rows += [{"table": "stages", **row} for row in stage_rows(arguments)]
        rows += [{"table": "network", **row} for row in network_rows(arguments)]
    rows += [{"table": "systems", **row} for row in system_rows(arguments)]
    there = {row["table"] for row in rows}
    text = "\n\n".join(table(rows, name) for name in COLUMNS if name in there)
    print(text)
    values = {"frame": f"{FRAME[1]}x{FRAME[0]}", "frames": arguments.frames, "rows": rows}
    if not arguments.quick:
        save(values, text, arguments.out)
    if arguments.compare:
        finish(rows, json.loads(arguments.compare.read_text())["rows"], arguments.fail_regress)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--artifact", help="default: the one in the package")
    parser.add_argument("--weights", type=Path, default=Path("weights/tiny.safetensors"),
                        help="of the same network, for torch")  # fmt: skip
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--people", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--backends", nargs="+", default=[kind.name for kind in BACKENDS])
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--compiled", action="store_true", help="torch.compile too: takes minutes")
    parser.add_argument("--system", action="append", default=[], metavar="MODULE:FUNCTION",
                        help="another, in turns with ours (docs/performance.md)")  # fmt: skip
    parser.add_argument("--frames-only", action="store_true", help="only whole frames")
    parser.add_argument("--quick", action="store_true", help="few runs, write nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--compare", type=Path, help="an older latency.json of the same machine")
    parser.add_argument("--fail-regress", type=float, default=5.0, help="percent that may be lost")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.frames, arguments.people, arguments.threads = 10, [1, 8], [2]
    return arguments


# -- whole frames ---------------------------------------------------------------------------------


def frame_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of every backend, precision and number of threads that works here."""
    rows = []
    for backend in arguments.backends:
        for precision in arguments.precisions:
            for threads in arguments.threads:
                asked = {
                    "artifact": arguments.artifact, "backend": backend, "precision": precision,
                    "threads": threads, "people": arguments.people, "frames": arguments.frames,
                }  # fmt: skip
                rows += in_fresh_process(asked)
    return rows


def in_fresh_process(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measure one session in a process of its own; none, and why on stderr, where it fails."""
    command = [sys.executable, "-m", "benchmarks.latency", "--one", json.dumps(asked)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason told"])[-1]
        if "GlnetError:" in done.stderr or "BackendError:" in done.stderr:
            reason = next(line for line in done.stderr.splitlines() if "Error: " in line)
        print(f"{asked['backend']} {asked['precision']}: {reason}", file=sys.stderr)
        return []
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def measure_here(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Load, and measure every number of people; the first frame ends the cold start."""
    started = time.perf_counter()
    import glnet_rt

    session = {name: asked[name] for name in ("backend", "precision", "threads")}
    pictures = [noise(i) for i in range(4)]
    drawn_s = time.perf_counter() - started
    with glnet_rt.load(asked["artifact"], **session, tune=False) as hmr:
        hmr(pictures[0], boxes=person_boxes(1))
        cold_s = time.perf_counter() - started - drawn_s
        rows = []
        for people in asked["people"]:
            row = measure(hmr, pictures, people, asked["frames"])
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            rows.append(
                {"table": "frames", **session, "people": people, **row,
                 "cold_start_s": cold_s, "peak_memory_mb": peak}
            )  # fmt: skip
    return rows


def measure(
    hmr: Callable[..., Any], pictures: Sequence[Array], people: int, frames: int
) -> dict[str, float]:
    """Percentiles of the whole call in ms, medians of its stages, and frames per second."""
    boxes, totals = person_boxes(people), []
    stages: dict[str, list[float]] = {name: [] for name in ("crop", "infer", "decode")}
    for i in range(WARM_UP + frames):
        started = time.perf_counter_ns()
        result = hmr(pictures[i % len(pictures)], boxes=boxes)
        elapsed = (time.perf_counter_ns() - started) / 1e6
        if i >= WARM_UP:
            totals.append(elapsed)
            for name, values in stages.items():
                values.append(result.timings_ms[name])
    row = spread(totals)
    row |= {f"{name}_ms": float(np.median(values)) for name, values in stages.items()}
    return {**row, "fps": 1000 / row["p50_ms"]}


def spread(values_ms: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and the largest."""
    found = np.percentile(values_ms, [50, 90, 99, 100])
    return dict(zip(("p50_ms", "p90_ms", "p99_ms", "max_ms"), map(float, found), strict=True))


def noise(seed: int) -> Array:
    """[1080, 1920, 3] uint8."""
    return np.random.default_rng(seed).integers(0, 256, (*FRAME, 3), np.uint8)


def person_boxes(people: int) -> Array:
    """[people, 4], upright boxes side by side, half as high as the picture."""
    height, width = FRAME
    left = np.linspace(20, width - 220, people)
    top, bottom = np.full(people, 0.25 * height), np.full(people, 0.75 * height)
    return np.stack([left, top, left + 200, bottom], axis=1)


# -- stages and alternatives ----------------------------------------------------------------------


def stage_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every stage beside its alternatives, CPU time of one thread, for one person and for eight."""
    frames = max(5, arguments.frames // 2)
    rows = []
    for people in (1, 8):
        for stage, ways in alternatives.stages(
            arguments.artifact, noise(0), person_boxes(people)
        ).items():
            for caches in ("warm", "cold") if stage.startswith("skinning") else ("as they are",):
                name = stage if caches == "as they are" else f"{stage}, {caches}"
                rows += [
                    {"stage": name, "people": people, **row}
                    for row in interleaved(ways, frames, caches)
                ]
    return rows


def network_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One inference by everything that runs the network, and by torch; CPU time, one thread."""
    frames = max(5, arguments.frames // 2)
    model = alternatives.trained(Artifact.open(arguments.artifact).spec, arguments.weights)
    rows = []
    for people in (1, 4):
        with alternatives.networks(
            arguments.artifact, people, arguments.backends, arguments.precisions
        ) as ways:
            eager = {}
            if model is not None:
                eager = alternatives.torch_ways(model, people, compiled=arguments.compiled)
            rows += [
                {"stage": "network", "people": people, **row}
                for row in interleaved({**ways, **eager}, frames)
            ]
    return rows


def system_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Whole frames by ours and by the systems that were named, in turns; wall time, all cores."""
    if not arguments.system:
        return []
    import glnet_rt

    picture, rows = noise(0), []
    systems = {name: alternatives.open_system(name) for name in arguments.system}
    with glnet_rt.load(arguments.artifact) as hmr:
        for people in (1, 4):
            boxes = person_boxes(people)
            ours = {"glnet_rt": partial(hmr, picture, boxes)}
            others = {name: partial(each, picture, boxes) for name, each in systems.items()}
            rows += [
                {"people": people, **row}
                for row in interleaved(
                    {**ours, **others}, arguments.frames, clock=time.perf_counter_ns
                )
            ]
    return rows


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    runs: int,
    caches: str = "as they are",
    clock: Callable[[], int] = time.process_time_ns,
) -> list[dict[str, Any]]:
    """Run all ways in turns, so that what else the machine does falls on each alike.

    Args:
        ways: name -> what to time; the first is ours, and `times` are ratios of medians to it.
        runs: of each, after two that are left out.
        caches: what they hold when a run begins. `warm`: what the same way left, run so often
            beforehand that it gets no faster; `cold`: something else altogether; `as they are`:
            what the others left.
        clock: nanoseconds, of CPU time or of wall time.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    dirt = np.zeros(COLD_BYTES if caches == "cold" else 0, np.uint8)
    for i in range(2 + runs):
        for name, work in ways.items():
            dirt += 1
            for _ in range(WARMING if caches == "warm" else 0):
                work()
            started = clock()
            work()
            if i >= 2:
                taken[name].append((clock() - started) / 1e6)
    ours = float(np.median(next(iter(taken.values())))) if taken else 1.0
    return [
        {"name": name, **spread(values), "times": float(np.median(values)) / ours}
        for name, values in taken.items()
    ]


# -- what is told ---------------------------------------------------------------------------------

COLUMNS = {
    "frames": ("backend", "precision", "threads", "people", "p50_ms", "p90_ms", "p99_ms", "max_ms",
               "crop_ms", "infer_ms", "decode_ms", "fps", "cold_start_s", "peak_memory_mb"),
    "stages": ("stage", "people", "name", "p50_ms", "p90_ms", "times"),
    "network": ("people", "name", "p50_ms", "p90_ms", "times"),
    "systems": ("people", "name", "p50_ms", "p90_ms", "p99_ms", "times"),
}  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """One table as Markdown."""
    columns = COLUMNS[name]
    cells = [[shown(row[column]) for column in columns] for row in rows if row["table"] == name]
    return f"### {name.capitalize()}\n\n{markdown_table(columns, cells)}"


def shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.2f}"
    return str(value)


def save(values: dict[str, Any], text: str, folder: Path) -> None:
    """`latency.json`, `.csv`, `.md` and `.png`."""
    path = write("latency", values, folder)
    path.with_suffix(".md").write_text(text + "\n")
    columns = list(dict.fromkeys(key for row in values["rows"] for key in row))
    with path.with_suffix(".csv").open("w", newline="") as file:
        sheet = csv.DictWriter(file, columns, lineterminator="\n")
        sheet.writeheader()
        sheet.writerows(values["rows"])
    plot(values["rows"], path.with_suffix(".png"))
    print(f"\nwrote {path} and .csv, .md, .png beside it")


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Frames per second over people, a line for every backend, precision and number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if row["table"] == "frames":
            name = f"{row['backend']} {row['precision']}, {row['threads']} threads"
            lines.setdefault(name, []).append((row["people"], row["fps"]))
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel="people in the frame", ylabel="frames per second", xscale="log", yscale="log")
    if lines:
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)


def finish(
    rows: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]], percent: float
) -> None:
    """Tell what became slower than an older record, and end with exit code 3 if anything did."""
    slower, compared = regressions(rows, old, percent)
    print(f"\n{compared} rows compared, {len(slower)} slower by more than {percent:g} %")
    print("\n".join(slower))
    if slower or not compared:
        raise SystemExit(REGRESSED)


def regressions(
    rows: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]], percent: float
) -> tuple[list[str], int]:
    """What is slower by more than so many per cent, in words, and how many rows both have."""
    before = {key(row): row["p50_ms"] for row in old}
    slower, compared = [], 0
    for row in rows:
        was = before.get(key(row))
        if was is None:
            continue
        compared += 1
        change = 100 * (row["p50_ms"] / was - 1)
        if not change <= percent:
            what = " ".join(str(row[name]) for name in KEYS if name in row)
            slower.append(f"{what}: {was:.3f} -> {row['p50_ms']:.3f} ms ({change:+.1f} %)")
    return slower, compared


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in KEYS)


if __name__ == "__main__":
    main()
