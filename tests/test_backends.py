"""Backends keep their promise, or are refused with a reason before anything relies on them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from glnet_rt import backends
from glnet_rt.artifact import Artifact
from glnet_rt.backends.base import Backend, check_shape, run
from glnet_rt.backends.onnxruntime_ import (
    OnnxRuntimeBackend,
    OnnxRuntimeCudaBackend,
    OnnxRuntimeTensorRTBackend,
)
from glnet_rt.contracts import Array
from glnet_rt.errors import (
    ArtifactError,
    BackendError,
    ContractError,
    GlnetError,
    MissingDependencyError,
)
from tests import tiny

Check = Callable[[GlnetError], None]


@pytest.fixture
def session(tiny_artifact: Artifact) -> Any:
    with OnnxRuntimeBackend.open(tiny_artifact, "fp32", threads=1) as opened:
        yield opened


def batch_of(artifact: Artifact, count: int, seed: int = 0) -> Array:
    """[count, S, S, 3] uint8 noise."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *artifact.spec.crop_shape), np.uint8)


def with_model(tmp_path: Path, change: Callable[[onnx.GraphProto], object]) -> Artifact:
    """An artifact whose model was changed after its manifest's spec was written."""
    graph = tiny.model(tiny.spec_for(tiny.body_bytes()))
    change(graph.graph)
    return Artifact.open(tiny.write(tmp_path / "changed.glnet", graph=graph))


# -- ONNX Runtime ---------------------------------------------------------------------------------


