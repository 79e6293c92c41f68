"""The session on an emulated device gives the CPU path's people, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from glnet_rt.artifact import Artifact
from glnet_rt.backends.cuda import runtime
from glnet_rt.backends.cuda.binding import (
    Binding,
    NoDeviceError,
    OutOfMemoryError,
    WrongThreadError,
)
from glnet_rt.backends.cuda.cuda_bindings_ import CudaBinding
from glnet_rt.backends.cuda.pycuda_ import PycudaBinding
from glnet_rt.backends.cuda.runtime import CudaConfig
from glnet_rt.backends.cuda.session import Session
from glnet_rt.backends.onnxruntime_ import OnnxRuntimeBackend
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, Frame, Person
from glnet_rt.crop import cut_crops
from glnet_rt.decode import Decoder
from glnet_rt.errors import BackendError, ContractError, GlnetError
from tests import tiny
from tests.cuda_emulator import EmulatedDriver, array_at
from tests.cuda_pycuda import EmulatedPycuda

Check = Callable[[GlnetError], None]
BOXES = ((10, 8, 70, 110), (30, 20, 60, 60), (-20, -10, 40, 90), (60, 70, 130, 160), (5, 5, 25, 30))
K = np.array([[140.0, 0.0, 47.0], [0.0, 150.0, 52.0], [0.0, 0.0, 1.0]])


class OnnxStage:
    """The miniature network on emulated memory, by ONNX Runtime."""

    def __init__(
        self,
        driver: EmulatedDriver,
        artifact: Artifact,
        buckets: tuple[int, ...] = (1, 2, 4),
        half_input: bool = False,
    ) -> None:
        self.driver, self.spec = driver, artifact.spec
        self.buckets, self.half_input = buckets, half_input
        self.network = onnxruntime.InferenceSession(artifact.read_model("fp32"))
        self.bound: dict[int, Mapping[str, int]] = {}
        self.spoil: Callable[[dict[str, Array]], None] = lambda outputs: None
        self.closed: list[int] = []  # after how many calls of the driver

    def bind(self, bucket: int, addresses: Mapping[str, int]) -> None:
        assert set(addresses) == {self.spec.input_name, *self.spec.output_shapes}
        assert all(address % 256 == 0 for address in addresses.values())
        self.bound[bucket] = dict(addresses)

    def enqueue(self, bucket: int, stream: int) -> None:
        addresses = self.bound[bucket]

        def run() -> None:
            dtype = np.float16 if self.half_input else np.float32
            shape = (bucket, *self.spec.input_shape)
            batch = array_at(addresses[self.spec.input_name], shape, dtype)
            names = list(self.spec.output_shapes)
            image = {self.spec.input_name: batch.astype(np.float32)}
            outputs = dict(zip(names, self.network.run(names, image), strict=True))
            self.spoil(outputs)
            for name, values in outputs.items():
                array_at(addresses[name], values.shape, values.dtype)[...] = values

        self.driver.put(stream, run)

    def close(self) -> None:
        self.closed.append(len(self.driver.calls))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled kernels, once for all tests here."""
    return tmp_path_factory.mktemp("cubins")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedDriver]:
    """An emulated driver behind the real binding; it must be left as it was found."""
    emulated = EmulatedDriver()
    install(monkeypatch, emulated)
    yield emulated
    assert not emulated.leaks()
    assert not emulated.faults


def install(monkeypatch: pytest.MonkeyPatch, driver: EmulatedDriver) -> None:
    def open_emulated(name: str, ordinal: int) -> Binding:
        return CudaBinding(driver, ordinal)

    monkeypatch.setattr(runtime, "open_binding", open_emulated)


def config_for(cache: Path, **changes: Any) -> CudaConfig:
    return CudaConfig(max_pixels=200 * 200, slots=2, cache=cache, **changes)


def open_session(
    driver: EmulatedDriver, artifact: Artifact, config: CudaConfig, **stage: Any
) -> tuple[Session, OnnxStage]:
    made = OnnxStage(driver, artifact, **stage)
    body = BodyModel.from_bytes(artifact.read("body.npz"), "body.npz")
    return Session(config, body, artifact.spec, lambda binding: made), made


def people_on_cpu(artifact: Artifact, frame: Frame, boxes: object) -> tuple[Person, ...]:
    """The same frame through NumPy, OpenCV and numba."""
    from glnet_rt.backends.base import run

    spec, image = artifact.spec, frame.image
    body = BodyModel.from_bytes(artifact.read("body.npz"), "body.npz")
    batch, crops = cut_crops(image, boxes, spec)
    with OnnxRuntimeBackend.open(artifact, "fp32", threads=1) as network:
        output = run(network, batch, spec)
    return Decoder(body, spec)(output, crops, (image.shape[1], image.shape[0]), frame.K)


