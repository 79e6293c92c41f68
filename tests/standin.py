"""The Python bindings of several TensorRT versions, importable without TensorRT.

The bindings are wheels of a megabyte that need three large libraries. Small stand-ins with the
same few symbols let them be imported, and so tell which classes and methods a version has; nothing
can be built or run with them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

VERSIONS = (  # JetPack 6's, JetPack 7's, and the newest at the time of writing
    ("tensorrt-cu12-bindings", "10.3.0"),
    ("tensorrt-cu13-bindings", "10.13.3.9"),
    ("tensorrt-cu13-bindings", "11.4.0.106"),
)
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "glnet-rt-tests"

_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


@cache
def members(package: str, version: str) -> dict[str, list[str]]:
    """What a version's module holds: name -> its attributes, and under "" the module's own.

    Skips the test, with the reason, where the wheel is neither here nor to be had.
    """
    folder = _unpacked(package, version)
    libraries = _stand_ins(folder, version.split(".")[0])
    code = """
import json, tensorrt_bindings as trt
held = {name: dir(getattr(trt, name)) for name in dir(trt) if isinstance(getattr(trt, name), type)}
print(json.dumps({"": dir(trt), **held}))
"""
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(libraries),
        "PYTHONPATH": str(folder),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held: dict[str, Any] = json.loads(done.stdout)
    return held


def _unpacked(package: str, version: str) -> Path:
    """The wheel for this Python, fetched once."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    folder = HOME / f"{package}-{version}-{tag}"
    if (folder / "tensorrt_bindings").is_dir():
        return folder
    wheels = folder / "wheels"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "0"]
    command += ["--only-binary", ":all:", "-d", str(wheels), f"{package}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(wheels.glob("*.whl"))
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        pytest.skip(f"{package}=={version} cannot be had: {last}")
    with zipfile.ZipFile(found[0]) as wheel:
        wheel.extractall(folder)
    return folder


def _stand_ins(folder: Path, major: str) -> Path:
    """Libraries under TensorRT's names whose every function returns nothing."""
    libraries = folder / "stand-ins"
    libraries.mkdir(exist_ok=True)
    source = libraries / "stand_in.c"
    source.write_text("".join(f"void* {name}() {{ return 0; }}\n" for name in _SYMBOLS))
    for name in _LIBRARIES:
        target = libraries / f"lib{name}.so.{major}"
        if not target.exists():
            command = ["cc", "-shared", "-fPIC", "-w", "-o", str(target), str(source)]
            try:
                subprocess.run(command, check=True, capture_output=True)
            except FileNotFoundError:
                pytest.skip("no C compiler to make the stand-in libraries with")
    return libraries
