"""OpenVINO against the graphs' meaning, its cache, and what it refuses."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.int8 import quantised
from glnet_rt import backends
from glnet_rt.artifact import Artifact
from glnet_rt.backends import openvino_, openvino_graph
from glnet_rt.backends.base import run
from glnet_rt.backends.openvino_ import OpenVinoBackend
from glnet_rt.contracts import Array
from glnet_rt.errors import ArtifactError, BackendError, GlnetError
from glnet_rt.probe import Probe
from glnet_rt.spec import GATHER_DOMAIN, GATHER_OP, NetSpec
from tests import tiny

openvino = pytest.importorskip("openvino")
Check = Callable[[GlnetError], None]
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("GLNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


@pytest.fixture
def session(tiny_artifact: Artifact) -> Iterator[OpenVinoBackend]:
    with OpenVinoBackend.open(tiny_artifact, "fp32", threads=2) as opened:
        yield opened


def crops_of(artifact: Artifact, count: int, seed: int = 0) -> Array:
    """[count, S, S, 3] uint8 noise."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *artifact.spec.crop_shape), np.uint8)


def assert_means(output: Any, crops: Array, artifact: Artifact) -> None:
    wanted = tiny.run_reference(tiny.model(artifact.spec), crops, artifact.spec)
    for name in artifact.spec.output_shapes:
        np.testing.assert_allclose(
            getattr(output, name), getattr(wanted, name), rtol=1e-4, atol=1e-5, err_msg=name
        )


