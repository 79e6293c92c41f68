"""Following a live session and writing what comes out: the body of `live`."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import typer

from glnet_rt._closing import Closing
from glnet_rt.cli.common import Exit, describe, exit_code, print_json_line
from glnet_rt.cli.people import nobody_found
from glnet_rt.contracts import Person, Result
from glnet_rt.errors import BackendError, GlnetError, SourceError
from glnet_rt.out import OverlayRenderer, ResultWriter, VideoWriter
from glnet_rt.rotation import rotmat_to_rotvec
from glnet_rt.spec import NetSpec
from glnet_rt.stream.live import LiveSession, LiveStats

TOLD_EVERY_S = 1.0
AGES_KEPT = 10_000  # of the last results, for percentiles


def follow(
    session: LiveSession,
    takers: Sequence[Callable[[Result], object]],
    report: Report,
    duration_s: float | None,
) -> None:
    """Hand every result to each taker, until the source, the time or the user's patience ends."""
    timer = None if duration_s is None else threading.Timer(duration_s, session.close)
    if timer is not None:
        timer.start()
    try:
        for result in session:
            for take in takers:
                take(result)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
    except (SourceError, BackendError) as error:
        report.ended_by = error
    finally:
        if timer is not None:
            timer.cancel()
        session.close()


class Report:
    """Tells results as they come, and sums them up.

    Args:
        as_json: one JSON object per line on stdout; else a line a second on stderr.
        searches: whether people were looked for, so that finding nobody is worth telling.
    """

    def __init__(self, as_json: bool, searches: bool = False) -> None:
        self.ended_by: GlnetError | None = None
        self._as_json = as_json
        self._ages_ms: deque[float] = deque(maxlen=AGES_KEPT)
        self._results = self._people = 0
        self._searches = searches
        self._started = self._told = time.monotonic()

    def add(self, result: Result) -> None:
        """Tell one result."""
        self._results += 1
        self._people += len(result.people)
        self._ages_ms.append(result.timings_ms.get("age", 0.0))
        if self._as_json:
            print_json_line(as_line(result))
        elif time.monotonic() - self._told >= TOLD_EVERY_S:
            self._told = time.monotonic()
            typer.echo(
                f"{self._told - self._started:7.1f} s  {self._fps():5.1f} results per second  "
                f"age {self._ages_ms[-1]:5.0f} ms  dropped {result.dropped}  "
                f"people {len(result.people)}",
                err=True,
            )

    def finish(self, source: str, stats: LiveStats, files: dict[str, Path]) -> Exit:
        """Print the summary; returns the exit code."""
        code = Exit.SOURCE if stats.failed else Exit.OK
        if self.ended_by is not None:
            code = exit_code(self.ended_by)
            typer.echo(f"error: {self.ended_by}", err=True)
        if self._searches and self._results and not self._people:
            typer.echo(nobody_found(source), err=True)
        p50, p99, worst = np.percentile(self._ages_ms or [0.0], [50, 99, 100]).round(2).tolist()
        told = {
            "command": "live",
            "source": source,
            "seconds": round(time.monotonic() - self._started, 3),
            "fps": round(self._fps(), 3),
            "people": self._people,
            **asdict(stats),
            "age_ms": {"p50": p50, "p99": p99, "max": worst},
            "files": {kind: str(path) for kind, path in files.items()},
            "error": None if self.ended_by is None else describe(self.ended_by),
            "exit_code": int(code),
        }
        if self._as_json:
            print_json_line(told)
        else:
            lost = ", ".join(f"{why} {count}" for why, count in stats.dropped.items() if count)
            typer.echo(f"frames    {stats.frames_in} in, {stats.frames_out} out")
            typer.echo(f"dropped   {sum(stats.dropped.values())}{f' ({lost})' if lost else ''}")
            typer.echo(f"speed     {told['fps']:.1f} results per second")
            typer.echo(f"age       median {p50:.0f} ms, p99 {p99:.0f} ms, worst {worst:.0f} ms")
            for kind, path in files.items():
                typer.echo(f"{kind:<9} {path}")
        return code

    def _fps(self) -> float:
        return self._results / max(time.monotonic() - self._started, 1e-9)


def as_line(result: Result) -> dict[str, Any]:
    """A result in plain JSON types, without its vertices."""
    return {
        "frame_id": result.frame_id,
        "timestamp_ns": result.timestamp_ns,
        "dropped": result.dropped,
        "timings_ms": {stage: round(spent, 3) for stage, spent in result.timings_ms.items()},
        "error": None if result.error is None else describe(result.error),
        "people": [_as_person(person) for person in result.people],
    }


def _as_person(person: Person) -> dict[str, Any]:
    arrays = {name: getattr(person, name) for name in ("bbox_xyxy", "transl", "joints", "betas")}
    rotations = np.concatenate([person.global_orient[None], person.body_pose])
    arrays["pose_rotvec"] = rotmat_to_rotvec(rotations)
    told = {name: np.round(array.astype(np.float64), 5).tolist() for name, array in arrays.items()}
    return {"track_id": person.track_id, "score": round(person.score, 5), **told}


class Recorder(Closing):
    """Writes overlay.mp4 at the source's own rate, and result.npz.

    While frames are dropped the last picture stands still, so that the film lasts as long as what
    it shows. The numbers of result.npz are kept in memory until the end, about 3 kB per person.

    Args:
        out: folder.
        fps: of the source.
        spec: names the body.
        renderer: draws the overlay.
    """

    def __init__(self, out: Path, fps: float, spec: NetSpec, renderer: OverlayRenderer) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out = out
        self._fps = fps
        self._renderer = renderer
        self._video = VideoWriter(out / "overlay.mp4", fps)
        self._arrays = ResultWriter(body_id=spec.body_id, body_sha256=spec.body_sha256)
        self._first_ns: int | None = None
        self._written = 0

    def add(self, result: Result) -> None:
        """Append one result; what failed is left out."""
        if result.error is not None or result.image is None:
            return
        self._arrays.add(result)
        drawn = self._renderer.draw(result.image, result)
        if self._first_ns is None:
            self._first_ns = result.timestamp_ns
        due = round((result.timestamp_ns - self._first_ns) / 1e9 * self._fps) + 1
        for _ in range(max(1, due - self._written)):
            self._video.write(drawn)
            self._written += 1

    def save(self) -> dict[str, Path]:
        """Write the arrays; what there is now, by kind."""
        files = {"overlay": self._video.path} if self._written else {}
        return {**files, "result": self._arrays.save(self._out / "result.npz")}

    def close(self) -> None:
        self._video.close()
