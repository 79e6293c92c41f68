"""From weights to an artifact that the run time opens, verifies and runs like torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import glnet_rt
from export import __main__ as command
from export import build as building
from export import crops as reading
from export.build import Source, build, write
from export.crops import Crops, read_crops, rendered_people
from export.graph import build_graph, run_graph
from export.parity import BATCHES, GATES, OWN, SAME, Gate, failures, gate_failures, markdown
from export.random_network import random_preset
from glnet_rt.artifact import Artifact, Manifest, write_artifact
from glnet_rt.backends.onnxruntime_ import unsigned_activations
from glnet_rt.body_model import BodyModel
from glnet_rt.cpu import cpu_name
from glnet_rt.errors import ArtifactError, ContractError, SourceError
from glnet_rt.parity import Parity, Tolerance
from glnet_rt.probe import verify_each
from glnet_rt.spec import NetSpec
from tests import tiny
from tests.narrow import BODY, noise_crops
from train.checkpoint import load_weights, save_weights
from train.model.glnet import GLNet
from train.synthetic.dataset import SetSettings, render_set

ALL = ("fp32", "fp16", "int8", "packed")
PACKED_BYTES = 1_700_000
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def source(narrow: GLNet, body: BodyModel, labelled: Crops) -> Source:
    calibration = Crops(noise_crops(8, seed=3))
    return Source(
        model=narrow,
        learned=False,
        training_data="noise",
        body_bytes=BODY.read_bytes(),
        body=body,
        judged=labelled,
        calibration=calibration,
        packed_bytes=PACKED_BYTES,
    )


@pytest.fixture(scope="module")
def manifest(source: Source) -> Manifest:
    return source.manifest("narrow", "CC0-1.0")


@pytest.fixture(scope="module")
def built(
    source: Source, narrow_graph: onnx.ModelProto, manifest: Manifest
) -> tuple[dict[str, bytes], dict[str, Any]]:
    return build(source, narrow_graph, ALL, manifest)


@pytest.fixture
def artifact(
    tmp_path: Path, built: tuple[dict[str, bytes], dict[str, Any]], manifest: Manifest
) -> Artifact:
    files, report = built
    return Artifact.open(write(tmp_path / "a.glnet", manifest, files, report, ALL))


def test_every_precision_of_a_random_network_passes(
    built: tuple[dict[str, bytes], dict[str, Any]],
) -> None:
    """By its noise at the same pixels; noise is no person, whose pixel wins by a hair."""
    _, report = built
    assert report["failures"] == []
    ran: dict[str, list[tuple[str, int, str]]] = {}
    for row in report["rows"]:
        if row["pixels"] == OWN and row["precision"] in ALL:
            told = (row["precision"], row["batch"], row["crops_of"])
            ran.setdefault(row["backend"], []).append(told)
    wanted = [(p, b, of) for p in ALL for b in BATCHES for of in ("held-out", "probe")]
    assert "onnxruntime" in ran
    assert all(sorted(told) == sorted(wanted) for told in ran.values())
    same = {row["precision"]: row for row in report["rows"] if row["pixels"] == SAME}
    assert set(same) == set(ALL)
    assert all(row["pixel_changed"] == 0 for row in same.values())
    assert same["fp32"]["noise"] < same["packed"]["noise"] < same["int8"]["noise"]
    assert same["fp16"]["noise"] < same["int8"]["noise"]
    assert markdown(report).count("\n| ") == len(report["rows"]) + len(report["times"]) + 4


def test_the_run_time_takes_the_fastest_and_says_why(artifact: Artifact) -> None:
    told = artifact.read_parity()["times"]
    times = {t["precision"]: t["over_fp32"] for t in told if t["backend"] == "onnxruntime"}
    assert set(times) == set(ALL)
    assert times["fp32"] == 1
    with glnet_rt.load(artifact.path, backend="onnxruntime", threads=1) as hmr:
        fastest = min(times, key=lambda p: times[p])
        assert hmr.backend.precision == fastest
        assert f"took {times[fastest]:.2f} of the time of fp32 at export" in hmr.explain()
        order = [a.precision for a in hmr.attempts if a.backend == "onnxruntime"]
        assert order == sorted(ALL, key=lambda p: times[p])
        assert len(hmr(np.zeros((80, 60, 3), np.uint8)).people) == 1


def test_verify_runs_every_precision_within_its_own_tolerance(
    artifact: Artifact, body: BodyModel
) -> None:
    reports, rejected = verify_each(artifact, body)
    for backend in {report.backend for report in reports}:
        assert {r.precision for r in reports if r.backend == backend} >= set(ALL)
    assert all(report.passed for report in reports), reports
    assert "onnxruntime" not in {attempt.backend for attempt in rejected}
    parity = Parity.read(artifact)
    assert parity.tolerance("fp32") == Tolerance(0.1, 0.1, 0.1)
    int8 = parity.tolerance("int8")
    assert int8.max_mm > int8.mean_mm > 0.1
    by_name = {report.precision: report for report in reports}
    assert by_name["int8"].max_mm > 0.1  # what float32 may be off would fail it


def test_verify_fails_where_int8_is_worse_than_at_export(
    tmp_path: Path,
    built: tuple[dict[str, bytes], dict[str, Any]],
    manifest: Manifest,
    body: BodyModel,
) -> None:
    """Another model in its place, whole by every digest."""
    files, report = built
    harmed = {**files, "model.int8.onnx": moved(files["model.int8.onnx"])}
    path = write(tmp_path / "harmed.glnet", manifest, harmed, report, ALL)
    reports, _ = verify_each(Artifact.open(path), body)
    assert {r.precision for r in reports} >= set(ALL)
    assert all(r.passed == (r.precision != "int8") for r in reports), reports


def test_signed_and_unsigned_activations_say_the_same(
    built: tuple[dict[str, bytes], dict[str, Any]], source: Source
) -> None:
    """What the ONNX Runtime backend changes on x86: nothing, but for how its kernels round a half,
    and that sums of bytes overflow in them where there is no VNNI."""
    spec, signed = source.model.config.spec, built[0]["model.int8.onnx"]
    unsigned = unsigned_activations(signed)
    assert len(unsigned) == len(signed)
    onnx.checker.check_model(onnx.load_from_string(unsigned), full_check=True)
    images = source.judged.images(spec)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    as_written = [
        onnxruntime.InferenceSession(m, options).run(None, {spec.input_name: images})
        for m in (signed, unsigned)
    ]
    for one, other in zip(*as_written, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ArtifactError, match="does not say where the zero"):
        unsigned_activations(unsigned)
    if "avx512_vnni" not in cpu_name():
        return
    a, b = (run_graph(onnx.load_from_string(m), spec, images) for m in (signed, unsigned))
    same = a["pixel"] == b["pixel"]
    assert same.mean() > 0.5
    gap = np.abs(a["keypoints_uvd"] - b["keypoints_uvd"])[same]
    assert np.median(gap) < 0.02 * a["keypoints_uvd"].std()


def moved(model: bytes) -> bytes:
    """The same model with all keypoints fifty crops further to the right, below and behind."""
    proto = onnx.load_from_string(model)
    (node,) = (node for node in proto.graph.node if "keypoints_uvd" in node.output)
    node.output[list(node.output).index("keypoints_uvd")] = "keypoints_there"
    for other in proto.graph.node:
        other.input[:] = ["keypoints_there" if n == "keypoints_uvd" else n for n in other.input]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(50.0), "far"))
    shift = onnx.helper.make_node("Add", ["keypoints_there", "far"], ["keypoints_uvd"])
    proto.graph.node.append(shift)
    return proto.SerializeToString()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "packed"])
def test_harmed_weights_fail_the_gate(
    source: Source,
    narrow_graph: onnx.ModelProto,
    manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    def harmed(*_: object) -> onnx.ModelProto:
        return onnx.load_from_string(moved(narrow_graph.SerializeToString()))

    monkeypatch.setattr(building, "build_models", lambda *_: {precision: harmed()})
    _, report = build(source, narrow_graph, (precision,), manifest)
    assert any(precision in failure for failure in report["failures"])
    learned = failures(report["rows"], (precision,), learned=True)
    if precision != "int8":  # whose gate asks for the truth of trained people
        assert len(learned) >= len(BATCHES)


def test_gates_of_a_learned_network_are_millimetres() -> None:
    row = {"pixels": OWN, "crops_of": "held-out", "backend": "onnxruntime", "batch": 1}
    vertices = {f"vertices_{n}_mm": 3.0 for n in ("mean", "p99", "max")}
    row |= {**vertices, "pa_mpjpe_change_mm": 0.9, "noise": 9.0}
    for precision, count in (("fp32", 3), ("fp16", 1), ("packed", 1), ("int8", 0)):
        found = failures([{**row, "precision": precision}], (precision,), learned=True)
        assert len(found) == count, found
    worse = {**row, "precision": "int8", "pa_mpjpe_change_mm": 1.01}
    (told,) = failures([worse], ("int8",), learned=True)
    assert "pa_mpjpe_change_mm 1.010 > 1" in told
    assert failures([worse], ("int8", "fp16"), learned=True)[1:] == ["fp16 ran on no backend here"]


def test_what_is_made_of_a_model_is_allowed_only_where_it_passes() -> None:
    """bf16 that breaks its gate costs an artifact nothing: the run time does not choose it."""
    row = {"pixels": OWN, "crops_of": "held-out", "backend": "openvino", "batch": 1}
    worse = {**row, "precision": "bf16", "pa_mpjpe_change_mm": 1.2}
    assert gate_failures([worse], "bf16") == [
        "bf16 on openvino at batch 1: pa_mpjpe_change_mm 1.200 > 1"
    ]
    good = {**row, "precision": "fp32", **{f"vertices_{n}_mm": 0.0 for n in ("mean", "p99", "max")}}
    assert failures([good, worse], ("fp32",), learned=True) == []


@pytest.mark.parametrize("name", ["mean", "p99", "max"])
@pytest.mark.parametrize("value", [1.01, math.nan])
def test_a_gate_names_what_broke(name: str, value: float) -> None:
    row = {f"vertices_{n}_mm": 1.0 for n in ("mean", "p99", "max")}
    assert Gate(1.0, 1.0, 1.0).failures(row) == []
    (failure,) = Gate(1.0, 1.0, 1.0).failures({**row, f"vertices_{name}_mm": value})
    assert failure.startswith(f"vertices_{name}_mm {value:.3f}")


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def export(
    tmp_path: Path,
    narrow: GLNet,
    narrow_graph: onnx.ModelProto,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., int]:
    """`python -m export` on a small network and noise, to `new/a.glnet`; the exit code."""
    monkeypatch.setattr(command, "build_graph", lambda model: narrow_graph)

    def run(*options: object) -> int:
        weights, probe, calibration = (tmp_path / n for n in ("w.safetensors", "p.npy", "c.npy"))
        save_weights(weights, narrow, {"images": 1, "people": 2, "data": "noise"})
        np.save(probe, noise_crops(9))
        np.save(calibration, noise_crops(4, seed=3))
        given = ["--probe-data", probe, "--calibration-data", calibration, *options]
        arguments = ["export", weights, "--out", tmp_path / "new" / "a.glnet", *given]
        monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
        return command.main()

    return run


# Half of the weights' last bits are lost in the file, and noise has no pixel that clearly wins.
LENIENT = Gate(math.inf, math.inf, math.inf)


def test_the_command_writes_an_artifact_that_runs(
    tmp_path: Path, export: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision in ("fp32", "packed"):
        monkeypatch.setitem(GATES, precision, LENIENT)
    report = tmp_path / "parity.md"
    options = ("--precisions", "fp32,packed", "--max-mb", "1.7", "--report", report)
    assert export(*options) == 0
    assert "| packed | onnxruntime | 8 | 9 held-out |" in report.read_text()
    opened = Artifact.open(tmp_path / "new" / "a.glnet")
    assert opened.manifest.precisions == ("fp32", "packed")
    assert "noise" in opened.manifest.training_data
    digest = hashlib.sha256(noise_crops(4, seed=3).tobytes()).hexdigest()
    assert opened.manifest.calibration_sha256 == digest
    with glnet_rt.load(opened.path, precision="packed") as hmr:
        assert len(hmr(np.zeros((80, 60, 3), np.uint8)).people) == 1


def test_without_data_people_are_rendered_once(
    tmp_path: Path, narrow_spec: NetSpec, body: BodyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "RENDERED", tmp_path)
    folders = [rendered_people(split, 2, BODY) for split in ("heldout", "train")]
    held_out, training = (read_crops(f, body, narrow_spec, 2) for f in folders)
    assert held_out.joints is not None
    assert held_out.joints.shape == (2, 24, 3)
    assert not np.array_equal(held_out.bgr, training.bgr)
    (shard,) = folders[0].glob("*.tar")
    written = shard.stat().st_mtime_ns
    assert rendered_people("heldout", 2, BODY) == folders[0]
    assert shard.stat().st_mtime_ns == written


def test_a_failed_gate_writes_nothing(
    tmp_path: Path,
    export: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(GATES, "fp32", Gate(math.inf, -1.0, math.inf))
    assert export("--precisions", "fp32") == 3
    assert "nothing written" in capsys.readouterr().err
    assert not (tmp_path / "new" / "a.glnet").exists()


@pytest.mark.parametrize(
    ("precision", "code", "words"),
    [("int8", 2, "cannot be judged on crops without labels"), ("fp8", 2, "without labels")],
)
def test_what_cannot_be_judged_is_refused(
    export: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    precision: str,
    code: int,
    words: str,
) -> None:
    assert export("--precisions", precision) == code
    assert words in capsys.readouterr().err


def test_fp8_asks_for_the_package_that_makes_it(
    source: Source, narrow_graph: onnx.ModelProto, manifest: Manifest
) -> None:
    if importlib.util.find_spec("modelopt"):
        pytest.skip("the package is here")
    with pytest.raises(glnet_rt.MissingDependencyError, match="Model Optimizer") as caught:
        build(source, narrow_graph, ("fp8",), manifest)
    assert caught.value.fix == 'pip install "glnet-rt[fp8]"'


def test_crops_come_from_pictures_too(tmp_path: Path, body: BodyModel, narrow: GLNet) -> None:
    import cv2

    spec, folder = narrow.config.spec, tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        cv2.imwrite(str(folder / name), np.full((90, 60, 3), 200, np.uint8))
    crops = read_crops(folder, body, spec, 2)
    assert crops.bgr.shape == (2, spec.input_size, spec.input_size, 3)
    assert crops.joints is None
    centre = crops.bgr[:, spec.input_size // 2, spec.input_size // 2]
    assert (centre == 200).all()
    np.save(tmp_path / "wrong.npy", np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ContractError, match="holds no crops"):
        read_crops(tmp_path / "wrong.npy", body, spec, 2)
    with pytest.raises(SourceError):
        read_crops(tmp_path / "nowhere", body, spec, 2)


def test_a_report_of_another_form_is_told(tmp_path: Path) -> None:
    good = Artifact.open(tiny.write(tmp_path / "good.glnet"))
    files = {name: good.read(name) for name in good.manifest.files}
    files["parity.json"] = json.dumps({"tolerances": {"fp32": {"mean": 1}}}).encode()
    with pytest.raises(ArtifactError, match="no parity report"):
        Parity.read(Artifact.open(write_artifact(tmp_path / "bad.glnet", good.manifest, files)))


# -- whole networks -------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_shipped_weights_pass_in_every_precision(tmp_path: Path, body: BodyModel) -> None:
    """On rendered people, in millimetres; float32 typed half by half gives the same bodies."""
    settings = SetSettings(BODY, "heldout", 5, 160)
    render_set(tmp_path / "people", settings, 48, 1, 48)
    model, _ = load_weights(ROOT / "weights/tiny.safetensors")
    crops = read_crops(tmp_path / "people", body, model.config.spec, 32)
    calibration = Crops(crops.bgr[16:])
    source = Source(model, True, "", BODY.read_bytes(), body, crops, calibration, 10_000_000)
    _, report = build(
        source, build_graph(model), ("fp32", "fp16", "int8"), source.manifest("a", "")
    )
    assert report["failures"] == []
    worst = {row["precision"]: row["vertices_mean_mm"] for row in report["rows"]}
    assert worst["fp32"] < worst["fp16"] < worst["int8"] < 20


@pytest.mark.slow
def test_a_random_w32_has_the_node_and_int8(
    tmp_path: Path, body: BodyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On people: what noise looks like to weights of noise says nothing."""
    model = random_preset("w32", body, seed=0)
    graph = build_graph(model)
    nodes = [node for node in graph.graph.node if node.domain]
    assert [node.op_type for node in nodes] == ["PartPointGather"] * 2
    monkeypatch.setattr(reading, "RENDERED", tmp_path)
    folders = [rendered_people(split, 8, BODY) for split in ("heldout", "train")]
    judged, calibration = (read_crops(f, body, model.config.spec, 8) for f in folders)
    source = Source(model, False, "", BODY.read_bytes(), body, judged, calibration, 0)
    _, report = build(source, graph, ("fp32", "fp16", "int8"), source.manifest("w32", ""))
    assert report["failures"] == []
