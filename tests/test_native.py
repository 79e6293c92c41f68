"""The helper that compiles kernels for the CPU reports what is wrong with them."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from tests.native import build_library, run_sanitized

OVERRUN = """
#include <vector>
int main(int argc, char**) {
  std::vector<int> x(4);
  volatile int* p = x.data();
  return p[argc > 1 ? 4 : 0];
}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "sample.cu"
    path.write_text(text)
    return path


def test_a_library_is_built_with_its_headers_and_flags(tmp_path: Path) -> None:
    (tmp_path / "factor.h").write_text("#define FACTOR 3\n")
    text = '#include "factor.h"\nextern "C" int scaled(int x) { return FACTOR * x + SHIFT; }\n'
    source = write(tmp_path, text)
    assert build_library(source, include=[tmp_path], flags=["-DSHIFT=1"]).scaled(2) == 7
    (tmp_path / "factor.h").write_text("#define FACTOR 5\n")
    assert build_library(source, include=[tmp_path], flags=["-DSHIFT=1"]).scaled(2) == 11
    loaded = build_library(source, include=[tmp_path], flags=["-DSHIFT=2"])
    assert isinstance(loaded, ctypes.CDLL)
    assert loaded.scaled(2) == 12


def test_a_source_that_does_not_compile_fails_with_the_log(tmp_path: Path) -> None:
    source = write(tmp_path, "int f() { return nothing; }\n")
    with pytest.raises(pytest.fail.Exception, match="nothing"):
        build_library(source)


def test_an_access_out_of_bounds_fails(tmp_path: Path) -> None:
    source = write(tmp_path, OVERRUN)
    assert run_sanitized(source) == ""
    with pytest.raises(pytest.fail.Exception, match="heap-buffer-overflow"):
        run_sanitized(source, arguments=["past the end"])
