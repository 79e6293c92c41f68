"""From weights to an artifact that the run time opens, verifies and runs like torch."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import glnet_rt
from export import to_onnx
from export.graph import OPSET, build_graph, run_graph, run_torch, serialised
from export.packing import SMALL, bits_at, deflated, large_weights, pack, pack_into
from export.parity import GATES, Gate, parity
from glnet_rt.body_model import BodyModel
from glnet_rt.errors import ContractError
from glnet_rt.probe import Probe
from glnet_rt.spec import NetSpec
from train.checkpoint import save_weights
from train.model.config import preset
from train.model.glnet import GLNet
from train.model.hrnet import HRNET_PRESETS

BODY = Path(__file__).resolve().parents[2] / "glnet_rt/assets/body.npz"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load(BODY)


def network(body: BodyModel, **fields: object) -> GLNet:
    """A small network whose heads answer something else for every crop."""
    torch.manual_seed(5)
    representation = fields.pop("representation", "decomposed")
    config = preset(
        "tiny",
        input_size=64,
        representation=representation,
        body_id=body.body_id,
        body_sha256=body.sha256,
    )
    model = GLNet(dataclasses.replace(config, **fields))
    head = model.pixel_head
    for layer in (head.hop1, head.score, head.residual, *head.hop2):
        torch.nn.init.normal_(layer.weight, std=0.1)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64))
    return model.eval()


def crops(count: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("fields", [{}, {"class_variant": "local", "representation": "direct"}])
def test_graph_equals_torch_at_every_batch(body: BodyModel, fields: dict[str, str]) -> None:
    model = network(body, **fields)
    spec = model.config.spec
    proto = build_graph(model)
    images = np.random.default_rng(1).normal(size=(9, 3, 64, 64)).astype(np.float32)
    reference = run_torch(model, images)
    for batch in (1, 3, 9):
        row = parity(body, spec, run_graph(proto, spec, images, batch), reference)
        assert row["same_pixel"] == 9
        assert row["vertices_max_mm"] < 0.1
        assert row["pelvis_max_mm"] < 0.1


def test_graph_is_what_was_promised(body: BodyModel) -> None:
    model = network(body)
    proto = build_graph(model)
    assert [o.version for o in proto.opset_import if o.domain == ""] == [OPSET]
    assert [o.name for o in proto.graph.output] == list(model.config.spec.output_shapes)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    kinds = {node.op_type for node in proto.graph.node}
    assert "GridSample" in kinds
    assert "BatchNormalization" not in kinds  # folded into the convolutions
    text = str(onnx.ModelProto.SerializeToString(proto))
    assert str(Path.home()) not in text
    assert "site-packages" not in text


# Of every layer something, for what does not depend on how much.
NARROW = {
    "backbone": dataclasses.replace(HRNET_PRESETS["tiny"], width=8, modules=(1, 1, 1), blocks=1),
    "branch_channels": 32,
    "fused_channels": 32,
    "lifting_width": 32,
    "settle_width": 32,
}


@pytest.fixture(scope="module")
def narrow(body: BodyModel) -> tuple[onnx.ModelProto, NetSpec]:
    """The float32 graph of a narrow network."""
    model = network(body, **NARROW)
    return build_graph(model), model.config.spec


@pytest.fixture
def export(tmp_path: Path, body: BodyModel, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`python -m export.to_onnx` on a small network and noise, to `a.glnet`; the exit code."""

    def run(*options: str) -> int:
        weights, probe, calibration = (tmp_path / n for n in ("w.safetensors", "p.npy", "c.npy"))
        save_weights(weights, network(body, **NARROW), {"images": 1, "people": 2, "data": "noise"})
        np.save(probe, crops())
        np.save(calibration, crops(4)[:, ::-1])
        given = ["--probe-data", probe, "--calibration-data", calibration, *options]
        arguments = ["to_onnx", weights, "--out", tmp_path / "a.glnet", *given]
        monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
        return to_onnx.main()

    return run


def test_export_writes_an_artifact_that_runs(tmp_path: Path, export: Callable[..., int]) -> None:
    assert export() == 0
    with glnet_rt.load(tmp_path / "a.glnet") as hmr:
        report = hmr.verify()
        assert report.passed
        assert report.num_probes == 9
        result = hmr(np.zeros((80, 60, 3), np.uint8))
        assert len(result.people) == 1
        stored = Probe.read(hmr.artifact).output
        assert len({tuple(np.round(k, 3)) for k in stored.keypoints_uvd[:, 0]}) > 1
        assert hmr.artifact.read_parity()["rows"][0]["vertices_max_mm"] < 0.1
        assert "noise" in hmr.artifact.manifest.training_data
        assert hmr.artifact.manifest.precisions == ("fp32",)
        assert hmr.artifact.manifest.calibration_sha256 == ""


