"""The part-point gather's kernels: the source that a GPU runs, run on the CPU and compiled."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from dataclasses import astuple
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from glnet_rt.backends.cuda import nvrtc
from glnet_rt.backends.gather_twin import KERNELS, GatherShape, Launch, kernels_sha256, launch_of
from tests import native
from tests.gather import assert_as_exact_as, interleaved, odd_points, random_features, reference

PLUGIN = Path(__file__).parents[2] / "export" / "plugin"
SIZES = [(1, 1), (1, 9), (9, 1), (2, 2), (7, 13), (64, 64)]
CHANNELS = [1, 2, 4, 5, 8, 31, 32, 64, 70]


@pytest.fixture(scope="module")
def cpu() -> ctypes.CDLL:
    library = native.build_library(PLUGIN / "part_point_gather_cpu.cpp", include=[KERNELS])
    library.kernel_of.restype = ctypes.c_char_p
    library.float_of.restype = ctypes.c_float
    return library


def c_shape(shape: GatherShape) -> ctypes.Array[ctypes.c_int]:
    return (ctypes.c_int * 5)(*astuple(shape))


def gather(
    cpu: ctypes.CDLL, features: np.ndarray, points: np.ndarray, hwc: bool = False
) -> np.ndarray:
    """What the kernel that launch_of chooses writes; in both orders of its threads the same."""
    shape = GatherShape(*features.shape, points.shape[1])
    plan = launch_of(shape, features.dtype == np.float16, hwc)
    grid, block = (ctypes.c_uint * 3)(plan.blocks, 1, 1), (ctypes.c_uint * 3)(plan.threads, 1, 1)
    outputs = []
    for backwards in (0, 1):
        output = np.full((shape.batch, shape.points, shape.channels), np.nan, features.dtype)
        arrays = [interleaved(features) if hwc else features, points, output]
        values = [*(ctypes.c_void_p(array.ctypes.data) for array in arrays), c_shape(shape)]
        arguments = (ctypes.c_void_p * 4)(*map(ctypes.addressof, values))
        getattr(cpu, f"launch_{plan.kernel}")(grid, block, arguments, backwards)
        outputs.append(output)
    assert outputs[0].tobytes() == outputs[1].tobytes()
    return outputs[0]


@pytest.mark.parametrize("kind", ["float", "half", "interleaved"])
@pytest.mark.parametrize("size", SIZES)
def test_every_kernel_equals_the_definition(
    cpu: ctypes.CDLL, kind: str, size: tuple[int, int]
) -> None:
    dtype = np.float32 if kind == "float" else np.float16
    for batch, channels, count in product([1, 3], CHANNELS, [1, 29, 33]):
        features = random_features((batch, channels, *size), dtype)
        points = odd_points(batch, count, size)
        output = gather(cpu, features, points, hwc=kind == "interleaved")
        assert_as_exact_as(output, reference(features, points))


@pytest.mark.parametrize("hwc", [False, True])
def test_no_points_write_nothing(cpu: ctypes.CDLL, hwc: bool) -> None:
    features = random_features((2, 8, 3, 3), np.float16)
    assert gather(cpu, features, np.zeros((2, 0, 2), np.float32), hwc).shape == (2, 0, 8)


def test_an_infinite_neighbour_of_weight_nought_gives_nan(cpu: ctypes.CDLL) -> None:
    """As in torch: a whole-numbered point multiplies its right neighbour, if it has one, by 0."""
    features = np.float32([[[[1, np.inf, 3]]]])
    points = np.float32([[[0, 0], [2, 0]]])
    assert np.array_equal(gather(cpu, features, points)[0, :, 0], [np.nan, 3], equal_nan=True)


def test_every_half_converts_exactly(cpu: ctypes.CDLL) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    ours = np.float32([cpu.float_of(int(b)) for b in bits])
    expected = bits.view(np.float16).astype(np.float32)
    assert np.array_equal(ours, expected, equal_nan=True)
    assert np.array_equal(np.signbit(ours[~np.isnan(ours)]), np.signbit(expected[~np.isnan(ours)]))


def test_the_twin_launches_what_the_library_does(cpu: ctypes.CDLL) -> None:
    blocks, threads = ctypes.c_int64(), ctypes.c_int()
    for batch, channels, count in product([1, 56], [1, 2, 3, 4, 8, 12, 257], [0, 1, 33, 4096]):
        shape = GatherShape(batch, channels, 7, 13, count)
        for half, hwc in [(False, False), (True, False), (True, True)]:
            found = ctypes.byref(blocks), ctypes.byref(threads)
            name = cpu.kernel_of(c_shape(shape), half, hwc, *found)
            assert launch_of(shape, half, hwc) == Launch(name.decode(), blocks.value, threads.value)


def test_sanitizers_find_nothing() -> None:
    said = native.run_sanitized(PLUGIN / "part_point_gather_test.cpp", include=[KERNELS])
    assert re.match(r"1800 cases, largest error \d", said)


def read_source() -> str:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    return (KERNELS / "part_point_gather.cu").read_text()


@pytest.mark.parametrize("arch", [75, 87, 90, 110, 120])
def test_it_compiles_for_every_generation(arch: int) -> None:
    cubin = nvrtc.compile_cubin(read_source(), "part_point_gather.cu", f"sm_{arch}", [KERNELS])
    for ending in ("float", "float4", "half", "half2", "hwc8"):
        assert f"part_point_gather_{ending}\0".encode() in cubin


def test_wide_loads_and_stores_are_in_the_machine_code() -> None:
    ptx = nvrtc.compile_ptx(read_source(), "part_point_gather.cu", "compute_87", [KERNELS]).decode()
    bodies = dict(re.findall(r"\.entry part_point_gather_(\w+)\((.*?)\n}", ptx, re.S))
    assert "st.global.v4.f32" in bodies["float4"]
    assert "st.global.v2.u16" in bodies["half2"]
    assert "ld.global.nc.v4.u32" in bodies["hwc8"]
    assert "ld.global.nc.u16" not in bodies["hwc8"]
    assert "st.global.v4.u32" in bodies["hwc8"]
    assert not any(re.search(r"\b(ld|st)\.local", body) for body in bodies.values())


@pytest.mark.slow
def test_cmake_builds_the_cpu_test_and_counts_the_kernels_alike(tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("no cmake on this machine")
    configure = ["cmake", "-S", PLUGIN, "-B", tmp_path, "-DGLNET_PLUGIN=OFF"]
    said = subprocess.run(configure, check=True, capture_output=True, text=True).stdout
    assert f"kernels {kernels_sha256()}" in said
    subprocess.run(["cmake", "--build", tmp_path], check=True, capture_output=True)
    subprocess.run(["ctest", "--test-dir", tmp_path], check=True, capture_output=True)
