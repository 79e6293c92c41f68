"""From weights to an artifact that the run time opens, verifies and runs like torch."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import glnet_rt
from export import to_onnx
from export.graph import OPSET, build_graph, run_graph, run_torch
from export.parity import parity
from glnet_rt.body_model import BodyModel
from glnet_rt.probe import Probe
from train.checkpoint import save_weights
from train.model.glnet import GLNet, preset

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
        parts = [run_graph(proto, spec, images[i : i + batch]) for i in range(0, 9, batch)]
        outputs = {name: np.concatenate([p[name] for p in parts]) for name in reference}
        row = parity(body, spec, outputs, reference)
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


def test_export_writes_an_artifact_that_runs(
    tmp_path: Path, body: BodyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, probe, out = (tmp_path / n for n in ("w.safetensors", "probe.npy", "a.glnet"))
    save_weights(weights, network(body), {"images": 1, "people": 2, "data": "noise"})
    np.save(probe, crops())
    arguments = ["to_onnx", str(weights), "--out", str(out), "--probe-data", str(probe)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert to_onnx.main() == 0
    with glnet_rt.load(out) as hmr:
        report = hmr.verify()
        assert report.passed
        assert report.num_probes == 9
        result = hmr(np.zeros((80, 60, 3), np.uint8))
        assert len(result.people) == 1
        stored = Probe.read(hmr.artifact).output
        assert len({tuple(np.round(k, 3)) for k in stored.keypoints_uvd[:, 0]}) > 1
        assert hmr.artifact.read_parity()["rows"][0]["vertices_max_mm"] < 0.1
        assert "noise" in hmr.artifact.manifest.training_data


def test_a_failed_gate_writes_nothing(
    tmp_path: Path, body: BodyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, probe, out = (tmp_path / n for n in ("w.safetensors", "probe.npy", "a.glnet"))
    save_weights(weights, network(body), {})
    np.save(probe, crops())
    monkeypatch.setattr(to_onnx, "GATE_MM", -1.0)
    arguments = ["to_onnx", str(weights), "--out", str(out), "--probe-data", str(probe)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert to_onnx.main() == to_onnx.EXIT_GATE
    assert not out.exists()


def test_parity_sees_a_moved_keypoint(body: BodyModel) -> None:
    model = network(body)
    images = np.random.default_rng(1).normal(size=(2, 3, 64, 64)).astype(np.float32)
    reference = run_torch(model, images)
    moved = {**reference, "keypoints_uvd": reference["keypoints_uvd"].copy()}
    moved["keypoints_uvd"][:, 7] += 0.01
    row = parity(body, model.config.spec, moved, reference)
    assert row["vertices_max_mm"] > 1
    assert row["keypoints_max_px"] == pytest.approx(0.64, rel=1e-3)
