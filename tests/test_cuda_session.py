"""The session on an emulated device gives the people of the CPU's path, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glnet_rt.artifact import Artifact
from glnet_rt.backends.cuda import cuda_bindings_, runtime
from glnet_rt.backends.cuda.binding import (
    Binding,
    NoDeviceError,
    OutOfMemoryError,
    WrongThreadError,
)
from glnet_rt.backends.cuda.cuda_bindings_ import CudaBinding
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

Check = Callable[[GlnetError], None]
DEBUG = True
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
        self.network = OnnxRuntimeBackend.open(artifact, "fp32", threads=1)
        self.bound: dict[int, Mapping[str, int]] = {}
        self.spoil: Callable[[dict[str, Array]], None] = lambda outputs: None
        self.closed = 0

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
            outputs = dict(self.network.infer(batch.astype(np.float32)))
            self.spoil(outputs)
            for name, values in outputs.items():
                array_at(addresses[name], values.shape, values.dtype)[...] = values

        self.driver.put(stream, run)

    def close(self) -> None:
        self.closed += 1
        self.network.close()


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
    got: tuple[Person, ...], wanted: tuple[Person, ...], tolerance: float = 1e-4
) -> None:
    assert len(got) == len(wanted)
    if DEBUG: print({f.name: max(float(np.abs(np.asarray(getattr(a,f.name))-np.asarray(getattr(b,f.name))).max()) for a,b in zip(got,wanted)) for f in dataclasses.fields(Person) if f.name!="track_id"})
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
    assert_same_people(people, wanted, tolerance=2e-3)
    assert not np.array_equal(people[0].vertices, wanted[0].vertices)