def test_a_packed_artifact_is_small_and_runs(
    tmp_path: Path, export: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Noise is no person: which pixels win hangs by a thread, and so does every vertex.
    monkeypatch.setitem(GATES, "packed", Gate(math.inf, math.inf, math.inf))
    assert export("--precision", "packed", "--max-mb", "1.7") == 0
    assert 1.6e6 < (tmp_path / "a.glnet").stat().st_size <= 1.7e6
    with glnet_rt.load(tmp_path / "a.glnet") as hmr:
        assert hmr.backend.precision == "packed"
        assert hmr.verify().passed
        manifest = hmr.artifact.manifest
        assert manifest.precisions == ("packed",)
        shown = np.ascontiguousarray(crops(4)[:, ::-1])
        assert manifest.calibration_sha256 == hashlib.sha256(shown.tobytes()).hexdigest()
        rows = hmr.artifact.read_parity()["rows"]
        assert [(row["precision"], row["batch"]) for row in rows] == [
            (precision, batch) for precision in ("fp32", "packed") for batch in (1, 3, 8)
        ]


@pytest.mark.parametrize("precision", ["fp32", "packed"])
def test_a_failed_gate_writes_nothing(
    tmp_path: Path, export: Callable[..., int], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setitem(GATES, precision, Gate(math.inf, -1.0, math.inf))
    monkeypatch.setattr(to_onnx, "harm_of_rounding", lambda proto, *_: equal_harm(proto))
    assert export("--precision", precision, "--max-mb", "1.7") == to_onnx.EXIT_GATE
    assert not (tmp_path / "a.glnet").exists()


@pytest.mark.parametrize("name", ["mean", "p99", "max"])
@pytest.mark.parametrize("value", [1.01, math.nan])
def test_a_gate_names_what_broke(name: str, value: float) -> None:
    row = {f"vertices_{n}_mm": 1.0 for n in ("mean", "p99", "max")}
    assert Gate(1.0, 1.0, 1.0).failures(row) == []
    (failure,) = Gate(1.0, 1.0, 1.0).failures({**row, f"vertices_{name}_mm": value})
    assert failure.startswith(f"vertices {name} {value:.3f} mm")


def equal_harm(proto: onnx.ModelProto) -> dict[str, float]:
    return {weight.name: 1.0 for weight in large_weights(proto)}


@pytest.mark.parametrize("bits", [5, 8, 9, 16])
def test_packed_weights_are_the_rounded_ones(
    narrow: tuple[onnx.ModelProto, NetSpec], bits: int
) -> None:
    """Every bit comes through, and no more than half a step is lost in any channel."""
    proto, spec = onnx.ModelProto(), narrow[1]
    proto.CopyFrom(narrow[0])
    weights = large_weights(proto)
    packed = pack(proto, {w.name: bits for w in weights})
    assert not {w.name for w in weights} & {t.name for t in packed.graph.initializer}
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for weight in weights:
        steps, step = weight.rounded(bits)
        assert (np.abs(steps * step - weight.values) <= step * 0.501).all()
        assert np.abs(steps).max() in (2 ** (bits - 1) - 1, 0)  # 0: a layer that starts at zero
        rounded = (steps * step).astype(np.float32)
        tensors[weight.name].CopyFrom(onnx.numpy_helper.from_array(rounded, weight.name))
    images = np.random.default_rng(1).normal(size=(3, 3, 64, 64)).astype(np.float32)
    wanted, got = run_graph(proto, spec, images), run_graph(packed, spec, images)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, atol=1e-5, err_msg=name)


def test_onnxruntime_unpacks_at_load_time(
    tmp_path: Path, narrow: tuple[onnx.ModelProto, NetSpec]
) -> None:
    """What runs per crop is the graph of floats: as many nodes of every kind, no piece left."""
    proto, _ = narrow
    packed = pack(proto, {w.name: 9 for w in large_weights(proto)})
    kinds = []
    for graph in (proto, packed):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(serialised(graph), options)
        kinds.append(sorted(n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node))
    assert kinds[0] == kinds[1]


def test_bits_go_where_rounding_harms(narrow: tuple[onnx.ModelProto, NetSpec]) -> None:
    proto, _ = narrow
    weights = large_weights(proto)
    harm = equal_harm(proto)
    bits = bits_at(18.0, weights, harm)
    small, large = (f(weights, key=lambda w: w.values.size) for f in (min, max))
    assert SMALL <= small.values.size < large.values.size
    assert bits[small.name] > bits[large.name]
    assert bits_at(18.0, weights, {**harm, large.name: 4.0})[large.name] == bits[large.name] + 2
    size = deflated(pack(proto, dict.fromkeys(harm, 8)))
    fine, coarse = (pack_into(proto, harm, int(share * size)) for share in (1.2, 0.9))
    assert 0.85 < deflated(coarse) / size <= 0.9
    assert 1.15 < deflated(fine) / size <= 1.2
    with pytest.raises(ContractError, match="does not fit"):
        pack_into(proto, harm, size // 4)


def test_parity_sees_a_moved_keypoint(body: BodyModel) -> None:
    model = network(body)
    images = np.random.default_rng(1).normal(size=(2, 3, 64, 64)).astype(np.float32)
    reference = run_torch(model, images)
    moved = {**reference, "keypoints_uvd": reference["keypoints_uvd"].copy()}
    moved["keypoints_uvd"][:, 7] += 0.01
    row = parity(body, model.config.spec, moved, reference)
    assert row["vertices_max_mm"] > 1
    assert row["keypoints_max_px"] == pytest.approx(0.64, rel=1e-3)
