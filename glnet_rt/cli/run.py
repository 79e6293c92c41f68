"""`glnet-rt run PATH`: recover the people of a picture, a folder of pictures or a video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glnet_rt.cli.common import (
    ArtifactOption,
    BackendOption,
    BoxesOption,
    DetectorOption,
    JsonOption,
    LayoutOption,
    PrecisionOption,
    SmoothOption,
    ThreadsOption,
    TraceOption,
    load_estimator,
)


def run(
    path: Annotated[Path, typer.Argument(help="A picture, a folder of pictures, or a video.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to.", show_default="out/NAME")
    ] = None,
    boxes: BoxesOption = None,
    detector: DetectorOption = None,
    detector_layout: LayoutOption = "auto",
    smooth: SmoothOption = False,
    overlay: Annotated[bool, typer.Option(help="Draw the bodies over the frames.")] = True,
    artifact: ArtifactOption = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    streams: Annotated[
        int, typer.Option(min=1, help="Inferences at a time; goes with a small --threads.")
    ] = 1,
    trace: TraceOption = None,
    json: JsonOption = False,
) -> None:
    """Write the people of PATH as overlay, result.npz and body.glb."""
    from glnet_rt.cli.job import process, tell
    from glnet_rt.cli.people import read_options
    from glnet_rt.stream import open_source
    from glnet_rt.trace import Trace

    recorded = None if trace is None else Trace()
    people = read_options(boxes, detector, detector_layout, smooth)
    with (
        open_source(path) as source,
        load_estimator(artifact, backend, precision, threads) as estimator,
    ):
        target = Path("out") / path.resolve().stem if out is None else out
        summary = process(
            source,
            estimator,
            target,
            finder=people.finder(source, estimator.body),
            searches=people.searches,
            overlay=overlay,
            quiet=json,
            streams=streams,
            trace=recorded,
        )
    if trace is not None and recorded is not None:
        summary.files["trace"] = recorded.write(trace)
    tell(summary, "run", json)
