"""The gather's kernels and its plugin on a GPU, against float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glnet_rt.backends.cuda.binding import Binding, open_binding
from glnet_rt.backends.gather_plugin import load_plugin
from glnet_rt.backends.gather_twin import GatherShape, launch, launch_of
from tests.gather import assert_as_exact_as, interleaved, odd_points, random_features, reference
from tests.test_gather_plugin import write_model

pytestmark = pytest.mark.gpu
GUARD = 64  # bytes before and after the output that no kernel may touch


@pytest.fixture(scope="module")
def device() -> Iterator[Binding]:
    with open_binding() as binding:
        yield binding


class Buffers:
    """Arrays on the device, freed together."""

    def __init__(self, device: Binding) -> None:
        self.device, self.addresses = device, []
        self.stream = device.create_stream()

    def upload(self, array: np.ndarray) -> int:
        array = np.ascontiguousarray(array)
        address = self.device.malloc(max(array.nbytes, 1))
        self.addresses.append(address)
        self.device.copy_to_device(address, array.ctypes.data, array.nbytes, self.stream)
        self.device.synchronize(self.stream)
        return address

    def download(self, address: int, array: np.ndarray) -> np.ndarray:
        self.device.copy_to_host(array.ctypes.data, address, array.nbytes, self.stream)
        self.device.synchronize(self.stream)
        return array

    def free(self) -> None:
        for address in self.addresses:
            self.device.free(address)
        self.device.destroy_stream(self.stream)


@pytest.fixture
def buffers(device: Binding) -> Iterator[Buffers]:
    made = Buffers(device)
    yield made
    made.free()


def run(
    buffers: Buffers, features: np.ndarray, points: np.ndarray, hwc: bool, replay: bool = False
) -> np.ndarray:
    """The gather's output, what lies around it left as it was."""
    shape = GatherShape(*features.shape, points.shape[1])
    plan = launch_of(shape, features.dtype == np.float16, hwc)
    size = (shape.batch, shape.points, shape.channels)
    guarded = np.full(np.prod(size, dtype=int) + 2 * GUARD, 7, features.dtype)
    output = buffers.upload(guarded)
    inside = output + GUARD * guarded.itemsize
    addresses = [buffers.upload(interleaved(features) if hwc else features), buffers.upload(points)]

    def enqueue() -> None:
        launch(plan, shape, (*addresses, inside), buffers.stream)

    if replay:
        capture_and_replay(buffers, enqueue)
    else:
        enqueue()
    result = buffers.download(output, guarded)
    assert np.all(result[:GUARD] == 7)
    assert np.all(result[-GUARD:] == 7)
    return result[GUARD:-GUARD].reshape(size)


def capture_and_replay(buffers: Buffers, enqueue: Callable[[], None]) -> None:
    device, stream = buffers.device, buffers.stream
    enqueue()  # compiles, which a capture does not allow
    device.begin_capture(stream)
    enqueue()
    graph = device.end_capture(stream)
    executable = device.instantiate(graph)
    device.launch_graph(executable, stream)
    device.synchronize(stream)
    device.destroy_executable(executable)
    device.destroy_graph(graph)


@pytest.mark.parametrize("kind", ["float", "half", "interleaved"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 13), (64, 64)])
def test_every_kernel_equals_the_definition(
    buffers: Buffers, kind: str, size: tuple[int, int]
) -> None:
    dtype = np.float32 if kind == "float" else np.float16
    for batch, channels, count in product([1, 3], [1, 4, 5, 31, 64, 70, 256], [0, 1, 29, 33, 500]):
        features = random_features((batch, channels, *size), dtype)
        points = odd_points(batch, count, size)
        output = run(buffers, features, points, kind == "interleaved")
        assert_as_exact_as(output, reference(features, points))


def test_a_captured_graph_replays_it(buffers: Buffers) -> None:
    features, points = random_features((2, 64, 8, 8), np.float16), odd_points(2, 29, (8, 8))
    output = run(buffers, features, points, hwc=False, replay=True)
    assert_as_exact_as(output, reference(features, points))


def build_and_run(
    trt: Any, model: bytes, buffers: Buffers, inputs: dict[str, np.ndarray], output: np.ndarray
) -> np.ndarray:
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse(model)
    layers = [network.get_layer(i).type for i in range(network.num_layers)]
    assert trt.LayerType.PLUGIN_V3 in layers
    built = builder.build_serialized_network(network, builder.create_builder_config())
    engine = trt.Runtime(logger).deserialize_cuda_engine(built)
    context = engine.create_execution_context()
    for name, array in inputs.items():
        context.set_tensor_address(name, buffers.upload(array))
    address = buffers.upload(output)
    context.set_tensor_address("output", address)
    assert context.execute_async_v3(buffers.stream)
    return buffers.download(address, output)


def convolved(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[B, 3, h, w] through a 3x3 convolution with one pixel of zero padding, in float64."""
    padded = np.pad(image.astype(np.float64), [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, weights.astype(np.float64))


@pytest.mark.parametrize("half", [False, True])
def test_an_engine_with_the_plugin_equals_the_definition(
    buffers: Buffers, tmp_path: Path, half: bool
) -> None:
    """Whichever plugin `find_plugin` finds; set $GLNET_PLUGIN_LIBRARY to test a compiled one."""
    trt = pytest.importorskip("tensorrt", reason="TensorRT is not installed")
    load_plugin(trt)
    dtype = np.float16 if half else np.float32
    image, points = random_features((2, 3, 16, 32), dtype), odd_points(2, 29, (16, 32))
    model = write_model(tmp_path / "model.onnx", half, body=False)
    inputs = {"image": image, "points": points}
    output = np.zeros((2, 64, 29), dtype)
    result = build_and_run(trt, model.read_bytes(), buffers, inputs, output)
    weights = np.random.default_rng(0).normal(size=(64, 3, 3, 3)).astype(dtype)
    expected = reference(convolved(image, weights), points).transpose(0, 2, 1)
    # TensorRT rounds the convolution, of values up to 16, to TF32 or binary16 before the gather.
    np.testing.assert_allclose(result, expected, atol=0.05)


def test_nothing_to_do_launches_nothing(buffers: Buffers) -> None:
    for shape in (GatherShape(1, 8, 4, 4, 0), GatherShape(0, 8, 4, 4, 3)):
        launch(launch_of(shape, False, False), shape, (0, 0, 0), buffers.stream)
