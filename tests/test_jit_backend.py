"""The backend of compiled convolutions: beside ONNX Runtime, from many threads, and refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from glnet_rt import backends
from glnet_rt.artifact import Artifact
from glnet_rt.backends import jit_
from glnet_rt.backends.base import run
from glnet_rt.backends.jit import _code
from glnet_rt.backends.jit_ import JitBackend
from glnet_rt.backends.onnxruntime_ import OnnxRuntimeBackend
from glnet_rt.errors import BackendError, GlnetError
from glnet_rt.probe import Probe

pytest.importorskip("openvino")
Check = Callable[[GlnetError], None]
LEVEL = _code.LEVEL
pytestmark = pytest.mark.skipif(bool(_code.missing("f32")), reason="this CPU has no AVX2")


@pytest.fixture(scope="module")
def shipped() -> Artifact:
    return Artifact.open()


@pytest.fixture
def session(shipped: Artifact) -> Iterator[JitBackend]:
    with JitBackend.open(shipped, "packed", threads=2) as opened:
        yield opened


def test_it_says_what_onnx_runtime_says(shipped: Artifact, session: JitBackend) -> None:
    crops = Probe.read(shipped).crops_bgr
    with OnnxRuntimeBackend.open(shipped, "packed", threads=1) as other:
        wanted = run(other, crops, shipped.spec)
    output = run(session, crops, shipped.spec)
    np.testing.assert_array_equal(output.pixel, wanted.pixel)
    for name in shipped.spec.output_shapes:
        theirs = getattr(wanted, name)
        apart = np.abs(getattr(output, name) - theirs).max()
        assert apart < 1e-5 * max(1, np.abs(theirs).max()), name


def test_several_people_are_as_if_each_was_alone(shipped: Artifact, session: JitBackend) -> None:
    crops = Probe.read(shipped).crops_bgr[:7]
    alone = [session.infer(crop[None]) for crop in crops]
    for name, values in session.infer(crops).items():
        np.testing.assert_array_equal(values, np.concatenate([one[name] for one in alone]))


def test_many_threads_may_share_a_session(shipped: Artifact, session: JitBackend) -> None:
    crops = Probe.read(shipped).crops_bgr
    wanted = session.infer(crops)["keypoints_uvd"]
    apart: list[float] = []

    def work(index: int) -> None:
        for i in range(6):
            who = (index + i) % len(crops)
            told = session.infer(crops[who][None])["keypoints_uvd"]
            apart.append(float(np.abs(told - wanted[who]).max()))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(apart) == 30
    assert max(apart) == 0.0


def test_the_next_inference_leaves_the_last_alone(shipped: Artifact, session: JitBackend) -> None:
    crops = Probe.read(shipped).crops_bgr
    first = session.infer(crops[:1])["keypoints_uvd"]
    copied = first.copy()
    session.infer(crops[1:2])
    np.testing.assert_array_equal(first, copied)


def test_a_closed_session_says_so(shipped: Artifact, assert_helpful: Check) -> None:
    session = JitBackend.open(shipped, "packed", threads=1)
    session.close()
    session.close()
    with pytest.raises(BackendError, match="jit session is closed") as caught:
        session.infer(Probe.read(shipped).crops_bgr[:1])
    assert_helpful(caught.value)


def test_it_can_be_named_and_is_measured_with_the_others(
    shipped: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("GLNET_CACHE", str(tmp_path))
    named, _ = backends.select(shipped, "jit", threads=1)
    named.close()
    assert (named.name, named.precision) == ("jit", "packed")
    monkeypatch.setattr("glnet_rt.tuning.BUDGET_S", 60)
    chosen, attempts = backends.select(shipped, threads=1, tune=True)
    chosen.close()
    assert "jit packed" in next(attempt.reason for attempt in attempts if attempt.chosen)


@pytest.mark.parametrize(
    ("kind", "precision"), [("f32", "fp32"), (LEVEL, "int8"), ("bf16", "bf16")]
)
def test_a_cpu_without_the_instructions_is_told(
    shipped: Artifact, monkeypatch: pytest.MonkeyPatch, assert_helpful: Check, kind: str,
    precision: str,
) -> None:  # fmt: skip
    feature = _code.NEEDS[kind][0]
    monkeypatch.setattr(_code, "FEATURES", _code.FEATURES - {feature})
    with pytest.raises(BackendError, match=f"no {precision} kernels for this CPU") as caught:
        JitBackend.open(shipped, precision, threads=1)
    assert_helpful(caught.value)
    assert feature in (caught.value.got or "")


def test_a_network_of_another_form_is_refused(
    tiny_artifact: Artifact, assert_helpful: Check
) -> None:
    """The tests' own small model: its convolutions have eight channels."""
    with pytest.raises(BackendError, match="no kernels for this network") as caught:
        JitBackend.open(tiny_artifact, "fp32", threads=1)
    assert_helpful(caught.value)
    assert f"{jit_.LEAST_SHARE:.0%}" in (caught.value.expected or "")
