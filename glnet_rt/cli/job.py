"""Running an estimator over a source and writing what comes out: the body of `run` and `demo`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from glnet_rt.cli.common import Exit, describe, print_json
from glnet_rt.cli.people import nobody_found
from glnet_rt.contracts import Array, Result
from glnet_rt.errors import GlnetError, SourceError
from glnet_rt.estimator import Estimator
from glnet_rt.finder import BoxFinder
from glnet_rt.out import OverlayRenderer, ResultWriter, VideoWriter
from glnet_rt.out.motion import MotionRecorder
from glnet_rt.stream import FailedFrame, Source
from glnet_rt.trace import Trace

STAGES = ("read", "crop", "infer", "decode")
MAX_LISTED = 5  # failed or empty frames told by name; `--json` lists all


@dataclass
class Summary:
    """What a run did.

    Attributes:
        source: name of what was read.
        frames: frames that gave a result.
        people: people over all of these.
        seconds: wall time from the first frame read to the last one drawn and written.
        files: what was written, by kind: `overlay`, `result`, `body`.
        animated: whether the body file holds an animation.
        searches: whether people were looked for, rather than given.
        empty: names of the pictures in which nobody was found; of a video's frames nothing is told.
        failed: frames that failed alone.
        broke_off: why the source ended early, or None.
        stages_ms: mean milliseconds per frame, by stage; `overlay` is drawing and writing it. They
            overlap, so their sum is not the time per frame.
    """

    source: str
    frames: int = 0
    people: int = 0
    seconds: float = 0.0
    files: dict[str, Path] = field(default_factory=dict)
    animated: bool = False
    searches: bool = False
    empty: list[str] = field(default_factory=list)
    failed: list[FailedFrame] = field(default_factory=list)
    broke_off: SourceError | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames per second, all told: reading, network, overlay and writing."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def code(self) -> Exit:
        """SOURCE where frames are missing from the output, else OK."""
        return Exit.SOURCE if self.failed or self.broke_off else Exit.OK

    def add(self, result: Result, overlay_ms: float) -> None:
        """Count one frame."""
        self.frames += 1
        self.people += len(result.people)
        spent_ms = {stage: result.timings_ms.get(stage, 0.0) for stage in STAGES}
        for stage, spent in {**spent_ms, "overlay": overlay_ms}.items():
            mean = self.stages_ms.get(stage, 0.0)
            self.stages_ms[stage] = mean + (spent - mean) / self.frames


class OverlaySink(Protocol):
    """Where drawn frames go."""

    path: Path

    def write(self, name: str, image: Array) -> None: ...


class _VideoSink:
    """One overlay.mp4."""

    def __init__(self, video: VideoWriter) -> None:
        self.path = video.path
        self._video = video

    def write(self, name: str, image: Array) -> None:
        self._video.write(image)


class _PictureSink:
    """One picture per frame: overlay.jpg for a single one, a folder overlay/ for many."""

    def __init__(self, path: Path, *, folder: bool) -> None:
        self.path = path
        self._folder = folder
        if folder:
            path.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, image: Array) -> None:
        target = self.path / picture_name(name) if self._folder else self.path
        ok, data = cv2.imencode(target.suffix, image)
        if not ok:
            raise SourceError(
                "OpenCV cannot encode the overlay",
                got=f"{target}, {image.shape[1]} x {image.shape[0]} px",
                expected="a .jpg or .png file",
                fix="run with --no-overlay, or resize the picture",
            )
        target.write_bytes(data.tobytes())


def picture_name(name: str) -> str:
    """The name of a picture's overlay: its own, with .jpg added to what is neither JPEG nor PNG."""
    return name if Path(name).suffix.lower() in (".jpg", ".jpeg", ".png") else f"{name}.jpg"


def process(
    source: Source,
    estimator: Estimator,
    out: Path,
    *,
    finder: BoxFinder,
    overlay: bool,
    quiet: bool,
    searches: bool = False,
    streams: int = 1,
    trace: Trace | None = None,
) -> Summary:
    """Run every frame and write overlay, arrays and body into `out`.

    A frame that cannot be used fails alone. Where the source breaks off, what came before is
    written all the same. `searches` says whether `finder` looks for people, so that finding nobody
    is worth telling.

    Raises:
        GlnetError: nothing at all could be processed; the first reason.
    """
    out.mkdir(parents=True, exist_ok=True)
    arrays = ResultWriter(body_id=estimator.spec.body_id, body_sha256=estimator.spec.body_sha256)
    motion = MotionRecorder()
    summary = Summary(source.name, searches=searches)
    renderer = OverlayRenderer()
    warm_up(estimator, renderer, quiet=quiet)
    started = time.perf_counter()
    with ExitStack() as stack:
        sink = stack.enter_context(_overlay_sink(source, out)) if overlay else None
        progress, task = stack.enter_context(_progress(source, quiet))
        results = estimator.video(
            source,
            finder=finder,
            streams=streams,
            images=overlay,
            trace=trace,
        )
        for result in _good(results, source, summary):
            estimated = time.perf_counter()
            if sink is not None and result.image is not None:
                sink.write(source.name_of(result.frame_id), renderer.draw(result.image, result))
            if not result.people and source.kind in ("image", "folder"):
                summary.empty.append(source.name_of(result.frame_id))
            summary.add(result, (time.perf_counter() - estimated) * 1000)
            arrays.add(result)
            motion.add(result)
            summary.seconds = time.perf_counter() - started
            progress.update(task, advance=1, people=summary.people, fps=f"{summary.fps:.1f}")
    if summary.frames == 0:
        raise _nothing_done(summary)
    if sink is not None:
        summary.files["overlay"] = sink.path
    summary.files["result"] = arrays.save(out / "result.npz")
    body = motion.save(out / "body.glb", estimator.body)
    if body is not None:
        summary.files["body"] = body
        summary.animated = motion.moves
    return summary