def assert_same_people(
    got: tuple[Person, ...], wanted: tuple[Person, ...], tolerance: float = 6e-5
) -> None:
    assert len(got) == len(wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        for field in dataclasses.fields(Person):
            if field.name == "track_id":
                continue
            scale = 10 if field.name in ("keypoints_px", "transl", "vertices", "joints") else 1
            np.testing.assert_allclose(
                getattr(ours, field.name),
                getattr(theirs, field.name),
                atol=scale * tolerance,
                rtol=1e-5,
                err_msg=field.name,
            )


@pytest.mark.parametrize("representation", ["decomposed", "direct"])
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("lens", [None, K])
def test_people_are_those_of_the_cpu(
    driver: EmulatedDriver,
    cache: Path,
    tmp_path: Path,
    representation: str,
    graphs: bool,
    lens: Array | None,
) -> None:
    artifact = Artifact.open(tiny.write(tmp_path / "a.glnet", representation=representation))
    session, _ = open_session(driver, artifact, config_for(cache, graphs=graphs))
    with session:
        for count in (1, 2, 3, 4):
            frame = Frame(tiny.picture(count, 100 + count, 95), K=lens)
            boxes = BOXES[count - 1 :: -1]
            people = session.collect(session.submit(frame, boxes))
            assert_same_people(people, people_on_cpu(artifact, frame, boxes))


def test_frames_in_flight_keep_apart(
    driver: EmulatedDriver, cache: Path, tiny_artifact: Artifact
) -> None:
    """Two slots, always one frame ahead: nothing of one frame leaks into the other."""
    session, _ = open_session(driver, tiny_artifact, config_for(cache))
    frames = [Frame(tiny.picture(seed, 90 + 7 * seed, 80)) for seed in range(6)]
    with session:
        waiting = session.submit(frames[0], BOXES[:1])
        for i, frame in enumerate(frames[1:], 1):
            following = session.submit(frame, BOXES[: 1 + i % 3])
            got = session.collect(waiting)
            wanted = people_on_cpu(tiny_artifact, frames[i - 1], BOXES[: 1 + (i - 1) % 3])
            assert_same_people(got, wanted)
            waiting = following
        session.collect(waiting)


def test_half_input_moves_people_by_its_rounding_alone(
    driver: EmulatedDriver, cache: Path, tiny_artifact: Artifact
) -> None:
    session, _ = open_session(driver, tiny_artifact, config_for(cache), half_input=True)
    frame = Frame(tiny.picture(3))
    with session:
        people = session.collect(session.submit(frame, BOXES[:2]))
    wanted = people_on_cpu(tiny_artifact, frame, BOXES[:2])
    assert_same_people(people, wanted, tolerance=6e-3)
    assert not np.array_equal(people[0].vertices, wanted[0].vertices)


def test_steps_are_timed_one_by_one(
    driver: EmulatedDriver, cache: Path, tiny_artifact: Artifact
) -> None:
    session, _ = open_session(driver, tiny_artifact, config_for(cache))
    with session:
        timings = session.time_steps(Frame(tiny.picture(1)), BOXES[:2])
        assert list(timings) == ["copy_in", *runtime.STEPS, "copy_out"]
        people = session.collect(session.submit(Frame(tiny.picture(2)), BOXES[:1]))
    assert len(people) == 1


# -- order, ownership, threads --------------------------------------------------------------------


def test_every_bucket_is_captured_once_and_then_only_launched(
    driver: EmulatedDriver, cache: Path, tiny_artifact: Artifact
) -> None:
    session, stage = open_session(driver, tiny_artifact, config_for(cache), buckets=(1, 3))
    assert sorted(stage.bound) == [1, 3]
    assert stage.bound[1] == stage.bound[3]
    warm = len(driver.calls)
    assert driver.names().count("cuStreamBeginCapture") == 2
    assert driver.names().count("cuGraphInstantiate") == 2
    assert driver.names().count("cuGraphDestroy") == 2  # the template; its executable stays
    for count in (1, 2, 3):
        session.collect(session.submit(Frame(tiny.picture(count)), BOXES[:count]))
    later = driver.names()[warm:]
    assert later.count("cuGraphLaunch") == 3
    assert not {"cuLaunchKernel", "cuMemAlloc", "cuMemHostAlloc", "cuStreamBeginCapture"} & set(
        later
    )
    graphs = [arguments[0] for name, arguments in driver.calls[warm:] if name == "cuGraphLaunch"]
    assert graphs[0] != graphs[1] == graphs[2]
    session.close()


def test_closing_frees_the_graphs_then_the_network_then_the_memory(
    driver: EmulatedDriver, cache: Path, tiny_artifact: Artifact
) -> None:
    session, stage = open_session(driver, tiny_artifact, config_for(cache))
    before = len(driver.calls)
    session.close()
    session.close()
    names = driver.names()[before:]
    assert names[:3] == ["cuStreamSynchronize"] * 3
    assert names[3:6] == ["cuGraphExecDestroy"] * 3
    assert 6 <= stage.closed[0] - before <= names.index("cuMemFree")
    assert names[-2:] == ["cuCtxPopCurrent", "cuDevicePrimaryCtxRelease"]


def test_one_thread_owns_the_device(
    driver: EmulatedDriver, cache: Path, tiny_artifact: Artifact
) -> None:
    session, _ = open_session(driver, tiny_artifact, config_for(cache, graphs=True))
    wanted = people_on_cpu(tiny_artifact, Frame(tiny.picture(1)), BOXES[:2])
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                got = session.collect(session.submit(Frame(tiny.picture(1)), BOXES[:2]))
                assert_same_people(got, wanted)
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]  # as many as there are slots
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    session.close()
    assert not failed
    assert len(driver.threads) == 1
    assert threading.get_ident() not in driver.threads


