"""On a GPU: the kernels against the CPU's path, graphs against direct launches, and their times."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glnet_rt.backends.cuda import kernels
from glnet_rt.backends.cuda.binding import Binding, OutOfMemoryError, open_binding
from glnet_rt.backends.cuda.runtime import CudaConfig
from glnet_rt.backends.cuda.session import Session
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, Frame, NetOutput, Person
from glnet_rt.crop import cut_crops, normalise
from glnet_rt.decode import Decoder
from glnet_rt.spec import NetSpec
from tests.cuda_bench import people_seen

pytestmark = pytest.mark.gpu

BUCKETS = (1, 2, 4, 8)
SPECS = {
    "decomposed": NetSpec(input_size=256),
    "direct": NetSpec(input_size=256, representation="direct"),
    "fitted": NetSpec(input_size=256, representation="direct", fit_prior_rad=0.2),
}
RUNS = 200


class FixedStage:
    """Stands where the network does: gives back stored outputs, and keeps the crops it was given.

    Both are copies between the device and pinned memory, so that they can be captured.
    """

    def __init__(self, binding: Binding, spec: NetSpec, half_input: bool) -> None:
        self.buckets, self.half_input = BUCKETS, half_input
        self._binding, self._spec, self._pinned = binding, spec, list[int]()
        self._bound: dict[str, int] = {}
        most = BUCKETS[-1]
        dtype = np.float16 if half_input else np.float32
        self.crops = self._array((most, *spec.input_shape), dtype)
        self.outputs = {
            name: self._array((most, *shape), np.int64 if name == "pixel" else np.float32)
            for name, shape in spec.output_shapes.items()
        }

    def _array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self._binding.malloc_host(size)
        self._pinned.append(address)
        data = (ctypes.c_ubyte * size).from_address(address)
        array = np.ctypeslib.as_array(data).view(dtype).reshape(shape)
        array[...] = 1
        return array

    def say(self, output: NetOutput) -> None:
        """What the next frames get."""
        for name, rows in self.outputs.items():
            rows[: len(output.score)] = getattr(output, name)

    def bind(self, bucket: int, addresses: Mapping[str, int]) -> None:
        self._bound = dict(addresses)

    def enqueue(self, bucket: int, stream: int) -> None:
        size = bucket * self.crops[0].nbytes
        source = self._bound[self._spec.input_name]
        self._binding.copy_to_host(self.crops.ctypes.data, source, size, stream)
        for name, rows in self.outputs.items():
            size = bucket * rows[0].nbytes
            self._binding.copy_to_device(self._bound[name], rows.ctypes.data, size, stream)

    def close(self) -> None:
        for address in self._pinned:
            self._binding.free_host(address)
        self._pinned.clear()


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load(Path(kernels.__file__).parents[2] / "assets" / "body.npz")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cubins")


@contextmanager
def session_for(
    body: BodyModel, spec: NetSpec, config: CudaConfig, half_input: bool = False
) -> Iterator[tuple[Session, FixedStage]]:
    stages: list[FixedStage] = []

    def open_stage(binding: Binding) -> FixedStage:
        stages.append(FixedStage(binding, spec, half_input))
        return stages[0]

    with Session(config, body, spec, open_stage) as session:
        yield session, stages[0]


def scene(body: BodyModel, spec: NetSpec, count: int, seed: int) -> tuple[Frame, Array, NetOutput]:
    """A 1080p frame of noise, boxes in and across it, and what is said of the people in them."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (1080, 1920, 3), np.uint8)
    low = rng.uniform((-50, -50), (1500, 700), (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(60, 600, (count, 2))], axis=1)
    output, _, _ = people_seen(body, spec, seed, count)
    return Frame(image), boxes, output