@pytest.mark.parametrize("representation", ["decomposed", "direct"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_onnxruntime_computes_what_the_graph_means(
    tmp_path: Path, representation: str, count: int
) -> None:
    artifact = Artifact.open(tiny.write(tmp_path / "a.glnet", representation=representation))
    batch = batch_of(artifact, count)
    wanted = tiny.run_reference(tiny.model(artifact.spec), batch, artifact.spec)
    with OnnxRuntimeBackend.open(artifact, "fp32", threads=1) as session:
        output = run(session, batch, artifact.spec)
    assert len(output.score) == count
    for name in artifact.spec.output_shapes:
        np.testing.assert_allclose(
            getattr(output, name), getattr(wanted, name), rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_every_crop_is_answered_by_itself(tiny_artifact: Artifact, session: Backend) -> None:
    batch = batch_of(tiny_artifact, 4)
    together = run(session, batch, tiny_artifact.spec)
    for i in range(4):
        alone = run(session, batch[i : i + 1], tiny_artifact.spec)
        np.testing.assert_allclose(alone.betas[0], together.betas[i], rtol=1e-5, atol=1e-6)


def test_the_next_inference_leaves_the_last_alone(
    tiny_artifact: Artifact, session: Backend
) -> None:
    first = run(session, batch_of(tiny_artifact, 1, seed=1), tiny_artifact.spec)
    kept = first.keypoints_uvd.copy()
    run(session, batch_of(tiny_artifact, 1, seed=2), tiny_artifact.spec)
    np.testing.assert_array_equal(first.keypoints_uvd, kept)


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_threads_do_not_change_the_answer(tiny_artifact: Artifact, threads: int | None) -> None:
    batch = batch_of(tiny_artifact, 2)
    wanted = tiny.run_reference(tiny.model(tiny_artifact.spec), batch, tiny_artifact.spec)
    session, _ = backends.select(tiny_artifact, threads=threads)
    with session:
        betas = run(session, batch, tiny_artifact.spec).betas
    np.testing.assert_allclose(betas, wanted.betas, rtol=1e-4, atol=1e-5)


def test_a_closed_session_says_so(tiny_artifact: Artifact, assert_helpful: Check) -> None:
    session = OnnxRuntimeBackend.open(tiny_artifact, "fp32")
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed") as caught:
        session.infer(batch_of(tiny_artifact, 1))
    assert_helpful(caught.value)


def test_batches_of_another_shape_are_refused(tiny_artifact: Artifact, session: Backend) -> None:
    spec, good = tiny_artifact.spec, batch_of(tiny_artifact, 1)
    for batch in (good[0], good[..., :2], good[:, :, 1:], good.astype(np.float32), good[:0]):
        with pytest.raises(ContractError, match="batch"):
            run(session, batch, spec)
    with pytest.raises(BackendError, match="failed while running"):
        session.infer(good[:, :, 1:])


def test_a_model_that_is_none_is_refused(
    tmp_path: Path, assert_helpful: Check, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its digest is right, so the exporter wrote it so."""
    good = tiny.model(tiny.spec_for(tiny.body_bytes())).SerializeToString()

    class Raw:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def SerializeToString(self) -> bytes:
            return self.data

    for data in (b"", b"no model", good[: len(good) // 2]):
        artifact = Artifact.open(tiny.write(tmp_path / "a.glnet", graph=Raw(data)))
        for name in ("auto", "onnxruntime"):
            with pytest.raises(BackendError) as caught:
                backends.select(artifact, name)
            assert_helpful(caught.value)
            assert "onnxruntime" in str(caught.value).lower()
    assert capfd.readouterr().err == ""  # what is raised is not printed as well


def other_output(name: str, dims: list[Any], dtype: int = TensorProto.FLOAT) -> Any:
    def change(graph: onnx.GraphProto) -> None:
        index = next(i for i, node in enumerate(graph.output) if node.name == name)
        graph.output[index].CopyFrom(helper.make_tensor_value_info(name, dtype, dims))

    return change


def fix_batch(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def rename_input(graph: onnx.GraphProto) -> None:
    graph.input[0].name = "picture"
    graph.node[0].input[0] = "picture"


def smaller_input(graph: onnx.GraphProto) -> None:
    for axis in (2, 3):
        graph.input[0].type.tensor_type.shape.dim[axis].dim_value = tiny.SIZE // 2
    for attribute in graph.node[0].attribute:  # the pooling's kernel and stride
        attribute.ints[:] = [n // 2 for n in attribute.ints]


def drop_output(graph: onnx.GraphProto) -> None:
    graph.output.remove(next(node for node in graph.output if node.name == "betas"))


def extra_output(graph: onnx.GraphProto) -> None:
    graph.output.append(helper.make_tensor_value_info("code", TensorProto.FLOAT, ["batch", None]))


def pixel_as_float(graph: onnx.GraphProto) -> None:
    node = next(node for node in graph.node if node.output[0] == "pixel")
    node.output[0] = "pixel.int"
    graph.node.append(helper.make_node("Cast", ["pixel.int"], ["pixel"], to=TensorProto.FLOAT))
    other_output("pixel", ["batch"])(graph)


MISMATCHES: dict[str, tuple[Callable[[onnx.GraphProto], object], str]] = {
    "fixed batch": (fix_batch, "input image has another shape"),
    "other input size": (smaller_input, "input image has another shape"),
    "other input name": (rename_input, "other inputs"),
    "output missing": (drop_output, "other outputs"),
    "output too many": (extra_output, "other outputs"),
    "other output type": (pixel_as_float, "output pixel has another type"),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_a_model_that_contradicts_the_manifest_is_refused(
    tmp_path: Path, name: str, assert_helpful: Check
) -> None:
    change, message = MISMATCHES[name]
    with pytest.raises(ArtifactError, match=message) as caught:
        OnnxRuntimeBackend.open(with_model(tmp_path, change), "fp32")
    assert_helpful(caught.value)


def test_a_shape_found_out_only_by_running_is_refused(
    tmp_path: Path, assert_helpful: Check
) -> None:
    """What Compress keeps is unknown until it runs, so only the test session can tell."""

    def change(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if node.output[0] == "betas")
        node.output[0] = "ten"
        keep = numpy_helper.from_array(np.arange(10) < 9, "keep")
        graph.initializer.append(keep)
        graph.node.append(helper.make_node("Compress", ["ten", "keep"], ["betas"], axis=1))
        other_output("betas", ["batch", "n"])(graph)

    with pytest.raises(BackendError, match="broke the network's contract") as caught:
        backends.select(with_model(tmp_path, change), "onnxruntime")
    assert_helpful(caught.value)
    assert "[1, 9]" in str(caught.value)


def test_a_network_that_returns_nan_is_refused(tmp_path: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if node.output[0] == "betas")
        node.op_type = "Sqrt"  # of negative numbers

    with pytest.raises(BackendError, match="NaN or infinity"):
        backends.select(with_model(tmp_path, change), "onnxruntime")


class _Session:
    """An ONNX Runtime session as a provider leaves it."""

    def __init__(self, providers: list[str], nodes: list[str] | None) -> None:
        self.get_providers = lambda: providers
        if nodes is not None:
            parts = [SimpleNamespace(ep_name=name) for name in nodes]
            self.get_provider_graph_assignment_info = lambda: parts


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize("kind", [OnnxRuntimeCudaBackend, OnnxRuntimeTensorRTBackend])
def test_a_provider_that_is_not_there_is_told(
    tiny_artifact: Artifact, kind: type[OnnxRuntimeBackend], assert_helpful: Check
) -> None:
    if kind.provider in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has it")
    with pytest.raises(MissingDependencyError, match="onnxruntime-gpu") as caught:
        backends.select(tiny_artifact, kind.name)
    assert_helpful(caught.value)


@pytest.mark.parametrize(
    ("providers", "nodes", "took"),
    [
        ([CUDA, CPU], None, True),
        ([CUDA, CPU], [CPU, CUDA], True),
        ([CPU], None, False),
        ([CUDA, CPU], [CPU, CPU], False),
    ],
)
def test_a_provider_must_really_take_the_session(
    tiny_artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    providers: list[str],
    nodes: list[str] | None,
    took: bool,
    assert_helpful: Check,
) -> None:
    """ONNX Runtime falls back to the CPU with no more than a warning."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    real = onnxruntime.InferenceSession

    def open_session(model: bytes, options: Any, providers: Any) -> Any:
        assert providers[0][0] == CUDA
        opened = real(model, options, providers=[CPU])
        fake = _Session(given, nodes)
        for name in ("get_inputs", "get_outputs", "run"):
            setattr(fake, name, getattr(opened, name))
        return fake

    given = providers
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    if took:
        session, attempts = backends.select(tiny_artifact, "onnxruntime-cuda")
        session.close()
        assert attempts[-1].chosen
    else:
        with pytest.raises(BackendError, match="did not give the model to CUDA") as caught:
            backends.select(tiny_artifact, "onnxruntime-cuda")
        assert_helpful(caught.value)


def test_this_onnxruntime_tells_who_took_the_nodes(tiny_artifact: Artifact) -> None:
    with OnnxRuntimeBackend.open(tiny_artifact, "fp32") as session:
        tell = getattr(session._session, "get_provider_graph_assignment_info", None)
        if tell is None:
            pytest.skip("it is too old to tell")
        assert {part.ep_name for part in tell()} == {CPU}


def test_auto_never_takes_what_must_be_named(tiny_artifact: Artifact) -> None:
    session, attempts = backends.select(tiny_artifact)
    session.close()
    named = {"onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt-rtx"}
    assert not named & {attempt.backend for attempt in attempts}


# -- choosing -------------------------------------------------------------------------------------


class _Adapter:
    """A backend with a fault of its own around a working session, to test the choosing."""

    name: ClassVar[str] = "adapter"
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    opened: ClassVar[list[_Adapter]] = []

    def __init__(self, inner: OnnxRuntimeBackend) -> None:
        self.inner, self.closed = inner, False
        type(self).opened.append(self)

    @property
    def precision(self) -> str:
        return self.inner.precision

    @classmethod
    def open(cls, artifact: Artifact, precision: str, *, threads: int | None) -> _Adapter:
        return cls(OnnxRuntimeBackend.open(artifact, precision, threads=threads))

    def infer(self, crops: Array) -> Mapping[str, Array]:
        return self.inner.infer(crops)

    def close(self) -> None:
        self.closed = True
        self.inner.close()

    def __enter__(self) -> _Adapter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _OpensOnly(_Adapter):
    """Lists its device and opens a session; running it fails."""

    name = "opens_only"
    opened: ClassVar[list[_Adapter]] = []

    def infer(self, crops: Array) -> Mapping[str, Array]:
        raise BackendError("the device is lost", got="code 7", expected="0", fix="restart it")


class _DropsACrop(_Adapter):
    """Answers for one crop too few."""

    name = "drops"

    def infer(self, crops: Array) -> Mapping[str, Array]:
        return {name: array[1:] for name, array in self.inner.infer(crops).items()}


class _NotInstalled(_Adapter):
    name = "not_installed"
    precisions = ("int8", "fp32")

    @classmethod
    def open(cls, artifact: Artifact, precision: str, *, threads: int | None) -> _Adapter:
        raise MissingDependencyError(
            "it needs a library", got="no library", expected="a library", fix="pip install library"
        )


class _OtherPrecision(_Adapter):
    """Would work, but on another model than the artifact holds."""

    name = "other_precision"
    precisions = ("int8", "fp16")


def test_auto_takes_the_first_that_really_runs(tiny_artifact: Artifact) -> None:
    kinds = (_OtherPrecision, _NotInstalled, _OpensOnly, OnnxRuntimeBackend, _Adapter)
    session, attempts = backends.select(tiny_artifact, backends=kinds)
    with session:
        assert session.name == "onnxruntime"
    told = [(a.backend, a.precision, a.chosen, a.fix) for a in attempts]
    assert told == [
        ("other_precision", "int8", False, attempts[0].fix),
        ("not_installed", "fp32", False, "pip install library"),
        ("opens_only", "fp32", False, "restart it"),
        ("onnxruntime", "fp32", True, None),
        ("adapter", "fp32", False, None),
    ]  # fmt: skip
    assert attempts[0].reason == "the artifact holds no int8 model, got int8"
    assert "the device is lost, got code 7" in attempts[2].reason
    assert "comes first" in attempts[4].reason
    assert _OpensOnly.opened[-1].closed, "a rejected session must be closed"
    assert str(attempts[3]).startswith("chosen onnxruntime fp32: its test session ran in")
    assert str(attempts[1]).startswith("rejected not_installed fp32: it needs a library")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("not_installed", MissingDependencyError), ("opens_only", BackendError)],
)
def test_a_named_backend_never_falls_back(
    tiny_artifact: Artifact, name: str, kind: type[GlnetError], assert_helpful: Check
) -> None:
    kinds = (OnnxRuntimeBackend, _NotInstalled, _OpensOnly)
    with pytest.raises(kind) as caught:
        backends.select(tiny_artifact, name, backends=kinds)
    assert_helpful(caught.value)


def test_naming_one_leaves_the_others_out(tiny_artifact: Artifact) -> None:
    kinds = (_Adapter, OnnxRuntimeBackend)
    session, attempts = backends.select(tiny_artifact, "onnxruntime", backends=kinds)
    with session:
        assert session.name == "onnxruntime"
    assert [a.chosen for a in attempts] == [False, True]
    assert attempts[0].reason == "onnxruntime was asked for by name"


def test_when_nothing_works_every_reason_is_told(
    tiny_artifact: Artifact, assert_helpful: Check
) -> None:
    with pytest.raises(BackendError, match="no backend can run") as caught:
        backends.select(tiny_artifact, backends=(_NotInstalled, _OpensOnly))
    assert_helpful(caught.value)
    for words in ("it needs a library", "the device is lost", "pip install library"):
        assert words in str(caught.value)


def test_a_backend_that_loses_a_crop_is_refused(tiny_artifact: Artifact) -> None:
    with pytest.raises(BackendError, match="broke the network's contract"):
        backends.select(tiny_artifact, "drops", backends=(_DropsACrop,))
    inner = _DropsACrop.open(tiny_artifact, "fp32", threads=1)
    with inner, pytest.raises(BackendError, match=r"wrong shape(.|\n)*got: \[2\]"):
        run(inner, batch_of(tiny_artifact, 3), tiny_artifact.spec)


def test_a_precision_that_is_not_there_is_told(
    tmp_path: Path, tiny_artifact: Artifact, assert_helpful: Check
) -> None:
    with pytest.raises(BackendError, match="onnxruntime does not run fp8") as caught:
        backends.select(tiny_artifact, "onnxruntime", "fp8")
    assert_helpful(caught.value)
    with pytest.raises(BackendError, match="the artifact holds no int8 model") as caught:
        backends.select(tiny_artifact, "not_installed", "int8", backends=(_NotInstalled,))
    assert_helpful(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"backend": "tensorflow"},
        {"backend": "ONNXRuntime"},
        {"precision": "fp64"},
        {"threads": 0},
        {"threads": 2.5},
        {"threads": True},
    ],
)
def test_requests_that_make_no_sense_are_refused(
    tiny_artifact: Artifact, arguments: dict[str, Any], assert_helpful: Check
) -> None:
    with pytest.raises(ContractError) as caught:
        backends.select(tiny_artifact, **arguments)
    assert_helpful(caught.value)


