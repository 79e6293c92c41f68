"""CUDA C++ -> machine code through NVRTC, which needs neither a GPU nor a driver.

A cubin runs on the one architecture it was made for; PTX is finished by the driver at load, which
must be at least as new as the NVRTC that wrote it. So compile cubins, for the device at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glnet_rt.errors import BackendError, ContractError, MissingDependencyError

_FIX = "pip install 'glnet-rt[cuda]' (with a CUDA 12 driver: 'glnet-rt[cuda12]')"
_OPTIONS = ("--std=c++17", "--fmad=true")


def compile_cubin(source: str, name: str, arch: str, include: Sequence[Path] = ()) -> bytes:
    """Machine code for one architecture.

    Args:
        source: CUDA C++. NVRTC has no standard library; mark entry points `extern "C"`.
        name: file name for messages.
        arch: `sm_87` and the like.
        include: folders to look for headers in.

    Returns:
        The cubin, an ELF file.

    Raises:
        ContractError: `arch` is no real architecture.
        MissingDependencyError: cuda-bindings or NVRTC is not installed; the fix is a pip command.
        BackendError: it does not compile; `got` is the compiler's log.
    """
    _check_arch(arch, "sm_")
    return _compile(source, name, arch, include, "CUBIN")


def compile_ptx(source: str, name: str, arch: str, include: Sequence[Path] = ()) -> bytes:
    """PTX text, zero byte included, for `compute_87` and the like; else as `compile_cubin`."""
    _check_arch(arch, "compute_")
    return _compile(source, name, arch, include, "PTX")


def version() -> tuple[int, int]:
    """NVRTC's own version, major and minor.

    Raises:
        MissingDependencyError: cuda-bindings or NVRTC is not installed.
    """
    nvrtc = _load()
    major, minor = _call(nvrtc, "nvrtcVersion")
    return int(major), int(minor)


def _check_arch(arch: str, prefix: str) -> None:
    digits = arch.removeprefix(prefix)
    if not arch.startswith(prefix) or not digits[:-1].isdigit():
        raise ContractError(
            "this is no CUDA architecture",
            got=repr(arch),
            expected=f"{prefix}75, {prefix}87, {prefix}90, ...",
            fix="sm_ names machine code, compute_ names PTX",
        )


def _load() -> Any:
    """cuda-bindings' NVRTC, its library found."""
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise MissingDependencyError(
            "compiling CUDA kernels needs the package cuda-bindings",
            got=str(error),
            expected="cuda-bindings >= 12.6",
            fix=_FIX,
        ) from error
    try:
        nvrtc.nvrtcVersion()
    except Exception as error:  # its finder's exceptions differ from version to version
        raise MissingDependencyError(
            "the compiler library NVRTC cannot be loaded",
            got=str(error),
            expected="libnvrtc of the same major version as cuda-bindings",
            fix=_FIX,
        ) from error
    return nvrtc


def _compile(source: str, name: str, arch: str, include: Sequence[Path], kind: str) -> bytes:
    nvrtc = _load()
    (program,) = _call(nvrtc, "nvrtcCreateProgram", source.encode(), name.encode(), 0, [], [])
    try:
        options = [f"--gpu-architecture={arch}", *_OPTIONS, *(f"-I{folder}" for folder in include)]
        encoded = [option.encode() for option in options]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(encoded), encoded)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = _read(nvrtc, program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            raise BackendError(
                f"NVRTC {'.'.join(map(str, version()))} cannot compile {name} for {arch}",
                got=log or status.name,
                expected="CUDA C++17, and an architecture this NVRTC knows",
                fix="for a newer GPU: pip install -U nvidia-cuda-nvrtc; else mend the source",
            )
        return _read(nvrtc, program, kind)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _read(nvrtc: Any, program: Any, what: str) -> bytes:
    (size,) = _call(nvrtc, f"nvrtcGet{what}Size", program)
    data = b" " * size
    _call(nvrtc, f"nvrtcGet{what}", program, data)
    return data


def _call(nvrtc: Any, function: str, *arguments: Any) -> tuple[Any, ...]:
    """The results of an NVRTC function, its status checked and taken off."""
    status, *results = getattr(nvrtc, function)(*arguments)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise BackendError(
            f"NVRTC's {function} failed", got=status.name, expected="NVRTC_SUCCESS", fix=_FIX
        )
    return tuple(results)
