"""Real engines, built by TensorRT for RTX for GPUs that are not here. What they compute is not run.

Each in a process of its own: TensorRT may abort it, and keeps plugins for as long as it lives.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import build_engine
from export.build import Source, build_models
from export.crops import Crops
from export.graph import build_graph, run_graph, serialised
from export.random_network import random_preset
from glnet_rt.artifact import (
    BODY,
    DEFAULT_PATH,
    PARITY,
    PROBE,
    Artifact,
    model_name,
    write_artifact,
)
from glnet_rt.backends.device import Gpu
from glnet_rt.backends.gather_plugin import find_plugin
from glnet_rt.backends.trt import TensorRT
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import NetOutput
from glnet_rt.engine_cache import EngineCache, EngineFile, model_sha256
from glnet_rt.errors import EngineError
from glnet_rt.probe import Probe
from tests import tiny

ROOT = Path(__file__).parents[2]
TARGETS = ("sm86", "sm89", "sm120")
W32_BYTES = 28_000_000  # of its convolutions' weights, one byte each

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="module")
def w32_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of W32, whose weights are random and whose models are made as all are."""
    body_bytes = (DEFAULT_PATH.parent / "body.npz").read_bytes()
    body = BodyModel.from_bytes(body_bytes, BODY)
    model = random_preset("w32", body, seed=0)
    spec = model.config.spec
    crops = Crops(np.stack([tiny.picture(i, spec.input_size, spec.input_size) for i in range(4)]))
    source = Source(model, False, "none", body_bytes, body, crops, crops, 0)
    graph = build_graph(model)
    models = build_models(source, graph, ("fp16", "int8"), 0)
    answers = run_graph(graph, spec, crops.images(spec)[:1])
    probe = Probe(crops.bgr[:1], NetOutput.from_arrays(spec, answers))
    files = {model_name(name): serialised(models[name]) for name in ("fp16", "int8")}
    files |= {BODY: body_bytes, PROBE: probe.to_bytes(spec), PARITY: b"{}"}
    manifest = replace(source.manifest("w32", "none"), precisions=("fp16", "int8"))
    return write_artifact(tmp_path_factory.mktemp("w32") / "w32.glnet", manifest, files)


def built(target: str, artifact: Path, cache: Path, *options: str) -> dict[str, Any]:
    """The builder's report on one engine."""
    command = [sys.executable, "-m", "export.build_engine", str(artifact), "--target", target]
    command += ["--batches", "1", "--out", str(cache), "--json", *options]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (row,) = report["engines"]
    return {**report, **row}


def found(artifact: Path, cache: Path, report: dict[str, Any], sm: str) -> EngineFile:
    """The engine that a machine with such a GPU, and with our plugin, finds."""
    opened, precision = Artifact.open(artifact), report["precision"]
    trt, plugin = TensorRT.load("tensorrt-rtx"), find_plugin()
    key = trt.key(model_sha256(opened, precision), precision, 1, Gpu("GeForce", sm, "13.0"))
    here = replace(key, plugin_sha256=plugin.sha256 if plugin else "")
    engine = EngineCache(cache).find(opened, here)
    assert engine is not None
    return engine


def test_the_shipped_network_becomes_a_real_engine(tmp_path: Path) -> None:
    report = built("sm86", DEFAULT_PATH, tmp_path)
    assert report["network"]["fp32"] > 50
    assert "not read back" in report["notes"][0]
    engine = found(DEFAULT_PATH, tmp_path, report, "sm86")
    assert len(engine.read()) == report["bytes"] > 10_000_000
    again = build_engine.parse(engine.rebuild.split()[3:])
    assert (again.backend, again.target, again.out) == ("tensorrt-rtx", None, tmp_path)
    with pytest.raises(EngineError, match="sm: engine sm86, here sm89"):
        found(DEFAULT_PATH, tmp_path, report, "sm89")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("gather", ["native", "plugin"])
def test_w32_becomes_real_engines(
    tmp_path: Path, w32_path: Path, target: str, precision: str, gather: str
) -> None:
    report = built(target, w32_path, tmp_path, "--precision", precision, "--gather", gather)
    counts = report["network"]
    assert max(counts, key=counts.get) == precision, "most of the network is in that precision"
    assert counts[precision] > 250
    assert (report["gather"], report["bytes"] > W32_BYTES) == (gather, True)
    header = found(w32_path, tmp_path, report, target).header
    assert bool(header.key.plugin_sha256) == (gather == "plugin")
