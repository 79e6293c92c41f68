"""The compiled convolutions against plain NumPy in float64."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from glnet_rt.backends import jit_
from glnet_rt.backends.jit import _code, plan, weights
from glnet_rt.backends.jit.graph import (
    LEVELS,
    Convolution,
    Sum,
    Term,
    Trunk,
    integer_weights,
    read_trunk,
)
from glnet_rt.backends.jit.kernels import PIXELS, Field
from glnet_rt.backends.jit.plan import Lane, Plan
from glnet_rt.backends.jit.program import Operation
from glnet_rt.contracts import Array
from glnet_rt.crop import normalise
from glnet_rt.spec import NetSpec

openvino = pytest.importorskip("openvino")
ops = pytest.importorskip("openvino.opset13")
LEVEL = _code.LEVEL
HAS = {kind: not _code.missing(kind) for kind in ("f32", LEVEL, "bf16")}
pytestmark = pytest.mark.skipif(not HAS["f32"], reason="this CPU has no AVX2")
KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(not HAS[kind], reason=f"this CPU has no {kind}"))
    for kind in ("f32", "bf16")
]
# Of the largest output: Winograd in float32, and maps rounded to the eight bits of bfloat16.
ERROR = {"f32": 5e-6, "bf16": 1e-2}


# -- trunks, and what they mean -------------------------------------------------------------------


def spec_of(size: int) -> NetSpec:
    return dataclasses.replace(NetSpec(), input_size=size)


def convolution(
    name: str, source: str, shape: tuple[int, ...], *, stride: int = 1, seed: int = 0,
    top: float = 0.0,
) -> Convolution:  # fmt: skip
    """Random weights, [O, C, k, k], such that outputs are about as large as inputs."""
    rng = np.random.default_rng(seed)
    size = 1.4 / np.sqrt(np.prod(shape[1:]))
    bias = rng.normal(scale=0.1, size=shape[0]).astype(np.float32)
    values = rng.normal(scale=size, size=shape).astype(np.float32)
    if not top:
        return Convolution(name, source, values, None, 0.0, bias, stride)
    integers = rng.integers(-127, 128, shape).astype(np.int8)
    scale = rng.uniform(0.5, 1.5, shape[0]).astype(np.float32) * np.float32(size / 74)
    return Convolution(name, source, integers, scale, top, bias, stride)


def kept(
    name: str, shape: tuple[int, int, int], parts: Sequence[Convolution | Term], **changes: Any
) -> Sum:
    """A sum that is read as floats, and as bytes where it has a top."""
    convolutions = tuple(p for p in parts if isinstance(p, Convolution))
    terms = tuple(p for p in parts if isinstance(p, Term))
    given: dict[str, Any] = {"relu": True, "floats": True, "top": 0.0} | changes
    return Sum(name, shape, convolutions, terms, **given)


def meant(trunk: Trunk, crop: Array, spec: NetSpec) -> dict[str, Array]:
    """Name -> [H, W, C] float64, as the graph's words are meant."""
    image = normalise(crop[None], spec)[0].transpose(1, 2, 0)
    values: dict[str, Array] = {trunk.image: image.astype(np.float64)}
    for sum_ in trunk.sums:
        total = np.zeros(sum_.shape)
        for part in sum_.convolutions:
            total += convolved(rounded(values[part.source], part.top), part)
        for term in sum_.terms:
            value = rounded(values[term.source], term.top)
            total += value.repeat(1 << term.shift, 0).repeat(1 << term.shift, 1)
        values[sum_.name] = np.maximum(total, 0) if sum_.relu else total
    return values


def rounded(values: Array, top: float) -> Array:
    """To the levels of a byte, where it has a top."""
    if not top:
        return values
    level = np.float32(top / (LEVELS - 1))
    return level * np.clip(np.rint(values / level), 0, LEVELS - 1)