def test_onnxruntime_missing_gives_the_pip_command(tiny_path: Path) -> None:
    """In a process of its own, where importing onnxruntime fails."""
    code = f"""
import sys
sys.modules["onnxruntime"] = sys.modules["openvino"] = None
from glnet_rt import MissingDependencyError, BackendError, backends
from glnet_rt.artifact import Artifact
artifact = Artifact.open({str(tiny_path)!r})
for name, kind in (("onnxruntime", MissingDependencyError), ("auto", BackendError)):
    try:
        backends.select(artifact, name)
    except kind as error:
        assert error.fix == "pip install onnxruntime", error.fix
        assert error.got and error.expected
    else:
        raise SystemExit("nothing raised")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize(
    ("shape", "fits"),
    [
        ((None, 24, 3), True),
        ((None, None, 3), True),
        ((1, 24, 3), False),
        ((None, 24), False),
        ((None, 24, 4), False),
        ((24, 3), False),
        ((), False),
    ],
)
def test_stated_shapes(shape: tuple[int | None, ...], fits: bool, assert_helpful: Check) -> None:
    if fits:
        check_shape("output", shape, (24, 3))
        return
    with pytest.raises(ArtifactError, match=r"expected: \[\*, 24, 3\]") as caught:
        check_shape("output", shape, (24, 3))
    assert_helpful(caught.value)


def test_every_listed_backend_has_a_name_of_its_own() -> None:
    names = [kind.name for kind in backends.BACKENDS]
    assert len(set(names)) == len(names)
    assert "auto" not in names
    assert replace(backends.Attempt("a", "fp32", True, "r"), chosen=False).chosen is False
