"""What the subcommands share: exit codes, options, and how errors and results are told."""

from __future__ import annotations

import json
import sys
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glnet_rt.errors import (
    ArtifactError,
    BackendError,
    ContractError,
    GlnetError,
    MissingDependencyError,
    SourceError,
)

if TYPE_CHECKING:
    from glnet_rt.estimator import Estimator


class Exit(IntEnum):
    """What the process answers to the shell."""

    OK = 0
    BUG = 1
    USAGE = 2
    GATE = 3
    DEPENDENCY = 4
    ARTIFACT = 5
    SOURCE = 6


ArtifactOption = Annotated[
    Path | None,
    typer.Option(help="A .glnet file or folder.", show_default="the one in the package"),
]
BoxesOption = Annotated[
    str | None,
    typer.Option(
        help='Where the people are: "x1,y1,x2,y2[;...]" in px or a JSON file.',
        show_default="--detector finds them",
    ),
]
BackendOption = Annotated[
    str, typer.Option(help="What runs the network. A name never falls back to another.")
]
PrecisionOption = Annotated[str, typer.Option(help="fp32, fp16, bf16, int8, fp8, packed, or auto.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads per inference.", show_default="the backend's")
]
DetectorOption = Annotated[
    str | None,
    typer.Option(
        help="Who finds the people: auto, motion, own, whole (one fills the picture), none "
        "(whole, but nobody is followed), or FILE.onnx.",
        show_default="auto, unless there are --boxes",
    ),
]
LayoutOption = Annotated[
    str, typer.Option(help="Outputs of FILE.onnx, where they do not tell (docs/tracking.md).")
]
SmoothOption = Annotated[bool, typer.Option("--smooth", help="Make the people steady over time.")]
TraceOption = Annotated[
    Path | None,
    typer.Option(help="Write what each stage did when: JSON for Perfetto or chrome://tracing."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, and nothing else, to stdout.")
]


def exit_code(error: GlnetError) -> Exit:
    """The exit code that stands for an error."""
    if isinstance(error, (MissingDependencyError, BackendError)):
        return Exit.DEPENDENCY
    if isinstance(error, ArtifactError):
        return Exit.ARTIFACT
    if isinstance(error, SourceError):
        return Exit.SOURCE
    return Exit.USAGE if isinstance(error, ContractError) else Exit.BUG


def describe(error: GlnetError) -> dict[str, Any]:
    """An error as plain JSON types: its kind and its four parts."""
    parts = {"got": error.got, "expected": error.expected, "fix": error.fix}
    return {
        "type": type(error).__name__,
        "what": error.what,
        **{name: None if part is None else str(part) for name, part in parts.items()},
    }


def report_error(error: GlnetError, as_json: bool) -> Exit:
    """Tell an error on stderr, and as JSON on stdout where asked for; returns the exit code."""
    code = exit_code(error)
    typer.echo(f"error: {error}", err=True)
    if as_json:
        print_json({"error": describe(error), "exit_code": int(code)})
    return code


def print_json(values: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    json.dump(values, sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_json_line(values: dict[str, Any]) -> None:
    """One JSON object on a line of its own on stdout, which a reader gets at once."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def load_estimator(
    artifact: Path | None, backend: str, precision: str, threads: int | None
) -> Estimator:
    """`glnet_rt.load` with what the command line gave."""
    from glnet_rt.estimator import load

    return load(artifact, backend=backend, precision=precision, threads=threads)