def convolved(values: Array, part: Convolution) -> Array:
    kernel = part.weights.astype(np.float64)
    if part.scale is not None:
        kernel = kernel * part.scale[:, None, None, None]
    side = kernel.shape[2]
    padded = np.pad(values, ((side // 2,) * 2, (side // 2,) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (0, 1))
    windows = windows[:: part.stride, :: part.stride]
    return np.einsum("hwcij,ocij->hwo", windows, kernel, optimize=True) + part.bias


def found(trunk: Trunk, crop: Array, spec: NetSpec, floats: str) -> tuple[dict[str, Array], Plan]:
    """Name -> output of the kernels, float32; run twice, since the first run's halos are fresh."""
    planned = Plan(trunk, spec, floats)
    lane = Lane(planned)
    lane.run(255 - crop)
    lane.run(crop)
    return {
        name: (value.astype(np.uint32) << 16).view(np.float32) if floats == "bf16" else value
        for name, value in lane.outputs.items()
    }, planned


def noise(spec: NetSpec, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, spec.crop_shape, np.uint8)


def assert_means(trunk: Trunk, spec: NetSpec, floats: str, error: float | None = None) -> Plan:
    crop = noise(spec)
    outputs, planned = found(trunk, crop, spec, floats)
    wanted = meant(trunk, crop, spec)
    assert set(outputs) == set(trunk.outputs)
    for name, value in outputs.items():
        most = np.abs(wanted[name]).max()
        np.testing.assert_allclose(
            value, wanted[name], rtol=0, atol=(error or ERROR[floats]) * most, err_msg=name
        )
    return planned


def codes(planned: Plan) -> list[int]:
    return [int(code) for code in planned.operations([0] * 99, 0)[:, Field.CODE]]


# -- floats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("floats", KINDS)
@pytest.mark.parametrize("channels", [16, 32, 48, 80])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (1, 2)])
@pytest.mark.parametrize("size", [16, 24, 96])
def test_convolutions(floats: str, channels: int, kernel: int, stride: int, size: int) -> None:
    """Of the picture, and of what comes of it; down to maps with less than two tiles' pixels."""
    small, smaller = size // 2, size // 2 // stride
    trunk = Trunk(
        "image",
        (
            kept("a", (small, small, 32), [convolution("1", "image", (32, 3, 3, 3), stride=2)]),
            kept("b", (smaller, smaller, channels),
                 [convolution("2", "a", (channels, 32, kernel, kernel), stride=stride, seed=1)],
                 relu=False),
        ),
        ("a", "b"),
    )  # fmt: skip
    assert_means(trunk, spec_of(size), floats)


@pytest.mark.parametrize("floats", KINDS)
@pytest.mark.parametrize(
    ("size", "pays"),
    [(64, True), (48, True), (24, True), (16, PIXELS <= 4), (20, False)],
)
def test_winograd_where_it_pays(floats: str, size: int, pays: bool) -> None:
    """12 x 12 pixels are 9 tiles of 4 x 4; 8 x 8 are 4, too few for AVX-512's 8 at a time, and
    10 x 10 are no whole tiles."""
    small = size // 2
    trunk = Trunk(
        "image",
        (
            kept("a", (small, small, 48), [convolution("1", "image", (48, 3, 3, 3), stride=2)]),
            kept("b", (small, small, 48), [convolution("2", "a", (48, 48, 3, 3), seed=1)]),
            kept("c", (small, small, 48),
                 [convolution("3", "b", (48, 48, 3, 3), seed=2), Term("a", 0, 0.0)]),
        ),
        ("a", "b", "c"),
    )  # fmt: skip
    planned = assert_means(trunk, spec_of(size), floats)
    by_winograd = {Operation.WINOGRAD_F32, Operation.WINOGRAD_BF16}
    assert len([code for code in codes(planned) if code in by_winograd]) == (2 if pays else 0)


# B and A of Lavin and Gray.
BT = np.array([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
               [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]])  # fmt: skip
AT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0],
               [0, 1, -1, 8, -8, 1]])  # fmt: skip