# -- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("representation", ["decomposed", "direct"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_it_computes_what_the_graph_means(
    tmp_path: Path, representation: str, threads: int
) -> None:
    """One person, fewer and more of them than streams, and one again."""
    artifact = Artifact.open(tiny.write(tmp_path / "a.glnet", representation=representation))
    with OpenVinoBackend.open(artifact, "fp32", threads=threads) as opened:
        for count in (1, 2, 3, 7, 1):
            crops = crops_of(artifact, count, seed=count)
            assert_means(run(opened, crops, artifact.spec), crops, artifact)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_shipped_network_says_the_same_of_one_as_of_several(threads: int) -> None:
    shipped = Artifact.open()
    crops = Probe.read(shipped).crops_bgr[:7]
    with OpenVinoBackend.open(shipped, "packed", threads=threads) as opened:
        alone = [opened.infer(crops[i : i + 1]) for i in range(len(crops))]
        together = opened.infer(crops)
    for name, values in together.items():
        each = np.concatenate([one[name] for one in alone])
        np.testing.assert_allclose(values, each, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_no_opening_mixes_weights_up() -> None:
    """With the streams of one model in place of lanes it happened in one opening of ten."""
    shipped = Artifact.open()
    crops = Probe.read(shipped).crops_bgr[:2]
    for _ in range(60):
        with OpenVinoBackend.open(shipped, "packed", threads=2) as opened:
            alone = np.concatenate([opened.infer(crop[None])["camera_scale"] for crop in crops])
            together = opened.infer(crops)["camera_scale"]
        np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_the_next_inference_leaves_the_last_alone(
    tiny_artifact: Artifact, session: OpenVinoBackend
) -> None:
    for count in (1, 3):
        first = session.infer(crops_of(tiny_artifact, count, seed=1))["keypoints_uvd"]
        kept = first.copy()
        session.infer(crops_of(tiny_artifact, count, seed=2))
        np.testing.assert_array_equal(first, kept)


def test_after_a_failure_the_next_people_are_found(tiny_artifact: Artifact) -> None:
    class Failing:
        def start_async(self, inputs: object) -> None:
            raise RuntimeError("no memory")

    crops = crops_of(tiny_artifact, 3)
    with OpenVinoBackend.open(tiny_artifact, "fp32", threads=2) as opened:
        wanted = opened.infer(crops)["betas"]
        opened._lanes[1] = Failing()
        with pytest.raises(BackendError, match="failed while running"):
            opened.infer(crops)
        np.testing.assert_array_equal(opened.infer(crops)["betas"], wanted)


def test_threads_may_share_a_session(tiny_artifact: Artifact, session: OpenVinoBackend) -> None:
    batches = [crops_of(tiny_artifact, 1 + i % 3, seed=i) for i in range(12)]
    wanted = [session.infer(batch)["betas"] for batch in batches]
    found: dict[int, Array] = {}

    def work(first: int) -> None:
        for i in range(first, len(batches), 4):
            found[i] = session.infer(batches[i])["betas"]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i, betas in enumerate(wanted):
        np.testing.assert_array_equal(found[i], betas)


def gather_model(half: bool, height: int, width: int) -> onnx.ModelProto:
    """A graph of one `PartPointGather`, with the function that says what it is."""
    from export.gather_function import append_function

    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["features32"], ["features"], to=kind),
        helper.make_node(
            GATHER_OP, ["features", "points"], ["read"], domain=GATHER_DOMAIN,
            plugin_namespace="glnet_rt", plugin_version="1",
        ),
        helper.make_node("Cast", ["read"], ["sampled"], to=TensorProto.FLOAT),
    ]  # fmt: skip
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "gather",
        [
            info("features32", TensorProto.FLOAT, ["b", 4, height, width]),
            info("points", TensorProto.FLOAT, ["b", 9, 2]),
        ],
        [info("sampled", TensorProto.FLOAT, ["b", 9, 4])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(GATHER_DOMAIN, 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    append_function(proto)
    return proto


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("height", "width"), [(6, 9), (1, 5), (1, 1)])
def test_the_gather_is_what_its_function_says(half: bool, height: int, width: int) -> None:
    from openvino.frontend.onnx import ConversionExtension

    proto = gather_model(half, height, width)
    rng = np.random.default_rng(height)
    features = rng.normal(size=(2, 4, height, width)).astype(np.float32)
    points = rng.uniform(-3, max(height, width) + 3, (2, 9, 2)).astype(np.float32)
    reference = onnxruntime.InferenceSession(proto.SerializeToString())
    (wanted,) = reference.run(None, {"features32": features, "points": points})
    core = openvino.Core()
    core.add_extension(ConversionExtension(GATHER_OP, GATHER_DOMAIN, openvino_graph.gather))
    options = {"INFERENCE_PRECISION_HINT": openvino.Type.f32}
    compiled = core.compile_model(core.read_model(proto.SerializeToString(), b""), "CPU", options)
    found = compiled([features, points])[0]
    np.testing.assert_allclose(found, wanted, atol=2e-3 if half else 2e-6)


def residual_block() -> onnx.ModelProto:
    """A convolution, and two beside a shortcut: INT8 can do without some of its pairs here."""
    rng = np.random.default_rng(0)

    def convolution(name: str, source: str) -> list[onnx.NodeProto]:
        weights = rng.normal(size=(8, 3 if name == "first" else 8, 3, 3)).astype(np.float32) / 6
        initial.append(numpy_helper.from_array(weights, f"{name}.weight"))
        inputs, conv = [source, f"{name}.weight"], f"{name}_conv"
        node = helper.make_node("Conv", inputs, [conv], name=name, pads=[1, 1, 1, 1])
        return [node]

    initial: list[onnx.TensorProto] = []
    nodes = [
        *convolution("first", "image"),
        helper.make_node("Relu", ["first_conv"], ["a"], name="relu_a"),
        *convolution("second", "a"),
        helper.make_node("Relu", ["second_conv"], ["b"], name="relu_b"),
        *convolution("third", "b"),
        helper.make_node("Add", ["third_conv", "a"], ["sum"], name="add"),
        helper.make_node("Relu", ["sum"], ["out"], name="relu_c"),
    ]
    shape = ["B", 3, 16, 16]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["B", 8, 16, 16])
    graph = helper.make_graph(nodes, "block", [image], [out], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_int8_rounds_less_than_it_was_told_to() -> None:
    """Not before sums, and to all levels what a ReLU has cut off; the error must show it."""
    proto = residual_block()
    rng = np.random.default_rng(1)
    images = rng.normal(size=(16, 3, 16, 16)).astype(np.float32)
    exact = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"image": images})[0]
    spec = dataclasses.replace(NetSpec(), input_size=16)
    integers = quantised(proto, ["first", "second", "third"], images, spec).SerializeToString()
    core = openvino.Core()
    errors, pairs = [], []
    for changed in (False, True):
        model = core.read_model(integers, b"")
        if changed:
            openvino_graph.round_where_it_pays(model)
        out = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)[0]
        errors.append(float(np.sqrt(np.mean((out - exact) ** 2))))
        pairs.append(lowest_of_pairs(model))
    assert 0 < errors[1] < 0.7 * errors[0]
    assert all(low < 0 for low in pairs[0])
    # What is left is read by a convolution: the image, and two values behind a ReLU.
    assert sorted(low < 0 for low in pairs[1]) == [False, False, True]


