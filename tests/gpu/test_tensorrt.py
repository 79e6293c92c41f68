"""Whatever TensorRT is here builds the shipped network's engines, which say what the CPU says."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glnet_rt
from glnet_rt.artifact import DEFAULT_PATH, Artifact
from glnet_rt.backends.onnxruntime_ import OnnxRuntimeBackend
from glnet_rt.backends.tensorrt_ import TensorRTBackend, TensorRTRtxBackend
from glnet_rt.backends.trt import MODULES
from glnet_rt.contracts import Array
from glnet_rt.errors import EngineError
from glnet_rt.probe import Probe

ROOT = Path(__file__).parents[2]
KINDS = {kind.name: kind for kind in (TensorRTBackend, TensorRTRtxBackend)}
# float32, but TensorRT may take other kernels from size to size, and sums in another order.
TOLERANCE = 2e-3

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", params=MODULES)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One that is installed, with engines of the shipped network in a cache of its own."""
    if importlib.util.find_spec(MODULES[request.param]) is None:
        pytest.skip(f"{request.param} is not installed")
    cache = tmp_path_factory.mktemp(request.param)
    command = [sys.executable, "-m", "export.build_engine", str(DEFAULT_PATH), "--json"]
    command += ["--backend", request.param, "--batches", "1,4"]
    environment = {**os.environ, "GLNET_CACHE": str(cache)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLNET_CACHE", str(cache))
        yield KINDS[request.param], json.loads(done.stdout)


def crops(artifact: Artifact, count: int) -> Array:
    """The probe's crops, again and again."""
    batch = Probe.read(artifact).crops_bgr
    return np.ascontiguousarray(np.resize(batch, (count, *batch.shape[1:])))


def test_the_report_tells_what_the_engine_computes_in(backend: Any) -> None:
    _, report = backend
    for row in report["engines"]:
        assert row["engine"]["fp32"] > 10
        assert all(layer["name"] for layer in row["layers"])


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_outputs_are_those_of_onnx_runtime(backend: Any, count: int) -> None:
    kind, _ = backend
    artifact = Artifact.open()
    batch = crops(artifact, count)
    with OnnxRuntimeBackend.open(artifact, "fp32") as reference:
        wanted = reference.infer(batch)
    with kind.open(artifact, "fp32") as session:
        output = session.infer(batch)
    same = output["pixel"] == wanted["pixel"]
    assert same.mean() > 0.8, "near ties may fall the other way, and no more than that"
    for name in artifact.spec.output_shapes:
        if name != "pixel":
            np.testing.assert_allclose(
                output[name][same], wanted[name][same], atol=TOLERANCE, rtol=TOLERANCE
            )


def test_bodies_are_within_the_artifacts_own_tolerance(backend: Any) -> None:
    kind, _ = backend
    with glnet_rt.load(backend=kind.name) as hmr:
        assert hmr.backend.name == kind.name
        report = hmr.verify()
    assert report.passed, str(report)


def test_repeated_inference_gives_the_same_bytes(backend: Any) -> None:
    kind, _ = backend
    artifact = Artifact.open()
    batch = crops(artifact, 4)
    with kind.open(artifact, "fp32") as session:
        first = session.infer(batch)
        for _ in range(20):
            again = session.infer(batch)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])


def test_a_damaged_engine_is_told_before_tensorrt_sees_it(backend: Any) -> None:
    kind, report = backend
    path = Path(report["engines"][0]["path"])
    good = path.read_bytes()
    try:
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(EngineError, match="was changed"):
            kind.open(Artifact.open(), "fp32")
    finally:
        path.write_bytes(good)