def assert_convolves(at_points: Array, tile: Array, kernel: Array, scales: Array) -> None:
    """A^T [(G g G^T) * (B^T d B)] A is the convolution; [6, 6, O] weights at the points."""
    products = at_points * (BT @ tile @ BT.T)[:, :, None]
    ours = np.einsum("ia,abo,jb->ijo", AT * scales, products, AT * scales)
    windows = np.lib.stride_tricks.sliding_window_view(tile, (3, 3))
    np.testing.assert_allclose(ours, np.einsum("ijab,oab->ijo", windows, kernel), atol=1e-5)


def test_winograds_weights_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    kernel, tile = rng.normal(size=(16, 1, 3, 3)), rng.normal(size=(6, 6))
    at_points = weights.winograd(kernel).reshape(6, 6, 16)
    assert_convolves(at_points, tile, kernel[:, 0], np.ones(6))


def test_winograds_integers_are_those_of_the_definition() -> None:
    """G times its denominators, which come off again on the way back."""
    rng = np.random.default_rng(0)
    kernel = rng.integers(-127, 128, (16, 2, 3, 3)).astype(np.int8)
    tile = rng.integers(0, 256, (6, 6))
    packed = weights.whole_winograd(kernel)
    assert packed is not None
    assert packed.dtype == np.int16
    scales = 1 / np.array([4, 6, 6, 24, 24, 1])
    for channel in range(2):
        at_points = packed.reshape(6, 6, 16, 2)[..., channel]
        assert_convolves(at_points, tile, kernel[:, channel], scales)


def test_integer_sums_that_might_not_fit_are_not_winograds() -> None:
    """128 channels of the largest weights come to 3.7e9 at a point."""
    kernel = np.full((16, 128, 3, 3), 127, np.int8)
    assert weights.whole_winograd(kernel) is None
    assert weights.whole_winograd(kernel[:, :64]) is not None


@pytest.mark.parametrize("floats", KINDS)
def test_sums_of_maps_of_several_sizes(floats: str) -> None:
    """As HRNet fuses its branches: convolutions, the same map, and coarser ones."""
    sums = [
        kept("a", (16, 16, 32), [convolution("1", "image", (32, 3, 3, 3), stride=2)]),
        kept("b", (8, 8, 32), [convolution("2", "a", (32, 32, 3, 3), stride=2, seed=1)]),
        kept("c", (4, 4, 32), [convolution("3", "b", (32, 32, 3, 3), stride=2, seed=2)]),
        kept("fine", (16, 16, 32), [Term("a", 0, 0.0), Term("b", 1, 0.0), Term("c", 2, 0.0)]),
        kept("middle", (8, 8, 32),
             [convolution("4", "a", (32, 32, 3, 3), stride=2, seed=3),
              convolution("5", "b", (32, 32, 1, 1), seed=4), Term("b", 0, 0.0), Term("c", 1, 0.0)]),
        kept("coarse", (4, 4, 32),
             [convolution("6", "b", (32, 32, 3, 3), stride=2, seed=5), Term("c", 0, 0.0)]),
        kept("many", (16, 16, 32), [Term("a", 0, 0.0), Term("b", 1, 0.0)] * 5, relu=False),
    ]  # fmt: skip
    outputs = ("fine", "middle", "coarse", "many")
    assert_means(Trunk("image", tuple(sums), outputs), spec_of(32), floats)


def test_bfloat16_is_to_nearest_even() -> None:
    bits = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0xBF80FFFF], np.uint32)
    wanted = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0xBF81]
    np.testing.assert_array_equal(weights.bfloat16(bits.view(np.float32)), wanted)


