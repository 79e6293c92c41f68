"""`glnet-rt verify`: the artifact's self-test on this machine."""

from __future__ import annotations

import dataclasses

import typer

from glnet_rt.cli.common import (
    ArtifactOption,
    BackendOption,
    Exit,
    JsonOption,
    PrecisionOption,
    ThreadsOption,
    load_estimator,
    print_json,
)


def verify(
    artifact: ArtifactOption = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Run the artifact's probe crops here; the bodies must come out as they did at export."""
    with load_estimator(artifact, backend, precision, threads) as estimator:
        report = estimator.verify()
    if json:
        print_json({**dataclasses.asdict(report), "passed": report.passed})
    else:
        typer.echo(str(report))
    if not report.passed:
        raise typer.Exit(Exit.GATE)