def test_construction_that_fails_at_any_call_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, cache: Path, tiny_artifact: Artifact, assert_helpful: Check
) -> None:
    """Every driver call of the way up fails once; each time all is given back."""
    counted = EmulatedDriver()
    install(monkeypatch, counted)
    session, _ = open_session(counted, tiny_artifact, config_for(cache), buckets=(1, 2))
    way_up = len(counted.calls)
    session.close()
    for call in range(way_up):
        driver = EmulatedDriver(fail={call: "CUDA_ERROR_LAUNCH_FAILED"})
        install(monkeypatch, driver)
        with pytest.raises(BackendError) as caught:
            open_session(driver, tiny_artifact, config_for(cache), buckets=(1, 2))
        assert_helpful(caught.value)
        assert driver.names()[call] in str(caught.value)
        # What cannot be freed stays, and nothing besides.
        freeing = driver.names()[call] in ("cuMemFreeHost", "cuGraphDestroy")
        assert len(driver.leaks()) == freeing, f"after {driver.names()[call]}, call {call}"
        assert not driver.faults


def test_a_network_that_cannot_be_opened_leaves_nothing(
    driver: EmulatedDriver, cache: Path, tiny_artifact: Artifact
) -> None:
    def refuse(binding: Binding) -> OnnxStage:
        raise BackendError("the engine was built for another device")

    body = BodyModel.from_bytes(tiny_artifact.read("body.npz"), "body.npz")
    with pytest.raises(BackendError, match="another device"):
        Session(config_for(cache), body, tiny_artifact.spec, refuse)


def test_a_network_that_fails_while_captured_leaves_nothing(
    driver: EmulatedDriver, cache: Path, tiny_artifact: Artifact
) -> None:
    stage = OnnxStage(driver, tiny_artifact)
    enqueue, calls = stage.enqueue, []

    def fail_second(bucket: int, stream: int) -> None:
        calls.append(bucket)
        if len(calls) == 2:
            raise BackendError("the engine cannot be captured")
        enqueue(bucket, stream)

    stage.enqueue = fail_second  # type: ignore[method-assign]
    body = BodyModel.from_bytes(tiny_artifact.read("body.npz"), "body.npz")
    with pytest.raises(BackendError, match="cannot be captured"):
        Session(config_for(cache), body, tiny_artifact.spec, lambda binding: stage)
    assert stage.closed


def test_memory_that_runs_out_is_told(
    monkeypatch: pytest.MonkeyPatch, cache: Path, tiny_artifact: Artifact, assert_helpful: Check
) -> None:
    for name in ("cuMemAlloc", "cuMemHostAlloc"):
        counted = EmulatedDriver()
        install(monkeypatch, counted)
        open_session(counted, tiny_artifact, config_for(cache))[0].close()
        fail = {counted.names().index(name): "CUDA_ERROR_OUT_OF_MEMORY"}
        driver = EmulatedDriver(fail=fail)
        install(monkeypatch, driver)
        with pytest.raises(OutOfMemoryError, match="bytes asked for") as caught:
            open_session(driver, tiny_artifact, config_for(cache))
        assert_helpful(caught.value)
        assert not driver.leaks()