# -- integers -------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS[LEVEL], reason="this CPU has no kernels of integers")
@pytest.mark.parametrize("channels", [16, 32, 48, 128])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_integers_are_exact(channels: int, kernel: int, stride: int) -> None:
    """A block of a residual network: sums of bytes times bytes lose nothing."""
    small, smaller = 16, 16 // stride
    trunk = Trunk(
        "image",
        (
            kept("a", (small, small, 64), [convolution("1", "image", (64, 3, 3, 3), stride=2)],
                 top=2.0, floats=False),
            kept("b", (smaller, smaller, channels),
                 [convolution("2", "a", (channels, 64, kernel, kernel), stride=stride, top=2.0,
                              seed=1)], top=1.5, floats=False),
            kept("c", (smaller, smaller, channels),
                 [convolution("3", "b", (channels, channels, 3, 3), top=1.5, seed=2),
                  Term("b", 0, 1.5)], top=3.0),
            kept("d", (smaller, smaller, channels), [Term("c", 0, 3.0), Term("b", 0, 1.5)]),
        ),
        ("c", "d"),
    )  # fmt: skip
    crop = noise(spec_of(32))
    outputs, planned = found(trunk, crop, spec_of(32), "f32")
    wanted = meant(trunk, crop, spec_of(32))
    by_winograd = LEVEL == "i16" and (kernel, stride) == (3, 1)
    wanted_code = Operation.WINOGRAD_I16 if by_winograd else Operation.DIRECT_LEVELS_F32
    assert wanted_code in codes(planned)
    for name, value in outputs.items():
        # One value in some thousand lies so near the middle of two levels that float32 decides.
        apart = np.abs(value - wanted[name])
        assert np.mean(apart > 1e-5) < 0.01, name
        assert apart.max() < 0.05, name


@pytest.mark.skipif(not HAS[LEVEL], reason="this CPU has no kernels of integers")
@pytest.mark.parametrize("channels", [16, 48, 64])
@pytest.mark.parametrize("small", [8, 10, 12, 20, 48])
def test_integers_of_maps_of_all_sizes(channels: int, small: int) -> None:
    """From the very levels that the kernels read: nothing hangs on how a half is rounded."""
    inputs, part = 32, convolution("2", "a", (channels, 32, 3, 3), top=2.0, seed=1)
    trunk = Trunk(
        "image",
        (
            kept("a", (small, small, inputs),
                 [convolution("1", "image", (inputs, 3, 3, 3), stride=2)], top=2.0),
            kept("b", (small, small, channels), [part], relu=False),
        ),
        ("a", "b"),
    )  # fmt: skip
    spec = spec_of(2 * small)
    outputs, _ = found(trunk, noise(spec), spec, "f32")
    levels = np.rint(outputs["a"] * np.float32(255 / 2.0)).clip(0, 255)
    wanted = convolved(levels * np.float64(np.float32(2.0 / 255)), part)
    np.testing.assert_allclose(outputs["b"], wanted, rtol=0, atol=5e-6 * np.abs(wanted).max())


@pytest.mark.skipif(not (HAS[LEVEL] and HAS["bf16"]), reason="this CPU has no integers or bf16")
def test_integers_with_bfloat16_between_them() -> None:
    trunk = Trunk(
        "image",
        (
            kept("a", (16, 16, 32), [convolution("1", "image", (32, 3, 3, 3), stride=2)], top=2.0),
            kept("b", (8, 8, 32), [convolution("2", "a", (32, 32, 3, 3), stride=2, top=2.0)]),
            kept("c", (16, 16, 32), [convolution("3", "a", (32, 32, 3, 3), top=2.0, seed=1),
                                     Term("a", 0, 0.0), Term("b", 1, 0.0)], top=3.0),
            kept("d", (16, 16, 32), [convolution("4", "c", (32, 32, 1, 1), top=3.0, seed=2)]),
        ),
        ("c", "d"),
    )  # fmt: skip
    planned = assert_means(trunk, spec_of(32), "bf16", error=0.02)
    assert Operation.DIRECT_LEVELS_BF16 in codes(planned)


# -- memory ---------------------------------------------------------------------------------------


