"""Engines are built as asked, and whoever asks for what cannot be is told before or instead.

The device and TensorRT are those of tests/fake_device.py. Real engines: test_real_engines.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from export import build_engine
from glnet_rt.artifact import Artifact
from glnet_rt.backends.onnx_bytes import without_functions
from glnet_rt.backends.tensorrt_ import TensorRTBackend
from glnet_rt.engine_cache import EngineCache, EngineFile, model_sha256
from glnet_rt.errors import BackendError
from tests import tiny
from tests.fake_device import ORIN, Bench, FakeBinding, FakeConfig, make_bench


@pytest.fixture
def bench(tiny_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return on_bench(tiny_artifact, tmp_path, monkeypatch)


@pytest.fixture
def gather_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """With a model in which something is a `PartPointGather`."""
    graph = with_gather(tiny.model(tiny.spec_for(tiny.body_bytes())))
    artifact = Artifact.open(tiny.write(tmp_path / "gather.glnet", graph=graph))
    monkeypatch.setattr(build_engine, "load_plugin", lambda module: SomePlugin)
    return on_bench(artifact, tmp_path, monkeypatch)


class SomePlugin:
    sha256 = "5" * 64


def on_bench(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = make_bench(artifact, tmp_path, monkeypatch, FakeBinding)
    monkeypatch.setattr(build_engine, "find_gpu", lambda: ORIN)
    monkeypatch.setattr(build_engine, "open_binding", FakeBinding)
    return made


def with_gather(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network, with one output taken through the node and its local function."""
    node = next(node for node in model.graph.node if node.output[0] == "betas")
    node.output[0] = "betas.raw"
    again = ["betas.raw", "betas.raw"]
    model.graph.node.append(
        helper.make_node("PartPointGather", again, ["betas"], domain="glnet_rt")
    )
    opset = helper.make_opsetid("", 20)
    body = [helper.make_node("Identity", ["features"], ["read"])]
    function = helper.make_function(
        "glnet_rt", "PartPointGather", ["features", "points"], ["read"], body, [opset]
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("glnet_rt", 1))
    return model


