"""`glnet-rt doctor`: what is installed here, and what would run the network."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import typer

from glnet_rt.cli.common import (
    ArtifactOption,
    JsonOption,
    describe,
    exit_code,
    load_estimator,
    print_json,
)
from glnet_rt.errors import GlnetError

PACKAGES = ("numpy", "opencv-python-headless", "numba", "onnxruntime", "typer", "rich")


def doctor(artifact: ArtifactOption = None, json: JsonOption = False) -> None:
    """Show versions, and each backend with why it was chosen or rejected."""
    values = environment()
    error: GlnetError | None = None
    try:
        with load_estimator(artifact, "auto", "auto", None) as estimator:
            values["estimator"] = estimator.explain().splitlines()
    except GlnetError as caught:
        error = caught
        values["error"] = describe(caught)
    if json:
        print_json(values)
    else:
        for name, value in values.items():
            if name in ("packages", "estimator"):
                lines = value if isinstance(value, list) else [f"{k} {v}" for k, v in value.items()]
                typer.echo("\n".join([f"{name}:", *(f"  {line}" for line in lines)]))
            elif name != "error":
                typer.echo(f"{name}: {value}")
    if error is not None:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(exit_code(error))


def environment() -> dict[str, Any]:
    """Versions of what runs here."""
    from glnet_rt._version import __version__

    return {
        "glnet_rt": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