def test_memory_is_used_again_and_halos_stay_zero() -> None:
    """Forty convolutions one after the other need two maps, and a third for what is added."""
    names = ["image", *(f"v{i}" for i in range(40))]
    sums = [kept("v0", (16, 16, 32), [convolution("0", "image", (32, 3, 3, 3), stride=2)])]
    for before, name in itertools.pairwise(names[1:]):
        part = convolution(name, before, (32, 32, 3, 3), seed=len(sums))
        sums.append(kept(name, (16, 16, 32), [part, Term(before, 0, 0.0)]))
    trunk = Trunk("image", tuple(sums), (names[-1],))
    planned = assert_means(trunk, spec_of(32), "f32", error=1e-4)
    of_one_form = [size for size in planned.slots if size == plan.Map((16, 16, 32), "f32").size]
    assert len(of_one_form) <= 3


# -- reading a model ------------------------------------------------------------------------------


class Graph:
    """A model in OpenVINO's operators, of convolutions with random weights."""

    def __init__(self, size: int) -> None:
        self.image = ops.parameter([1, 3, size, size], openvino.Type.f32)
        self._rng = np.random.default_rng(0)

    def convolution(self, source: Any, outputs: int, *, integers: bool = False, **told: Any) -> Any:
        """With a bias, and INT8 weights as an exported model has them."""
        shape = (outputs, source.output(0).get_shape()[1], 3, 3)
        size = np.float32(1.4 / np.sqrt(np.prod(shape[1:])))
        weights = ops.constant(self._rng.normal(scale=size, size=shape).astype(np.float32))
        if integers:
            levels = ops.constant(self._rng.integers(-127, 128, shape).astype(np.int8))
            scale = self._rng.uniform(0.5, 1.5, (outputs, 1, 1, 1)).astype(np.float32) * size / 74
            weights = ops.multiply(ops.convert(levels, openvino.Type.f32), ops.constant(scale))
        given = {"strides": [1, 1], "pads": [1, 1], "dilations": [1, 1]} | told
        node = ops.convolution(
            source, weights, given["strides"], given["pads"], given["pads"], given["dilations"]
        )
        bias = self._rng.normal(scale=0.1, size=(1, outputs, 1, 1)).astype(np.float32)
        return ops.add(node, ops.constant(bias))

    def model(self, *outputs: Any) -> Any:
        return openvino.Model([ops.result(output) for output in outputs], [self.image])


def to_bytes(node: Any, top: float, low: float = 0.0) -> Any:
    bounds = [np.float32(bound) for bound in (low, top)] * 2
    return ops.fake_quantize(node, *bounds, LEVELS)


def doubled(node: Any, mode: str = "nearest") -> Any:
    two = ops.constant(np.array([2.0, 2.0], np.float32))
    axes = ops.constant(np.array([2, 3], np.int64))
    return ops.interpolate(
        node, two, mode, "scales", coordinate_transformation_mode="asymmetric",
        nearest_mode="floor", axes=axes,
    )  # fmt: skip


def trunk_of(model: Any) -> Trunk:
    scales = integer_weights(model)
    jit_._fold_constants(model)
    return read_trunk(model, scales)


def two_branches(read: Callable[[Any, float], Any], *, integers: bool) -> Any:
    """A model of two branches of a residual network that are fused, as HRNet's are."""
    graph = Graph(64)
    stem = ops.relu(graph.convolution(graph.image, 32, strides=[2, 2]))
    fine = read(stem, 4.0)
    inner = read(ops.relu(graph.convolution(fine, 32, integers=integers)), 3.0)
    block = read(ops.relu(ops.add(graph.convolution(inner, 32, integers=integers), fine)), 5.0)
    half = graph.convolution(block, 48, integers=integers, strides=[2, 2])
    coarse = read(ops.relu(half), 3.0)
    told = doubled(graph.convolution(coarse, 32, integers=integers))
    fused = read(ops.relu(ops.add(block, told)), 6.0)
    last = graph.convolution(fused, 64, integers=integers)
    return graph.model(ops.abs(last), coarse)  # no kernel takes absolute values


