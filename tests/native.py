"""Kernels as plain C++: the same source that a GPU runs, compiled by g++ and called from Python."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

_FLAGS = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
_SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")


def build_library(
    source: Path, *, include: Sequence[Path] = (), flags: Sequence[str] = ()
) -> ctypes.CDLL:
    """Compile one C++ or CUDA source into a shared library and load it.

    Args:
        source: a file that g++ can read as C++, whatever its suffix.
        include: folders to look for headers in.
        flags: further options of g++.

    Skips the calling test where there is no g++.
    """
    flags = ("-O2", "-shared", "-fPIC", *flags)
    return ctypes.CDLL(str(_build(source, include, flags, ".so")))


def run_sanitized(
    source: Path,
    *,
    include: Sequence[Path] = (),
    flags: Sequence[str] = (),
    arguments: Sequence[str] = (),
) -> str:
    """Compile a source that has a `main` with ASAN and UBSAN and run it.

    Returns what it printed. Fails the calling test where it does not exit with 0, which an access
    out of bounds, a leak or undefined behaviour brings about; skips it where there is no g++.
    """
    program = _build(source, include, (*_SANITIZE, *flags), ".exe")
    environment = os.environ | {"UBSAN_OPTIONS": "print_stacktrace=1"}
    environment.pop("LD_PRELOAD", None)  # ASAN must come first
    command = [str(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        pytest.fail(f"{source.name} under ASAN and UBSAN: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def _build(source: Path, include: Sequence[Path], flags: Sequence[str], suffix: str) -> Path:
    """The compiled file; one whose source, headers and flags were seen before is used again."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ on this machine: the kernels' CPU build cannot be tested")
    command = [compiler, *_FLAGS, *flags, *(f"-I{folder}" for folder in include)]
    text = _run([*command, "-E", "-P", "-x", "c++", str(source)], source)  # every header inlined
    key = hashlib.sha256("\0".join((*command, text)).encode()).hexdigest()[:20]
    folder = Path(tempfile.gettempdir()) / f"glnet-rt-native-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    built = folder / f"{source.stem}-{key}{suffix}"
    if not built.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fresh = Path(scratch) / built.name
            _run([*command, "-x", "c++", str(source), "-o", str(fresh)], source)
            fresh.replace(built)  # whole or not at all, whoever else builds it
    return built


def _run(command: Sequence[str], source: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"g++ cannot compile {source.name}:\n{done.stderr}")
    return done.stdout
