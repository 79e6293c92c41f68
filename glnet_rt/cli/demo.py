"""`glnet-rt demo`: the model in the package on the clip in the package.

The clip comes with the person's box in every frame, so that nothing but the model is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glnet_rt.cli.common import JsonOption, ThreadsOption, load_estimator

CLIP = Path(__file__).resolve().parent.parent / "assets" / "demo.mp4"
CLIP_BOXES = CLIP.with_name("demo_boxes.json")


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("out/demo"),
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Run the shipped model on the shipped clip: overlay.mp4, result.npz, body.glb."""
    from glnet_rt.cli.boxes import PlannedBoxes, read_boxes
    from glnet_rt.cli.job import process, tell
    from glnet_rt.stream import open_source

    with (
        open_source(CLIP) as source,
        load_estimator(None, "auto", "auto", threads) as estimator,
    ):
        finder = PlannedBoxes(read_boxes(str(CLIP_BOXES)), source.name_of)
        summary = process(source, estimator, out, finder=finder, overlay=True, quiet=json)
    tell(summary, "demo", json)