def spelt_out(node: Any, top: float) -> Any:
    """What to_bytes means. Of this one OpenVINO makes no sums of bytes, which overflow there where
    the processor has no VNNI."""
    level = ops.constant(np.float32(top / (LEVELS - 1)))
    levels = ops.round(ops.divide(ops.clamp(node, 0.0, top), level), "half_to_even")
    return ops.multiply(levels, level)


@pytest.mark.skipif(not HAS[LEVEL], reason="this CPU has no kernels of integers")
@pytest.mark.parametrize("integers", [False, True])
def test_a_model_means_what_openvino_says(integers: bool) -> None:
    spec = spec_of(64)
    model = two_branches(to_bytes if integers else lambda node, _: node, integers=integers)
    same = two_branches(spelt_out, integers=True) if integers and LEVEL == "i16" else model
    crop = noise(spec)
    compiled = openvino.Core().compile_model(same, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    trunk = trunk_of(model)
    assert all((c.scale is not None) == integers for s in trunk.sums[1:] for c in s.convolutions)
    outputs, _ = found(trunk, crop, spec, "f32")
    ours = sorted(outputs.values(), key=lambda values: values.shape[2])  # of 48 and 64 channels
    theirs = compiled([normalise(crop[None], spec)])
    wide, narrow = (theirs[i][0].transpose(1, 2, 0) for i in (0, 1))
    assert [values.shape[2] for values in ours] == [48, 64]
    narrow_ours = rounded(ours[0].astype(np.float64), 3.0 if integers else 0.0)
    apart = [np.abs(narrow_ours - narrow), np.abs(np.abs(ours[1]) - wide)]
    for values in apart:  # where float32 decides between two levels, a level and what it brings
        assert np.mean(values > 1e-4) < (0.02 if integers else 1e-9)
        assert values.max() < (0.5 if integers else 1e-4)


def test_a_trunk_ends_where_the_kernels_do() -> None:
    graph = Graph(64)
    stem = ops.relu(graph.convolution(graph.image, 32, strides=[2, 2]))
    others = [
        graph.convolution(stem, 8),
        graph.convolution(stem, 32, dilations=[2, 2], pads=[2, 2]),
        graph.convolution(stem, 32, pads=[0, 0]),
        graph.convolution(stem, 32, strides=[2, 1]),
        graph.convolution(to_bytes(stem, 4.0, low=-4.0), 32, integers=True),
        doubled(stem, "linear_onnx"),
        ops.sigmoid(stem),
        ops.add(stem, ops.constant(np.ones((1, 32, 1, 1), np.float32))),
    ]
    trunk = trunk_of(graph.model(*others))
    assert [sum_.name for sum_ in trunk.sums] == [stem.get_friendly_name()]
    assert trunk.outputs == (stem.get_friendly_name(),)


@pytest.mark.skipif(not HAS[LEVEL], reason="this CPU has no kernels of integers")
def test_float_weights_behind_a_rounding_read_what_was_not_rounded() -> None:
    """As a layer that export has left in floats, beside one in integers; nothing is cut off."""
    graph, spec = Graph(64), spec_of(64)
    stem = ops.relu(graph.convolution(graph.image, 32, strides=[2, 2]))
    both = to_bytes(stem, 12.0)
    sums = ops.add(graph.convolution(both, 32), graph.convolution(both, 32, integers=True))
    model = graph.model(ops.abs(sums))
    exact = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    crop = noise(spec)
    theirs = exact([normalise(crop[None], spec)])[0][0].transpose(1, 2, 0)
    outputs, _ = found(trunk_of(model), crop, spec, "f32")
    (ours,) = outputs.values()
    assert np.abs(np.abs(ours) - theirs).max() < 0.05 * theirs.max()


def test_nothing_else_reads_the_picture() -> None:
    graph = Graph(64)
    read = [ops.relu(graph.image), doubled(graph.image), to_bytes(graph.image, 2.0)]
    trunk = trunk_of(graph.model(*read, ops.add(graph.image, graph.image)))
    assert trunk.sums == ()