def assert_same_people(got: tuple[Person, ...], wanted: tuple[Person, ...]) -> None:
    assert len(got) == len(wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        gap = (ours.vertices - ours.transl) - (theirs.vertices - theirs.transl)
        assert np.abs(gap).max() < 5e-5, "metres"
        np.testing.assert_allclose(ours.transl, theirs.transl, rtol=1e-6, atol=2e-4)
        np.testing.assert_allclose(ours.keypoints_px, theirs.keypoints_px, atol=1e-3)
        assert ours.score == theirs.score


@pytest.mark.parametrize("half_input", [False, True])
def test_crops_are_those_of_the_cpu(body: BodyModel, cache: Path, half_input: bool) -> None:
    spec = SPECS["decomposed"]
    with session_for(body, spec, CudaConfig(cache=cache), half_input) as (session, stage):
        for count in (1, 3, 8):
            frame, boxes, output = scene(body, spec, count, seed=count)
            stage.say(output)
            session.collect(session.submit(frame, boxes))
            wanted = normalise(cut_crops(frame.image, boxes, spec)[0], spec)
            std = np.array(spec.std)[:, None, None]
            levels = np.abs(stage.crops[:count].astype(np.float32) - wanted) * std * 255
            rounding = 0.3 if half_input else 0.01
            assert (levels > 0.5).mean() < 0.01  # ties
            assert levels.max() < 1 + rounding


@pytest.mark.parametrize("kind", SPECS)
def test_bodies_are_those_of_the_cpu(body: BodyModel, cache: Path, kind: str) -> None:
    spec = SPECS[kind]
    with session_for(body, spec, CudaConfig(cache=cache)) as (session, stage):
        for count in (1, 2, 5, 8):
            frame, boxes, output = scene(body, spec, count, seed=10 + count)
            stage.say(output)
            people = session.collect(session.submit(frame, boxes))
            _, crops = cut_crops(frame.image, boxes, spec)
            assert_same_people(people, Decoder(body, spec)(output, crops, (1920, 1080)))


@pytest.mark.parametrize("kind", SPECS)
def test_replaying_a_graph_equals_launching_directly(
    body: BodyModel, cache: Path, kind: str
) -> None:
    spec, results = SPECS[kind], []
    for graphs in (True, False):
        config = CudaConfig(cache=cache, graphs=graphs)
        with session_for(body, spec, config) as (session, stage):
            told = []
            for count in (1, 3, 8):
                frame, boxes, output = scene(body, spec, count, seed=count)
                stage.say(output)
                told += session.collect(session.submit(frame, boxes))
            results.append(told)
    for replayed, launched in zip(*results, strict=True):
        np.testing.assert_array_equal(replayed.vertices, launched.vertices)
        np.testing.assert_array_equal(replayed.body_pose, launched.body_pose)
        np.testing.assert_array_equal(replayed.transl, launched.transl)


def test_pycuda_gives_the_same_people(body: BodyModel, cache: Path) -> None:
    pytest.importorskip("pycuda", reason="pycuda is not installed")
    spec, results = SPECS["fitted"], []
    for name in ("cuda-bindings", "pycuda"):
        with session_for(body, spec, CudaConfig(cache=cache, binding=name)) as (session, stage):
            frame, boxes, output = scene(body, spec, 4, seed=4)
            stage.say(output)
            results.append(session.collect(session.submit(frame, boxes)))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours.vertices, theirs.vertices)


def test_more_memory_than_there_is_is_refused() -> None:
    with open_binding() as binding, pytest.raises(OutOfMemoryError, match="bytes asked for"):
        binding.malloc(binding.device.memory_bytes * 2)


@pytest.mark.parametrize("count", [1, 4, 8])
def test_times_are_taken(
    body: BodyModel, cache: Path, count: int, measured: dict[str, Any]
) -> None:
    """Per step by CUDA events, and per frame by the clock, two frames in flight; prints both."""
    spec = SPECS["fitted"]
    with session_for(body, spec, CudaConfig(cache=cache)) as (session, stage):
        frame, boxes, output = scene(body, spec, count, seed=count)
        stage.say(output)
        runs = [session.time_steps(frame, boxes) for _ in range(RUNS + 20)][20:]
        started = time.perf_counter()
        waiting = session.submit(frame, boxes)
        for _ in range(RUNS):
            following = session.submit(frame, boxes)
            session.collect(waiting)
            waiting = following
        session.collect(waiting)
        per_frame_ms = (time.perf_counter() - started) * 1000 / (RUNS + 1)
        with open_binding() as binding:
            device = binding.device
    steps = {
        name: dict(zip(("p50", "p95", "p99"), np.percentile(values, (50, 95, 99)), strict=True))
        for name, values in ((name, [run[name] for run in runs]) for name in runs[0])
    }
    cuda = ".".join(map(str, device.driver_version))
    measured["device"] = {"name": device.name, "arch": device.arch, "cuda": cuda}
    measured.setdefault("steps_ms", {})[str(count)] = steps
    measured.setdefault("frame_ms", {})[str(count)] = per_frame_ms
    for name, values in steps.items():
        print(f"{count} people, {name}: p50 {values['p50']:.4f} ms, p99 {values['p99']:.4f} ms")
    print(f"{count} people, a frame in flight beside another: {per_frame_ms:.3f} ms")
    # The stage here copies crops back instead of running a network, hence "infer" is not one.
    assert all(values["p50"] > 0 for values in steps.values())
