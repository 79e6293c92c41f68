"""`glnet-rt verify`: the artifact's self-test, for every precision that runs on this machine."""

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
    print_json,
)


def verify(
    artifact: ArtifactOption = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Run the artifact's probe crops here, in every precision: bodies must come out as exported."""
    from glnet_rt.artifact import BODY, Artifact
    from glnet_rt.body_model import BodyModel
    from glnet_rt.probe import verify_each

    opened = Artifact.open(artifact)
    body = BodyModel.from_bytes(opened.read(BODY), BODY)
    reports, rejected = verify_each(opened, body, backend, precision, threads=threads)
    passed = all(report.passed for report in reports)
    if json:
        told = [{**dataclasses.asdict(report), "passed": report.passed} for report in reports]
        skipped = [dataclasses.asdict(attempt) for attempt in rejected]
        print_json({"passed": passed, "reports": told, "rejected": skipped})
    else:
        typer.echo("\n".join(map(str, (*reports, *rejected))))
    if not passed:
        raise typer.Exit(Exit.GATE)