def test_sums_of_what_is_never_negative_are_not_either() -> None:
    """So that a convolution behind a sum of ReLUs reads all levels too."""
    ops = openvino.opset13
    image = ops.parameter([1, 8, 4, 4], openvino.Type.f32)
    cut = ops.relu(image)
    assert openvino_graph._never_negative(ops.add(ops.add(cut, cut), ops.relu(cut)))
    assert not openvino_graph._never_negative(ops.add(cut, image))
    assert not openvino_graph._never_negative(ops.multiply(cut, cut))


def lowest_of_pairs(model: Any) -> list[float]:
    """The lower end of every activation's range that something still reads."""
    return [
        float(node.input_value(1).get_node().data.ravel()[0])
        for node in model.get_ordered_ops()
        if node.get_type_name() == "FakeQuantize"
    ]


def test_a_model_in_float32_stays_as_it_is() -> None:
    model = openvino.Core().read_model(residual_block().SerializeToString(), b"")
    before = [node.get_friendly_name() for node in model.get_ordered_ops()]
    openvino_graph.round_where_it_pays(model)
    assert [node.get_friendly_name() for node in model.get_ordered_ops()] == before


# -- precision ------------------------------------------------------------------------------------


def test_float32_stays_float32(tiny_artifact: Artifact, session: OpenVinoBackend) -> None:
    """Left alone, OpenVINO takes bfloat16 on CPUs that have it; the error would be 1e-2."""
    compiled = session._one.get_compiled_model()
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    crops = crops_of(tiny_artifact, 1)
    assert_means(run(session, crops, tiny_artifact.spec), crops, tiny_artifact)


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bfloat16")
def test_bfloat16_is_made_of_the_float32_model(tiny_artifact: Artifact) -> None:
    crops = crops_of(tiny_artifact, 2)
    wanted = tiny.run_reference(tiny.model(tiny_artifact.spec), crops, tiny_artifact.spec)
    session, (attempt, *_) = backends.select(tiny_artifact, "openvino", "bf16")
    with session:
        assert session.precision == attempt.precision == "bf16"
        betas = run(session, crops, tiny_artifact.spec).betas
    apart = np.abs(betas - wanted.betas).max()
    assert 1e-5 < apart < 0.1


def test_bfloat16_needs_a_cpu_that_has_it(
    tiny_artifact: Artifact, monkeypatch: pytest.MonkeyPatch, assert_helpful: Check
) -> None:
    class OldCore:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "INT8"]

    with pytest.raises(BackendError, match="no arithmetic in bfloat16") as caught:
        compiler_of(tiny_artifact, "bf16").hint(OldCore())
    assert_helpful(caught.value)
    assert compiler_of(tiny_artifact, "fp16").hint(OldCore()) == openvino.Type.f32
    assert compiler_of(tiny_artifact, "int8").hint(OldCore()) == openvino.Type.f32


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bfloat16")
def test_what_int8_leaves_takes_bfloat16_and_nothing_else_does(tiny_artifact: Artifact) -> None:
    core = openvino.Core()
    asked = {p: compiler_of(tiny_artifact, p).hint(core) for p in OpenVinoBackend.precisions}
    half = {name for name, hint in asked.items() if hint == openvino.Type.bf16}
    assert half == {"bf16", "int8"}


def compiler_of(artifact: Artifact, precision: str) -> openvino_.Compiler:
    return openvino_.Compiler(openvino, artifact, precision)


def test_bfloat16_is_not_chosen_where_export_did_not_judge_it(tiny_artifact: Artifact) -> None:
    session, attempts = backends.select(tiny_artifact)
    session.close()
    assert "bf16" not in {attempt.precision for attempt in attempts}


# -- cache ----------------------------------------------------------------------------------------


