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

PACKAGES = ("numpy", "opencv-python-headless", "numba", "onnxruntime", "openvino", "typer", "rich")
CUDA_PACKAGES = ("cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "pycuda")


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
            if name in ("packages", "cuda", "estimator"):
                lines = value if isinstance(value, list) else [f"{k} {v}" for k, v in value.items()]
                typer.echo("\n".join([f"{name}:", *(f"  {line}" for line in lines)]))
            elif name != "error":
                typer.echo(f"{name}: {value}")
    if error is not None:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(exit_code(error))


def environment() -> dict[str, Any]:
    """Versions of what runs here, and where engines are kept."""
    from glnet_rt._version import __version__
    from glnet_rt.backends.trt import MODULES
    from glnet_rt.engine_cache import EngineCache

    return {
        "glnet_rt": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {n: _version(n) for n in (*PACKAGES, "onnxruntime-gpu", *MODULES)},
        "engines": str(EngineCache().engines),
        "cuda": cuda_environment(),
    }


def cuda_environment() -> dict[str, str]:
    """What of the CUDA run time is there: each with its version, or why not and what to do."""
    from glnet_rt.backends.cuda import nvrtc
    from glnet_rt.backends.cuda.binding import open_binding

    told = {name: _version(name) for name in CUDA_PACKAGES}
    try:
        told["compiler"] = f"NVRTC {'.'.join(map(str, nvrtc.version()))}"
    except GlnetError as error:
        told["compiler"] = _why_not(error)
    try:
        with open_binding() as binding:
            device = binding.device
    except GlnetError as error:
        told["device"] = _why_not(error)
    else:
        told["driver"] = f"CUDA {'.'.join(map(str, device.driver_version))}"
        told["device"] = f"{device.name}, {device.memory_bytes / 2**30:.1f} GiB"
        told["compute capability"] = ".".join(map(str, device.compute_capability))
    return told


def _why_not(error: GlnetError) -> str:
    return f"{error.what}, got {error.got} (fix: {error.fix})"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