# -- what a session refuses, and how it goes on ----------------------------------------------------


def test_a_frame_the_network_fails_on_fails_alone(
    driver: EmulatedDriver, cache: Path, tiny_artifact: Artifact, assert_helpful: Check
) -> None:
    session, stage = open_session(driver, tiny_artifact, config_for(cache))
    frame = Frame(tiny.picture(1))

    def spoil(outputs: dict[str, Array]) -> None:
        outputs["camera_scale"] = -outputs["camera_scale"]

    with session:
        stage.spoil = spoil
        with pytest.raises(BackendError, match="cannot be decoded") as caught:
            session.collect(session.submit(frame, BOXES[:2]))
        assert_helpful(caught.value)
        stage.spoil = lambda outputs: None
        for _ in range(3):  # more often than there are slots: the failed one came back
            people = session.collect(session.submit(frame, BOXES[:2]))
    assert_same_people(people, people_on_cpu(tiny_artifact, frame, BOXES[:2]))


def test_what_cannot_be_submitted_is_refused_and_costs_no_slot(
    driver: EmulatedDriver, cache: Path, tiny_artifact: Artifact, assert_helpful: Check
) -> None:
    session, _ = open_session(driver, tiny_artifact, config_for(cache))
    good = Frame(tiny.picture(1))
    skewed = np.array([[100.0, 5.0, 40.0], [0.0, 100.0, 40.0], [0.0, 0.0, 1.0]])
    refused = (
        (good, (), "no boxes"),
        (good, BOXES[:1] * 5, "more than fit"),
        (good, ((0, 0, 1, 1),), "too small"),
        (Frame(np.zeros((300, 300, 3), np.uint8)), BOXES[:1], "larger than"),
        (Frame(good.image, K=skewed), BOXES[:1], "without skew"),
    )
    with session:
        for frame, boxes, text in refused * 2:
            with pytest.raises(ContractError, match=text) as caught:
                session.submit(frame, boxes)
            assert_helpful(caught.value)
        tickets = [session.submit(good, BOXES[:1]) for _ in range(2)]
        with pytest.raises(BackendError, match="in flight") as full:
            session.submit(good, BOXES[:1])
        assert_helpful(full.value)
        for ticket in tickets:
            session.collect(ticket)
        with pytest.raises(ContractError, match="not in flight"):
            session.collect(tickets[0])
    for late in (lambda: session.submit(good, BOXES[:1]), lambda: session.time_steps(good, BOXES)):
        with pytest.raises((BackendError, ContractError)):
            late()


def test_a_session_closed_with_frames_in_flight_ends_cleanly(
    driver: EmulatedDriver, cache: Path, tiny_artifact: Artifact
) -> None:
    session, _ = open_session(driver, tiny_artifact, config_for(cache))
    ticket = session.submit(Frame(tiny.picture(1)), BOXES[:2])
    session.close()
    with pytest.raises(ContractError, match="not in flight"):
        session.collect(ticket)


@pytest.mark.parametrize("buckets", [(), (2, 1), (1, 1), (0, 1), (1, 64)])
def test_buckets_that_cannot_be_used_are_refused(
    driver: EmulatedDriver, cache: Path, tiny_artifact: Artifact, buckets: tuple[int, ...]
) -> None:
    with pytest.raises(ContractError, match="buckets"):
        open_session(driver, tiny_artifact, config_for(cache), buckets=buckets)


@pytest.mark.parametrize("field", ["slots", "max_pixels"])
def test_a_config_that_holds_nothing_is_refused(field: str) -> None:
    with pytest.raises(ContractError, match=field):
        CudaConfig(**{field: 0})


# -- the binding ----------------------------------------------------------------------------------


def test_the_device_is_described(
    driver: EmulatedDriver, cache: Path, tiny_artifact: Artifact
) -> None:
    session, _ = open_session(driver, tiny_artifact, config_for(cache))
    with session:
        told = session.describe()
    for part in ("Emulated GPU", "sm_75", "CUDA 13.0", "cuda-bindings", "buckets 1, 2, 4"):
        assert part in told


def test_another_thread_is_refused(driver: EmulatedDriver, assert_helpful: Check) -> None:
    caught: list[GlnetError] = []
    with CudaBinding(driver, 0) as binding:

        def meddle() -> None:
            try:
                binding.malloc(16)
            except GlnetError as error:
                caught.append(error)

        worker = threading.Thread(target=meddle)
        worker.start()
        worker.join()
    with pytest.raises(WrongThreadError, match="closed"):
        binding.malloc(16)
    (error,) = caught
    assert isinstance(error, WrongThreadError)
    assert_helpful(error)