def test_a_second_session_reads_what_the_first_compiled(
    tiny_artifact: Artifact, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = crops_of(tiny_artifact, 3)
    for _ in range(2):
        with OpenVinoBackend.open(tiny_artifact, "fp32", threads=2) as session:
            for count in (1, 3):
                output = run(session, crops[:count], tiny_artifact.spec)
                assert_means(output, crops[:count], tiny_artifact)
        assert len(list(cache.glob("fp32.*.blob"))) == 2
        monkeypatch.setattr(openvino_.Compiler, "read_model", None)  # the second never reads it


def test_another_machine_model_or_version_has_a_file_of_its_own(
    tiny_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = openvino_.Compiler(openvino, tiny_artifact, "fp32")
    paths = {compiler._cached(1), compiler._cached(2)}
    monkeypatch.setattr(openvino_, "cpu_sha256", lambda: "another")
    paths.add(compiler._cached(2))
    monkeypatch.setattr(openvino, "__version__", "2000.0")
    paths.add(compiler._cached(2))
    monkeypatch.setattr(openvino_, "model_sha256", lambda *_: "another")
    paths.add(compiler._cached(2))
    assert len(paths) == 5


def test_a_damaged_file_is_compiled_again_and_told(
    tiny_artifact: Artifact, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    OpenVinoBackend.open(tiny_artifact, "fp32", threads=1).close()
    (path,) = cache.iterdir()
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    crops = crops_of(tiny_artifact, 1)
    with OpenVinoBackend.open(tiny_artifact, "fp32", threads=1) as session:
        assert_means(run(session, crops, tiny_artifact.spec), crops, tiny_artifact)
    assert "damaged" in caplog.text
    digest, blob = path.read_bytes()[:64], path.read_bytes()[64:]
    assert openvino_.hashlib.sha256(blob).hexdigest().encode() == digest, "and written anew"


def test_without_a_cache_it_works_and_says_so(
    tiny_artifact: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("GLNET_CACHE", str(tmp_path / "file"))  # no folder can be made in a file
    crops = crops_of(tiny_artifact, 1)
    with OpenVinoBackend.open(tiny_artifact, "fp32", threads=1) as session:
        assert_means(run(session, crops, tiny_artifact.spec), crops, tiny_artifact)
    assert "cannot be kept" in caplog.text


# -- what it refuses ------------------------------------------------------------------------------


def test_a_closed_session_says_so(tiny_artifact: Artifact, assert_helpful: Check) -> None:
    session = OpenVinoBackend.open(tiny_artifact, "fp32")
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed") as caught:
        session.infer(crops_of(tiny_artifact, 1))
    assert_helpful(caught.value)


def test_crops_of_another_size_are_refused(
    tiny_artifact: Artifact, session: OpenVinoBackend, assert_helpful: Check
) -> None:
    for count in (1, 2):
        with pytest.raises(BackendError, match="failed while running") as caught:
            session.infer(crops_of(tiny_artifact, count)[:, 1:])
        assert_helpful(caught.value)
        crops = crops_of(tiny_artifact, count)
        assert_means(run(session, crops, tiny_artifact.spec), crops, tiny_artifact)


def changed(tmp_path: Path, change: Callable[[onnx.GraphProto], object]) -> Artifact:
    """An artifact whose model was changed after its manifest's spec was written."""
    graph = tiny.model(tiny.spec_for(tiny.body_bytes()))
    change(graph.graph)
    return Artifact.open(tiny.write(tmp_path / "changed.glnet", graph=graph))


def rename_output(graph: onnx.GraphProto) -> None:
    graph.output[-1].name = "twists"
    graph.node[-1].output[0] = "twists"


def fix_batch(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


@pytest.mark.parametrize("change", [rename_output, fix_batch])
def test_a_model_that_is_not_the_specs_is_refused(
    tmp_path: Path, change: Callable[[onnx.GraphProto], object], assert_helpful: Check
) -> None:
    with pytest.raises(ArtifactError, match="manifest's spec") as caught:
        OpenVinoBackend.open(changed(tmp_path, change), "fp32")
    assert_helpful(caught.value)


def test_a_model_that_is_none_is_refused(tmp_path: Path, assert_helpful: Check) -> None:
    def unknown_node(graph: onnx.GraphProto) -> None:
        graph.node[0].op_type = "NoSuchNode"

    with pytest.raises(BackendError, match="cannot open") as caught:
        OpenVinoBackend.open(changed(tmp_path, unknown_node), "fp32")
    assert_helpful(caught.value)


def test_openvino_missing_gives_the_pip_command(tiny_path: Path) -> None:
    """In a process of its own, where importing openvino fails."""
    code = f"""
import sys
sys.modules["openvino"] = None
from glnet_rt import MissingDependencyError, backends
from glnet_rt.artifact import Artifact
artifact = Artifact.open({str(tiny_path)!r})
try:
    backends.select(artifact, "openvino")
except MissingDependencyError as error:
    assert error.fix == "pip install openvino" and error.got and error.expected
else:
    raise SystemExit("nothing raised")
session, attempts = backends.select(artifact)
assert session.name == "onnxruntime", session.name
assert any(a.fix == "pip install openvino" for a in attempts)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
