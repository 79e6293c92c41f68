"""NVRTC compiles with no GPU, and what it refuses is told with its log."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from glnet_rt.backends.cuda import nvrtc
from glnet_rt.errors import BackendError, ContractError, GlnetError, MissingDependencyError

Check = Callable[[GlnetError], None]
SOURCE = """
#include "twice.h"
extern "C" __global__ void twice(float* x) { x[threadIdx.x] = TWICE(x[threadIdx.x]); }
"""


@pytest.fixture
def include(tmp_path: Path) -> tuple[Path]:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    (tmp_path / "twice.h").write_text("#define TWICE(x) (2.0f * (x))\n")
    return (tmp_path,)


@pytest.mark.parametrize("arch", [75, 87, 90, 110, 120])
def test_a_cubin_is_machine_code_for_its_architecture(include: tuple[Path], arch: int) -> None:
    cubin = nvrtc.compile_cubin(SOURCE, "twice.cu", f"sm_{arch}", include)
    assert cubin[:4] == b"\x7fELF"
    assert b"twice" in cubin


def test_ptx_names_its_target(include: tuple[Path]) -> None:
    ptx = nvrtc.compile_ptx(SOURCE, "twice.cu", "compute_75", include)
    assert b".target sm_75" in ptx
    assert b".visible .entry twice" in ptx


def test_a_compile_error_carries_the_log(include: tuple[Path], assert_helpful: Check) -> None:
    with pytest.raises(BackendError, match=r"broken\.cu.*sm_75") as caught:
        nvrtc.compile_cubin("__global__ void f() { nothing(); }", "broken.cu", "sm_75", include)
    assert "nothing" in str(caught.value.got)
    assert_helpful(caught.value)


def test_an_architecture_the_compiler_lacks_is_refused(include: tuple[Path]) -> None:
    with pytest.raises(BackendError, match="sm_13"):
        nvrtc.compile_cubin(SOURCE, "twice.cu", "sm_13", include)


@pytest.mark.parametrize("arch", ["75", "compute_75", "sm_", "sm_x", ""])
def test_what_names_no_architecture_is_refused(arch: str, assert_helpful: Check) -> None:
    with pytest.raises(ContractError) as caught:
        nvrtc.compile_cubin(SOURCE, "twice.cu", arch)
    assert_helpful(caught.value)


def test_a_missing_package_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, assert_helpful: Check
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingDependencyError, match="pip install") as caught:
        nvrtc.compile_cubin(SOURCE, "twice.cu", "sm_75")
    assert_helpful(caught.value)