def built(bench: Bench, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """The report of a build that succeeds."""
    code = build_engine.main([str(bench.artifact.path), "--json", *options])
    out = capsys.readouterr()
    assert code == 0, out.err
    return json.loads(out.out)


def refused(bench: Bench, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """The error of a build that is refused, complete, and told on stderr too."""
    code = build_engine.main([str(bench.artifact.path), "--json", *options])
    out = capsys.readouterr()
    answer = json.loads(out.out)
    assert code == answer["exit_code"] != 0
    assert all(answer["error"][part] for part in ("what", "got", "expected", "fix"))
    assert answer["error"]["what"] in out.err
    return answer["error"]


def config_of(bench: Bench) -> FakeConfig:
    return bench.module.builders[-1].config


def test_what_is_built_is_what_runs(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    report = built(bench, capsys)
    assert [row["batch"] for row in report["engines"]] == [1, 2, 4, 8]
    assert {row["gather"] for row in report["engines"]} == {"native"}
    batch = bench.batch(5)
    with TensorRTBackend.open(bench.artifact, "fp32") as session:
        betas = session.infer(batch)["betas"]
    np.testing.assert_allclose(betas, bench.reference(batch).betas, rtol=1e-4, atol=1e-5)


def test_every_engine_has_one_profile_with_nothing_free(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    built(bench, capsys, "--batches", "2,1")
    for builder, batch in zip(bench.module.builders, (1, 2), strict=True):
        (profile,) = builder.config.profiles
        assert profile.name == "image"
        assert set(profile.shapes) == {(batch, *bench.artifact.spec.input_shape)}
        assert builder.flags == 1 << 1, "strongly typed, and nothing else"


def test_options_reach_the_builder_and_the_header(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--optimization-level", "5", "--workspace-mb", "512", "--hardware-compatible"]
    report = built(bench, capsys, "--batches", "4", *options)
    config: Any = config_of(bench)
    assert config.builder_optimization_level == 5
    assert config.limits == {"workspace": 512 << 20}
    assert config.hardware_compatibility_level == "ampere+"
    assert config.profiling_verbosity == "detailed"
    found = found_engine(bench, 4)
    assert str(found.path) == report["engines"][0]["path"]
    assert found.header.options.hardware_compatible
    rebuilt = build_engine.parse(found.rebuild.split()[3:])
    assert rebuilt.workspace_mb == 512
    assert rebuilt.optimization_level == 5


def test_by_default_tensorrt_decides(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    built(bench, capsys, "--batches", "1")
    config = config_of(bench)
    assert config.limits == {}
    assert config.flags == set(), "float32 means float32"
    assert not hasattr(config, "hardware_compatibility_level")


def test_engines_may_go_elsewhere(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = built(bench, capsys, "--batches", "1", "--out", str(tmp_path / "other"))
    assert Path(report["engines"][0]["path"]).parent == tmp_path / "other" / "engines"


def test_the_report_can_be_read(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_engine.main([str(bench.artifact.path), "--batches", "1"]) == 0
    out = capsys.readouterr()
    assert "fp32 engines of" in out.out
    assert "for Orin sm87, tensorrt 10.3.0" in out.out
    assert "the model asks for fp32 1 (convolutions and products)" in out.out
    assert "the engine reads fp32 1 (layers)" in out.out
    assert "fp32 batch 1 native: Building" in out.err


def found_engine(bench: Bench, batch: int, **other: Any) -> EngineFile:
    sha256 = model_sha256(bench.artifact, "fp32")
    key = bench.trt.key(sha256, "fp32", batch, ORIN)
    found = EngineCache().find(bench.artifact, replace(key, **other))
    assert found is not None
    return found


# -- the timing cache -----------------------------------------------------------------------------


def test_the_timing_cache_is_handed_on(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "timings"
    built(bench, capsys, "--batches", "1,2", "--timing-cache", str(path))
    assert path.read_bytes() == b"++", "the second build starts from the first one's"
    built(bench, capsys, "--batches", "1", "--timing-cache", str(path))
    assert path.read_bytes() == b"+++"


def test_a_machine_has_its_own_timing_cache(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    built(bench, capsys, "--batches", "1")
    (path,) = bench.cache.root.glob("timing.*")
    assert path.name == "timing.tensorrt-10.3.0.Orin.sm87.cuda12.6.cache"


def test_a_timing_cache_of_another_machine_is_told_and_replaced(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "timings"
    path.write_bytes(b"another machine's")
    bench.module.refuses_timing_cache = True
    report = built(bench, capsys, "--batches", "1", "--timing-cache", str(path))
    assert f"refuses the timing cache {path}" in report["engines"][0]["notes"][0]
    assert path.read_bytes() == b"+"


# -- the route of the gather ----------------------------------------------------------------------


@pytest.mark.parametrize("faster", ["native", "plugin"])
def test_auto_keeps_the_faster_route_and_both_figures(
    gather_bench: Bench, capsys: pytest.CaptureFixture[str], faster: str
) -> None:
    gather_bench.module.ms = {"native": 2.0, "plugin": 2.0, faster: 1.0}
    (row,) = built(gather_bench, capsys, "--batches", "2", "--gather", "auto")["engines"]
    assert row["gather"] == faster
    assert row["ms"] == gather_bench.module.ms
    plugin = SomePlugin.sha256 if faster == "plugin" else ""
    header = found_engine(gather_bench, 2, plugin_sha256=plugin).header
    assert header.gather_ms == gather_bench.module.ms
    assert (header.options.gather, header.key.plugin_sha256) == (faster, plugin)


def test_no_native_route_is_built_once_a_plugin_is_registered(
    gather_bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 10.7 on a registered plugin goes before a function of the same name."""
    registered = []

    class Parser(gather_bench.module.OnnxParser):  # type: ignore[misc, name-defined]
        def parse(self, model: bytes) -> bool:
            return super().parse(without_functions(model) if registered else model)

    def register(module: Any) -> type[SomePlugin]:
        registered.append(module)
        return SomePlugin

    gather_bench.module.OnnxParser = Parser  # type: ignore[misc]
    monkeypatch.setattr(build_engine, "load_plugin", register)
    report = built(gather_bench, capsys, "--batches", "1,2,4", "--gather", "auto")
    assert [sorted(row["ms"]) for row in report["engines"]] == [["native", "plugin"]] * 3
    assert registered


@pytest.mark.parametrize("route", ["native", "plugin"])
def test_one_route_is_built_alone_and_not_timed(
    gather_bench: Bench, capsys: pytest.CaptureFixture[str], route: str
) -> None:
    (row,) = built(gather_bench, capsys, "--batches", "2", "--gather", route)["engines"]
    assert (row["gather"], row["ms"]) == (route, {route: None})
    assert len(gather_bench.module.builders) == 1


def test_a_gather_that_takes_the_other_route_is_noticed(
    gather_bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_engine, "without_functions", lambda model: model)
    error = refused(gather_bench, capsys, "--gather", "plugin")
    assert "did not take the route plugin" in error["what"]


@pytest.mark.parametrize("route", ["plugin", "auto"])
def test_a_model_without_the_node_takes_no_plugin(
    bench: Bench, capsys: pytest.CaptureFixture[str], route: str
) -> None:
    error = refused(bench, capsys, "--gather", route)
    assert "no node PartPointGather" in error["what"]
    assert "--gather native" in error["fix"]


# -- what is refused ------------------------------------------------------------------------------


def test_without_a_gpu_nothing_is_built(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_none() -> Any:
        raise BackendError("there is no driver", got="no libcuda", expected="one", fix="install it")

    monkeypatch.setattr(build_engine, "find_gpu", find_none)
    for options in ([], ["--gather", "auto"]):
        error = refused(bench, capsys, *options)
        assert "there is no driver" in error["what"]
        assert "--target" in error["fix"]
    assert bench.module.builders == []


REFUSED = {
    "batches": (["--batches", "1,x"], "--batches is no list of sizes"),
    "batch 0": (["--batches", "0"], "--batches is no list of sizes"),
    "workspace": (["--workspace-mb", "-1"], "--workspace-mb is no size"),
    "target": (["--target", "sm86", "--backend", "tensorrt"], "only TensorRT for RTX builds for"),
    "precision": (["--precision", "int8"], "holds no model in int8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_make_no_sense_are_refused(
    bench: Bench, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    options, message = REFUSED[name]
    assert message in refused(bench, capsys, *options)["what"]
    assert bench.module.builders == []


REFUSED_BY_RTX = {
    "unknown target": (["--target", "sm87"], "cannot build for this target"),
    "no target": (["--target", "NONE"], "cannot build for this target"),
    "auto": (["--target", "sm86", "--gather", "auto"], "--gather auto times both routes"),
    "timing cache": (["--target", "sm86", "--timing-cache", "x"], "has no timing cache"),
    "hardware": (["--target", "sm86", "--hardware-compatible"], "has no hardware compatible"),
}


@pytest.mark.parametrize("name", REFUSED_BY_RTX)
def test_tensorrt_for_rtx_refuses_what_it_has_not(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", bench.module)  # type: ignore[arg-type]
    monkeypatch.setattr(build_engine, "run_linked", lambda argv: None)
    options, message = REFUSED_BY_RTX[name]
    assert message in refused(bench, capsys, *options)["what"]


def change_model(bench: Bench, change: Callable[[Any], object]) -> None:
    """Let the parser meet other layers than the model has."""
    parse = bench.module.OnnxParser.parse

    class Parser(bench.module.OnnxParser):  # type: ignore[misc, name-defined]
        def parse(self, model: bytes) -> bool:
            taken = parse(self, model)
            change(self._network)
            return taken

    bench.module.OnnxParser = Parser  # type: ignore[misc]


def test_a_model_in_another_precision_is_refused(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    change_model(bench, lambda network: network.layers.clear())
    error = refused(bench, capsys)
    assert "nothing in the model computes in fp32" in error["what"]


def test_an_engine_in_another_precision_is_refused(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the model asked for, what TensorRT made of it counts."""

    def half(engine: Any) -> None:
        engine.report = {"Layers": [{"Name": "gemm", "Inputs": [{"Format/Datatype": "Half"}]}]}

    bench.module.change = half
    error = refused(bench, capsys, "--batches", "1")
    assert "nothing in the engine fp32 batch 1 native computes in fp32" in error["what"]
    assert error["got"] == "1 layers in fp16"
    assert not bench.cache.engines.exists()


def test_a_model_that_tensorrt_cannot_parse_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = tiny.model(tiny.spec_for(tiny.body_bytes()))
    graph.graph.node[0].op_type = "Moon"
    artifact = Artifact.open(tiny.write(tmp_path / "moon.glnet", graph=graph))
    error = refused(on_bench(artifact, tmp_path, monkeypatch), capsys)
    assert "cannot parse model.fp32.onnx" in error["what"]
    assert error["got"] == "Unsupported operator Moon"


def test_a_build_that_fails_is_told(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.module.builds = False
    error = refused(bench, capsys)
    assert "cannot build model.fp32.onnx, batch 1" in error["what"]