def _good(results: Iterator[Result], source: Source, summary: Summary) -> Iterator[Result]:
    """The results that have no error; the others are noted, as is where the source breaks off."""
    try:
        for result in results:
            if result.error is None:
                yield result
            else:
                name = source.name_of(result.frame_id)
                summary.failed.append(FailedFrame(result.frame_id, name, result.error))
    except SourceError as error:
        summary.broke_off = error


def _nothing_done(summary: Summary) -> GlnetError:
    if summary.failed:
        return summary.failed[0].error
    return summary.broke_off or SourceError(
        "the source gave no frames",
        got=summary.source,
        expected="at least one frame",
        fix="open it in a video player: does it show anything?",
    )


def warm_up(
    estimator: Estimator, renderer: OverlayRenderer, *, quiet: bool, people: int = 1
) -> None:
    """Compile the kernels and fill the caches, so that the speed told is that of the work."""
    if not quiet:
        typer.echo("warming up (the first run on a machine also compiles) ...", err=True)
    black = np.zeros((64, 64, 3), np.uint8)
    renderer.draw(black, estimator(black))
    if people > 1:
        estimator.warm_up(people)


@contextmanager
def _overlay_sink(source: Source, out: Path) -> Iterator[OverlaySink]:
    if source.kind == "video":
        with VideoWriter(out / "overlay.mp4", source.fps) as video:
            yield _VideoSink(video)
    elif source.kind == "image":
        suffix = Path(picture_name(source.name)).suffix.lower()
        yield _PictureSink(out / f"overlay{suffix}", folder=False)
    else:
        yield _PictureSink(out / "overlay", folder=True)


@contextmanager
def _progress(source: Source, quiet: bool) -> Iterator[tuple[Progress, TaskID]]:
    """A bar on stderr with people and speed."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames, {task.fields[people]} people, {task.fields[fps]} fps,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        yield progress, progress.add_task(source.name, total=source.num_frames, people=0, fps="0")


def tell(summary: Summary, command: str, as_json: bool) -> None:
    """Print what was done, and end the process where something was left undone."""
    if as_json:
        print_json({"command": command, **as_dict(summary)})
    else:
        for line in as_lines(summary):
            typer.echo(line)
    for line in complaints(summary):
        typer.echo(line, err=True)
    if summary.code != Exit.OK:
        raise typer.Exit(summary.code)


def as_dict(summary: Summary) -> dict[str, Any]:
    """A summary in plain JSON types."""
    return {
        "source": summary.source,
        "frames": summary.frames,
        "people": summary.people,
        "seconds": round(summary.seconds, 4),
        "fps": round(summary.fps, 3),
        "stages_ms": {name: round(mean, 3) for name, mean in summary.stages_ms.items()},
        "files": {name: str(path) for name, path in summary.files.items()},
        "animated": summary.animated,
        "empty": summary.empty,
        "failed": [
            {"frame_id": f.frame_id, "name": f.name, "error": describe(f.error)}
            for f in summary.failed
        ],
        "broke_off": None if summary.broke_off is None else describe(summary.broke_off),
        "exit_code": int(summary.code),
    }


def as_lines(summary: Summary) -> list[str]:
    """A summary for people."""
    per_frame = ", ".join(f"{name} {mean:.1f}" for name, mean in summary.stages_ms.items())
    body = "body, moving" if summary.animated else "body"
    if summary.frames == 1:  # it was read when it was opened, and a rate says nothing
        speed = f"{summary.seconds * 1000:.0f} ms for one frame, writing the overlay included"
    else:
        speed = f"{summary.fps:.1f} frames per second, reading and writing included"
    label = {"overlay": "overlay", "result": "arrays", "body": body, "trace": "trace"}
    return [
        f"people    {summary.people} in {summary.frames} frame{'s' * (summary.frames != 1)}",
        f"speed     {speed}",
        f"ms/frame  {per_frame}",
        *(f"{label[kind]:<13} {path}" for kind, path in summary.files.items()),
    ]


def complaints(summary: Summary) -> list[str]:
    """What the user must know went wrong."""
    lines = [f"failed: {f.name}: {f.error}" for f in summary.failed[:MAX_LISTED]]
    if len(summary.failed) > MAX_LISTED:
        lines.append(f"... and {len(summary.failed) - MAX_LISTED} more frames")
    if summary.broke_off is not None:
        lines.append(f"error: {summary.broke_off}")
    if summary.searches and (summary.empty or not summary.people):
        lines.append(nobody_found(_shortened(summary.empty) or summary.source))
    if "body" not in summary.files:
        lines.append("no body file was written: there is nobody in these frames")
    return lines


def _shortened(names: Sequence[str]) -> str:
    """The first few of them in words."""
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
