"""`glnet-rt live SOURCE`: a camera, a network stream, or a file played as one."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from glnet_rt.cli.common import (
    ArtifactOption,
    BackendOption,
    BoxesOption,
    DetectorOption,
    Exit,
    JsonOption,
    LayoutOption,
    PrecisionOption,
    SmoothOption,
    ThreadsOption,
    TraceOption,
    load_estimator,
)


def live(
    source: Annotated[
        str,
        typer.Argument(help="A camera's number or device, an rtsp:// or http:// address, a file."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for overlay.mp4 and result.npz.", show_default="nothing written"),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(min=0.0, help="Stop after so many seconds.", show_default="the source's end"),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="What gives way when it is late: oldest, newest, none.")
    ] = "oldest",
    queue: Annotated[int, typer.Option(min=1, help="Frames that may wait.")] = 1,
    max_age: Annotated[
        float, typer.Option(help="Drop frames older than this, ms; 0 for none.")
    ] = 150.0,
    pace: Annotated[
        bool, typer.Option(help="Play a file at its own rate, not as fast as can be read.")
    ] = True,
    boxes: BoxesOption = None,
    detector: DetectorOption = None,
    detector_layout: LayoutOption = "auto",
    smooth: SmoothOption = False,
    artifact: ArtifactOption = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    trace: TraceOption = None,
    json: JsonOption = False,
) -> None:
    """Recover people as they come, dropping what is late. Ctrl-C ends it.

    With --json each result is a line, and the last line is the summary.
    """
    from glnet_rt.cli.job import warm_up
    from glnet_rt.cli.live_job import Recorder, Report, follow
    from glnet_rt.cli.people import read_options
    from glnet_rt.out import OverlayRenderer
    from glnet_rt.stream import open_source
    from glnet_rt.trace import Trace

    people = read_options(boxes, detector, detector_layout, smooth)
    recorded = None if trace is None else Trace()
    report, recorder = Report(json, people.searches), None
    with ExitStack() as stack:
        opened = stack.enter_context(open_source(_as_camera(source), clock=time.monotonic_ns))
        estimator = stack.enter_context(load_estimator(artifact, backend, precision, threads))
        renderer = OverlayRenderer()
        # What runs several people is opened now: in mid-stream it would hold up all that follows.
        warm_up(estimator, renderer, quiet=json, people=2)
        if out is not None:
            recorder = stack.enter_context(Recorder(out, opened.fps, estimator.spec, renderer))
        session = stack.enter_context(
            estimator.live(
                opened,
                queue=queue,
                drop=policy,  # type: ignore[arg-type]  # checked by the queue
                max_age_ms=max_age or None,
                finder=people.finder(opened, estimator.body),
                images=out is not None,
                pace=pace,
                trace=recorded,
            )
        )
        takers = [report.add] if recorder is None else [recorder.add, report.add]
        follow(session, takers, report, duration)
    files = {} if recorder is None else recorder.save()
    if trace is not None and recorded is not None:
        files["trace"] = recorded.write(trace)
    code = report.finish(opened.name, session.stats(), files)
    if code != Exit.OK:
        raise typer.Exit(code)


def _as_camera(text: str) -> str | int:
    """A number is a camera, unless a file is called so."""
    return int(text) if text.isdecimal() and not Path(text).exists() else text