def test_a_graph_takes_new_parameters_only_in_its_own_shape(driver: EmulatedDriver) -> None:
    with CudaBinding(driver, 0) as binding:
        stream, memory = binding.create_stream(), binding.malloc(64)
        graphs = []
        for count in (1, 1, 2):
            binding.begin_capture(stream)
            for _ in range(count):
                binding.fill_zeros(memory, 64, stream)
            graphs.append(binding.end_capture(stream))
        executable = binding.instantiate(graphs[0])
        assert binding.update_graph(executable, graphs[1])
        assert not binding.update_graph(executable, graphs[2])
        for graph in graphs:
            binding.destroy_graph(graph)
        binding.destroy_executable(executable)
        binding.free(memory)
        binding.destroy_stream(stream)


@pytest.mark.parametrize(("devices", "ordinal"), [(0, 0), (1, 1), (2, -1)])
def test_a_device_that_is_not_there_is_told(
    devices: int, ordinal: int, assert_helpful: Check
) -> None:
    driver = EmulatedDriver(devices)
    with pytest.raises(NoDeviceError) as caught:
        CudaBinding(driver, ordinal)
    assert_helpful(caught.value)
    assert not driver.leaks()


# -- PyCUDA ---------------------------------------------------------------------------------------


def open_with_pycuda(monkeypatch: pytest.MonkeyPatch, driver: EmulatedDriver) -> None:
    def open_emulated(name: str, ordinal: int) -> Binding:
        assert name == "pycuda"
        return PycudaBinding(EmulatedPycuda(driver), ordinal)

    monkeypatch.setattr(runtime, "open_binding", open_emulated)


def test_pycuda_gives_the_same_people_without_graphs(
    driver: EmulatedDriver,
    cache: Path,
    tiny_artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_with_pycuda(monkeypatch, driver)
    session, _ = open_session(driver, tiny_artifact, config_for(cache, binding="pycuda"))
    frame = Frame(tiny.picture(5))
    with session:
        assert "no CUDA graphs" in session.describe()
        waiting = session.submit(frame, BOXES[:3])
        session.submit(frame, BOXES[:1])
        people = session.collect(waiting)
        session.time_steps(frame, BOXES[:2])
    assert_same_people(people, people_on_cpu(tiny_artifact, frame, BOXES[:3]))
    assert "cuStreamBeginCapture" not in driver.names()


def test_graphs_are_not_asked_of_pycuda_in_silence(
    driver: EmulatedDriver,
    cache: Path,
    tiny_artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    assert_helpful: Check,
) -> None:
    open_with_pycuda(monkeypatch, driver)
    with pytest.raises(BackendError, match="no CUDA graphs") as caught:
        open_session(driver, tiny_artifact, config_for(cache, binding="pycuda", graphs=True))
    assert_helpful(caught.value)
    with PycudaBinding(EmulatedPycuda(driver), 0) as binding:
        for graphless in (
            lambda: binding.begin_capture(1),
            lambda: binding.end_capture(1),
            lambda: binding.instantiate(1),
            lambda: binding.update_graph(1, 1),
            lambda: binding.launch_graph(1, 1),
            lambda: binding.destroy_graph(1),
            lambda: binding.destroy_executable(1),
        ):
            with pytest.raises(BackendError, match="no CUDA graphs"):
                graphless()


def test_pycuda_tells_what_fails(assert_helpful: Check) -> None:
    with pytest.raises(NoDeviceError):
        PycudaBinding(EmulatedPycuda(EmulatedDriver(devices=0)), 0)
    with pytest.raises(NoDeviceError):
        PycudaBinding(EmulatedPycuda(EmulatedDriver()), 3)
    driver = EmulatedDriver()
    with PycudaBinding(EmulatedPycuda(driver), 0) as binding:
        driver.fail = {len(driver.calls): "CUDA_ERROR_OUT_OF_MEMORY"}
        with pytest.raises(OutOfMemoryError, match="16 bytes") as caught:
            binding.malloc(16)
        assert_helpful(caught.value)
        with pytest.raises(BackendError, match="cuModuleLoadData"):
            binding.load_module(b"no machine code")
    with pytest.raises(WrongThreadError):
        binding.malloc(16)
    binding.close()
    assert not driver.leaks()
