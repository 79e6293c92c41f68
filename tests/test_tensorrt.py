"""The TensorRT backend's own logic: what it refuses, whom it loads, and how batches are cut.

The device is one of host memory (tests/fake_device.py); the cache, the checks and the session are
those that run on a GPU.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from glnet_rt import backends
from glnet_rt.artifact import Artifact
from glnet_rt.backends import tensorrt_
from glnet_rt.backends.base import run
from glnet_rt.backends.cuda.host_session import HostSession, split
from glnet_rt.backends.device import find_gpu
from glnet_rt.backends.onnxruntime_ import OnnxRuntimeBackend
from glnet_rt.backends.tensorrt_ import TensorRTBackend, TensorRTRtxBackend, TensorRTStage
from glnet_rt.backends.trt import precision_of
from glnet_rt.engine_cache import BUCKETS
from glnet_rt.errors import (
    ArtifactError,
    BackendError,
    EngineError,
    GlnetError,
    MissingDependencyError,
)
from tests.fake_device import (
    ORIN,
    Bench,
    DataType,
    FakeBinding,
    FakeEngine,
    GraphlessBinding,
    engine_bytes,
    make_bench,
)

Check = Callable[[GlnetError], None]


@pytest.fixture
def bench(tiny_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return make_bench(tiny_artifact, tmp_path, monkeypatch, FakeBinding)


# -- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 16, 21])
def test_every_batch_size_gets_the_models_answers(bench: Bench, count: int) -> None:
    bench.build(*BUCKETS)
    batch = bench.batch(count)
    with TensorRTBackend.open(bench.artifact, "fp32") as session:
        output = run(session, batch, bench.artifact.spec)
    wanted = bench.reference(batch)
    for name in bench.artifact.spec.output_shapes:
        np.testing.assert_allclose(
            getattr(output, name), getattr(wanted, name), rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_without_graphs_the_answers_are_the_same(
    tiny_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(tiny_artifact, tmp_path, monkeypatch, GraphlessBinding)
    bench.build(1, 4)
    batch = bench.batch(3)
    with TensorRTBackend.open(bench.artifact, "fp32") as session:
        betas = session.infer(batch)["betas"]
        assert not any("capture" in line or line == "graph" for line in bench.binding.log)
    np.testing.assert_allclose(betas, bench.reference(batch).betas, rtol=1e-4, atol=1e-5)


def test_the_next_inference_leaves_the_last_alone(bench: Bench) -> None:
    bench.build(2)
    with TensorRTBackend.open(bench.artifact, "fp32") as session:
        first = session.infer(bench.batch(2, seed=1))["keypoints_uvd"]
        kept = first.copy()
        session.infer(bench.batch(2, seed=2))
    np.testing.assert_array_equal(first, kept)


def test_half_inputs_are_handed_over_as_half(bench: Bench) -> None:
    spec = bench.artifact.spec

    def half_input(engine: FakeEngine) -> None:
        engine.changes[spec.input_name] = (DataType.HALF, (-1, *spec.input_shape))

    bench.module.change = half_input
    bench.build(2)
    batch = bench.batch(2)
    with TensorRTBackend.open(bench.artifact, "fp32") as session:
        betas = session.infer(batch)["betas"]
    wanted = bench.reference(batch).betas
    np.testing.assert_allclose(betas, wanted, atol=5e-3)
    assert np.abs(betas - wanted).max() > 1e-6, "the network saw half precision"


@pytest.mark.parametrize(
    ("count", "buckets", "turns"),
    [
        (1, BUCKETS, [(1, 1)]),
        (3, BUCKETS, [(3, 4)]),
        (8, BUCKETS, [(8, 8)]),
        (16, BUCKETS, [(8, 8), (8, 8)]),
        (21, BUCKETS, [(8, 8), (8, 8), (5, 8)]),
        (5, (1,), [(1, 1)] * 5),
        (1, (4,), [(1, 4)]),
        (0, BUCKETS, []),
    ],
)
def test_batches_are_padded_up_and_cut(
    count: int, buckets: tuple[int, ...], turns: list[tuple[int, int]]
) -> None:
    assert list(split(count, buckets)) == turns


# -- the device -----------------------------------------------------------------------------------


def test_each_bucket_is_warmed_up_then_captured_once(bench: Bench) -> None:
    bench.build(1, 4)
    with TensorRTBackend.open(bench.artifact, "fp32") as session:
        log = bench.binding.log
        for batch in (1, 4):
            direct, captured = log.index(f"enqueue {batch}"), log.index(f"capture enqueue {batch}")
            assert "synchronize" in log[direct:captured], "the warm-up must be over"
            assert log.count(f"capture enqueue {batch}") == 1
        log.clear()
        session.infer(bench.batch(3))
        assert [line for line in log if line in ("graph", "enqueue 4", "synchronize")] == [
            "graph",
            "synchronize",
        ]


def test_everything_is_freed_in_order_and_once(bench: Bench) -> None:
    bench.build(1, 2)
    session = TensorRTBackend.open(bench.artifact, "fp32")
    binding = bench.binding
    binding.log.clear()
    session.close()
    session.close()
    assert binding.live == {}
    freed = [line.removeprefix("free ") for line in binding.log]
    order = ["executable", "pinned", "device", "stream", "close binding"]
    assert sorted(set(freed)) == sorted(order)
    assert freed.index("executable") < min(freed.index("pinned"), freed.index("device"))
    assert freed[-2:] == ["stream", "close binding"]
    with pytest.raises(BackendError, match="closed"):
        session.infer(bench.batch(1))


def test_one_thread_owns_the_device_whoever_calls(bench: Bench) -> None:
    bench.build(1)
    results = []
    with TensorRTBackend.open(bench.artifact, "fp32") as session:
        callers = [
            threading.Thread(target=lambda: results.append(session.infer(bench.batch(1))))
            for _ in range(4)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert len(results) == 4
    assert len(bench.binding.threads) == 1
    assert threading.get_ident() not in bench.binding.threads
    assert not any(t.name.startswith("glnet-device") for t in threading.enumerate())


def test_when_memory_runs_out_nothing_is_left(
    tiny_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(tiny_artifact, tmp_path, monkeypatch, FakeBinding, memory=20_000)
    bench.build(1, 8)
    with pytest.raises(BackendError, match="no memory left"):
        TensorRTBackend.open(bench.artifact, "fp32")
    assert bench.binding.live == {}
    assert bench.binding.log[-1] == "close binding"
    assert not any(t.name.startswith("glnet-device") for t in threading.enumerate())


def test_timing_leaves_nothing_behind(bench: Bench) -> None:
    bench.build(2)
    bench.trt.module.Runtime(bench.trt.log)
    binding = tensorrt_.open_binding()
    loaded = bench.trt.deserialize(engine_bytes(2), "x", "again")
    spec = bench.artifact.spec
    stage = TensorRTStage({2: loaded}, spec, bench.trt)
    with HostSession(binding, lambda _: stage, spec) as session:
        assert session.time_ms(2) == 2.5
    assert bench.binding.live == {}


# -- what is refused ------------------------------------------------------------------------------


def no_context(engine: FakeEngine) -> None:
    engine.no_context = True


def fails(engine: FakeEngine) -> None:
    engine.fails = True


def other_type(engine: FakeEngine) -> None:
    engine.changes["betas"] = (DataType.HALF, (-1, 10))


def other_shape(engine: FakeEngine) -> None:
    engine.changes["betas"] = (DataType.FLOAT, (-1, 9))


def other_batch(engine: FakeEngine) -> None:
    engine.changes["betas"] = (DataType.FLOAT, (7, 10))


def other_name(engine: FakeEngine) -> None:
    engine.names[-1] = "code"


FAULTS: dict[str, tuple[Callable[[FakeEngine], None], type[GlnetError], str]] = {
    "no context": (no_context, BackendError, "cannot make an execution context"),
    "enqueue fails": (fails, BackendError, "failed to enqueue"),
    "another type": (other_type, ArtifactError, r"betas is another(.|\n)*HALF"),
    "another shape": (other_shape, ArtifactError, r"betas is another(.|\n)*\[-1, 9\]"),
    "another batch": (other_batch, ArtifactError, r"betas is another(.|\n)*\[7, 10\]"),
    "another name": (other_name, ArtifactError, "other outputs"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_engine_with_a_fault_is_refused(bench: Bench, name: str, assert_helpful: Check) -> None:
    bench.module.change, kind, message = FAULTS[name]
    bench.build(1, 2)
    with pytest.raises(kind, match=message) as caught:
        TensorRTBackend.open(bench.artifact, "fp32")
    assert_helpful(caught.value)
    assert bench.binding.live == {}


def test_an_engine_that_tensorrt_refuses_says_what_it_said(
    bench: Bench, assert_helpful: Check
) -> None:
    bench.build(1, engine=lambda batch: b"no engine at all")
    with pytest.raises(EngineError, match=r"refuses the engine(.|\n)*magic tag") as caught:
        TensorRTBackend.open(bench.artifact, "fp32")
    assert_helpful(caught.value)
    assert "export.build_engine" in str(caught.value.fix)


def test_a_damaged_engine_never_reaches_tensorrt(bench: Bench) -> None:
    (path,) = bench.build(1)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(EngineError, match="was changed"):
        TensorRTBackend.open(bench.artifact, "fp32")
    assert bench.module.engines == []


def test_an_engine_for_another_gpu_never_reaches_tensorrt(bench: Bench) -> None:
    bench.build_one(1, engine_bytes(1), gpu=replace(ORIN, name="Thor", sm="sm110"))
    with pytest.raises(EngineError, match="sm: engine sm110, here sm87; gpu: engine Thor"):
        TensorRTBackend.open(bench.artifact, "fp32")
    assert bench.module.engines == []


def test_one_bucket_that_does_not_fit_is_told(bench: Bench) -> None:
    """Buckets that were never built are no fault; one that was built for something else is."""
    bench.build(1)
    bench.build_one(4, engine_bytes(4), gpu=replace(ORIN, cuda="11.4"))
    with pytest.raises(EngineError, match=r"b4.*\n.*cuda: engine 11\.4, here 12\.6"):
        TensorRTBackend.open(bench.artifact, "fp32")


def test_without_an_engine_the_command_that_builds_one_is_told(
    bench: Bench, assert_helpful: Check
) -> None:
    with pytest.raises(EngineError, match="no tensorrt engine of tiny in fp32 was built") as caught:
        TensorRTBackend.open(bench.artifact, "fp32")
    assert_helpful(caught.value)
    command = f"python -m export.build_engine {bench.artifact.path} --precision fp32"
    assert caught.value.fix == command


@pytest.mark.parametrize(
    ("kind", "module"), [(TensorRTBackend, "tensorrt"), (TensorRTRtxBackend, "tensorrt_rtx")]
)
def test_without_tensorrt_the_fix_is_a_command(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[TensorRTBackend],
    module: str,
    assert_helpful: Check,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]
    with pytest.raises(MissingDependencyError, match="pip install") as caught:
        kind.open(bench.artifact, "fp32")
    assert_helpful(caught.value)


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.2.0.post1"])
def test_an_old_tensorrt_is_refused(
    bench: Bench, version: str, monkeypatch: pytest.MonkeyPatch, assert_helpful: Check
) -> None:
    old = ModuleType("tensorrt")
    old.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(BackendError, match="too old") as caught:
        TensorRTBackend.open(bench.artifact, "fp32")
    assert_helpful(caught.value)


def test_without_a_gpu_the_driver_comes_first(
    tiny_artifact: Artifact, monkeypatch: pytest.MonkeyPatch, assert_helpful: Check
) -> None:
    """Whether or not TensorRT is installed, and without asking it anything."""
    monkeypatch.setattr("glnet_rt.backends.device._DRIVER", "libcuda.so.none")
    with pytest.raises(BackendError, match="no NVIDIA driver") as caught:
        find_gpu()
    assert_helpful(caught.value)
    session, attempts = backends.select(tiny_artifact)
    session.close()
    assert (attempts[0].backend, attempts[0].chosen) == ("tensorrt", False)
    assert "no NVIDIA driver" in attempts[0].reason
    assert "nvidia-smi" in str(attempts[0].fix)
    assert attempts[1].chosen
    with pytest.raises(BackendError, match="no NVIDIA driver"):
        backends.select(tiny_artifact, "tensorrt-rtx")


def test_auto_takes_tensorrt_where_its_engines_fit(bench: Bench) -> None:
    bench.build(1)
    session, attempts = backends.select(
        bench.artifact, backends=(TensorRTBackend, OnnxRuntimeBackend)
    )
    with session:
        assert session.name == "tensorrt"
    assert [(a.backend, a.chosen) for a in attempts[:2]] == [
        ("tensorrt", True),
        ("onnxruntime", False),
    ]


def test_auto_explains_an_engine_that_does_not_fit(bench: Bench) -> None:
    bench.build_one(1, engine_bytes(1), gpu=replace(ORIN, name="Thor"))
    session, attempts = backends.select(
        bench.artifact, backends=(TensorRTBackend, OnnxRuntimeBackend)
    )
    with session:
        assert session.name == "onnxruntime"
    told = str(attempts[0])
    assert "gpu: engine Thor, here Orin" in told
    assert "fix: python -m export.build_engine" in told


# -- what TensorRT says of itself -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("Int8", "int8"),
        ("Row major linear FP16 format", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("Two wide channel vectorized row major FP32 format", "fp32"),
        ("BFloat16", "bf16"),
        ("FP8", "fp8"),
        ("Int64", "int"),
        ("Bool", "bool"),
        ("N/A due to dynamic shapes", "unknown"),
        ("FLOAT", "fp32"),
        ("HALF", "fp16"),
    ],
)
def test_precisions_are_read_off_what_versions_call_them(words: str, precision: str) -> None:
    assert precision_of(words) == precision


def test_layers_are_listed_with_what_they_really_read(bench: Bench) -> None:
    engine = FakeEngine(bench.artifact.read_model("fp32"), bench.artifact.spec, 1, FakeBinding)
    half = {"Format/Datatype": "Half"}
    engine.report = {
        "Layers": [
            {"Name": "conv", "LayerType": "CaskConvolution", "Inputs": [half], "Outputs": []},
            {"Name": "constant", "LayerType": "Constant", "Inputs": [], "Outputs": [half]},
            "a name alone",
        ]
    }
    assert bench.trt.layers(engine) == [
        {"name": "conv", "type": "CaskConvolution", "precision": "fp16"},
        {"name": "constant", "type": "Constant", "precision": "none"},
        {"name": "a name alone", "type": "unknown", "precision": "unknown"},
    ]
