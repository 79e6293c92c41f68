"""The person detector's file tells what torch tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from export.detector import export
from glnet_rt.cli.demo import CLIP
from glnet_rt.contracts import Frame
from glnet_rt.detect.onnx_ import OnnxConfig, OnnxDetector, letterbox
from glnet_rt.detect.own import OWN_PATH
from glnet_rt.stream import open_source
from train.detector.fit import load_detector, save_detector
from train.detector.model import Deployed, Detector

WEIGHTS = Path(__file__).resolve().parents[2] / "weights/detector.safetensors"


def test_export_runs_as_torch_does_and_finds_the_same(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Detector().eval()
    torch.nn.init.normal_(model.centre.weight, std=0.5)
    torch.nn.init.zeros_(model.centre.bias)
    save_detector(tmp_path / "w.safetensors", model, {})
    size = export(tmp_path / "w.safetensors", tmp_path / "detector.onnx")
    assert size < 2_000_000
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3)).astype(np.uint8)
    rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        boxes, scores = (v[0].numpy() for v in Deployed(model)(rgb))
    detector = OnnxDetector(
        tmp_path / "detector.onnx", OnnxConfig(score=0.2, overlap=1.0, input_px=128)
    )
    assert detector.layout == "boxes"
    found = detector(Frame(image))
    wanted = boxes[scores > 0.2].clip(0, (128, 96, 128, 96))
    wide = (wanted[:, 2:] - wanted[:, :2]).min(1) >= 4
    assert len(found) > 0
    assert abs(len(found) - wide.sum()) <= 1  # half-precision kernels move who is on the edge
    nearest = np.abs(found.boxes[:, None] - wanted[None]).max(-1).min(1)
    assert np.median(nearest) < 0.5


def test_the_package_holds_the_detector_of_the_weights() -> None:
    """After new weights: python -m export.detector weights/detector.safetensors FILE."""
    model, _ = load_detector(WEIGHTS)
    with open_source(CLIP) as source:
        frame = next(iter(source))
    picture, _ = letterbox(frame.image, (256, 160))
    with torch.no_grad():
        boxes, scores = (v[0].numpy() for v in Deployed(model)(torch.from_numpy(picture)))
    surest = int(scores.argmax())
    with OnnxDetector(OWN_PATH, OnnxConfig(score=0.0, overlap=1.0, input_px=256)) as detector:
        told = detector._infer(picture)
    assert OWN_PATH.stat().st_size < 1_000_000
    assert abs(told["scores"].max() - scores[surest]) < 0.01
    np.testing.assert_allclose(told["boxes"][0, surest], boxes[surest], atol=0.5)
