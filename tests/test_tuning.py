"""Tuning: what is fastest is measured within its time, remembered under what it depends on."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from glnet_rt import backends, tuning
from glnet_rt._closing import Closing
from glnet_rt.artifact import Artifact
from glnet_rt.backends.onnxruntime_ import OnnxRuntimeBackend
from glnet_rt.contracts import Array
from glnet_rt.cpu import _cgroup_quota, cpu_sha256, usable_cores
from glnet_rt.errors import BackendError
from glnet_rt.tuning import Timing, Tuning, in_turns, measure, recall, tuning_path


class Slow(Closing):
    """ONNX Runtime, and a pause before each answer."""

    name: ClassVar[str] = "slow"
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    pause_s: ClassVar[float] = 0.02
    opened: ClassVar[list[int | None]] = []

    def __init__(self, inner: OnnxRuntimeBackend, threads: int | None) -> None:
        self.inner, self.precision, self.threads = inner, "fp32", threads

    @classmethod
    def open(cls, artifact: Artifact, precision: str, *, threads: int | None) -> Slow:
        cls.opened.append(threads)
        return cls(OnnxRuntimeBackend.open(artifact, precision, threads=1), threads)

    def infer(self, crops: Array) -> Mapping[str, Array]:
        time.sleep(self.pause_s)
        return self.inner.infer(crops)

    def close(self) -> None:
        self.inner.close()


class BestWithOne(Slow):
    """Quick with one thread alone."""

    name: ClassVar[str] = "best_with_one"
    opened: ClassVar[list[int | None]] = []

    def infer(self, crops: Array) -> Mapping[str, Array]:
        time.sleep(0.002 if self.threads == 1 else 0.01)
        return self.inner.infer(crops)


class Broken(Slow):
    name: ClassVar[str] = "broken"

    @classmethod
    def open(cls, artifact: Artifact, precision: str, *, threads: int | None) -> Slow:
        raise BackendError("no such device", got="none", expected="one", fix="plug it in")


KINDS = (Broken, Slow, BestWithOne)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLNET_CACHE", str(tmp_path))
    monkeypatch.setattr(tuning, "usable_cores", lambda: 4)
    monkeypatch.setattr(tuning, "BUDGET_S", 60.0)  # a stall of the machine must not end it early
    for kind in KINDS:
        kind.opened.clear()
    return tmp_path / "tuning"


def choose(artifact: Artifact, **options: Any) -> tuple[Any, tuple[backends.Attempt, ...]]:
    session, attempts = backends.select(artifact, backends=KINDS, **options)
    session.close()
    return session, attempts


def test_the_fastest_with_its_best_number_of_threads_is_chosen(tiny_artifact: Artifact) -> None:
    session, attempts = choose(tiny_artifact, tune=True)
    assert (session.name, session.threads) == ("best_with_one", 1)
    (chosen,) = [attempt for attempt in attempts if attempt.chosen]
    assert "measured here" in chosen.reason
    assert "best_with_one fp32 with 1 threads" in chosen.reason
    assert BestWithOne.opened == [None, 2, 1, 1], "measured with each, then opened"


def test_what_was_measured_is_remembered(tiny_artifact: Artifact, cache: Path) -> None:
    choose(tiny_artifact, tune=True)
    (path,) = cache.iterdir()
    rows = json.loads(path.read_text())["timings"]
    assert [row["ms"] for row in rows] == sorted(row["ms"] for row in rows)
    for tune in (None, True):
        BestWithOne.opened.clear()
        session, attempts = choose(tiny_artifact, tune=tune)
        assert (session.name, session.threads) == ("best_with_one", 1)
        assert BestWithOne.opened == [1], "nothing was measured again"
        assert str(path) in attempts[0].reason


def test_without_tuning_the_recorded_order_counts(tiny_artifact: Artifact, cache: Path) -> None:
    session, _ = choose(tiny_artifact)
    assert session.name == "slow", "nothing is remembered, nothing is measured"
    assert not cache.exists()
    choose(tiny_artifact, tune=True)
    session, attempts = choose(tiny_artifact, tune=False)
    assert session.name == "slow"
    assert "measured" not in " ".join(map(str, attempts))


def test_a_cache_that_cannot_be_written_means_no_tuning(
    tiny_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("GLNET_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        session, attempts = choose(tiny_artifact, tune=True)
        assert session.name == "slow"
        assert Slow.opened == [None], "opened to be used, and not measured"
        assert any("not tuned" in attempt.reason for attempt in attempts)
        Slow.opened.clear()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"timings": [{"ms": 1}]}', '{"timings": 3}'])
def test_a_damaged_memory_is_told_and_measured_again(
    tiny_artifact: Artifact, cache: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    choose(tiny_artifact, tune=True)
    (path,) = cache.iterdir()
    path.write_text(content)
    assert recall(path) is None
    assert "not used" in caplog.text
    session, _ = choose(tiny_artifact, tune=True)
    assert session.name == "best_with_one"
    assert recall(path) is not None


def test_a_busy_machine_does_not_change_the_order(tiny_artifact: Artifact) -> None:
    """Something else runs in three of five of a candidate's turns."""
    pauses = itertools.cycle([0.03, 0.002, 0.03, 0.002, 0.03])

    class Disturbed(BestWithOne):
        def infer(self, crops: Array) -> Mapping[str, Array]:
            time.sleep(next(pauses))
            return self.inner.infer(crops)

    session, _ = backends.select(tiny_artifact, backends=(Slow, Disturbed), threads=1, tune=True)
    session.close()
    assert isinstance(session, Disturbed)


def test_measuring_ends_in_time(
    tiny_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "BUDGET_S", 0.0)
    monkeypatch.setattr(Slow, "pause_s", 0.5)
    names = [("slow", "fp32"), ("best_with_one", "fp32")]
    assert measure(names, None, lambda *_: None, tiny_artifact, tmp_path / "t.json") is None
    monkeypatch.setattr(tuning, "BUDGET_S", 0.5)

    def opened(backend: str, precision: str, threads: int | None) -> Any:
        return Slow.open(tiny_artifact, precision, threads=threads)

    tuned = measure(names, None, opened, tiny_artifact, tmp_path / "t.json")
    assert tuned is not None
    assert [timing.backend for timing in tuned.timings] == ["slow"]


def test_every_backend_is_measured_before_any_gets_a_second_turn() -> None:
    candidates = [("a", "int8"), ("a", "fp32"), ("a", "fp16"), ("b", "fp32"), ("b", "int8")]
    assert in_turns(candidates) == [
        ("a", "int8"), ("b", "fp32"), ("a", "fp32"), ("b", "int8"), ("a", "fp16"),
    ]  # fmt: skip


def test_another_machine_version_request_or_artifact_is_measured_by_itself(
    tiny_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests import tiny

    paths = {tuning_path(tiny_artifact, ("auto", "auto", None))}
    paths.add(tuning_path(tiny_artifact, ("auto", "auto", 2)))
    other = Artifact.open(tiny.write(tmp_path / "b.glnet", representation="direct"))
    paths.add(tuning_path(other, ("auto", "auto", None)))
    monkeypatch.setattr(tuning, "_version", lambda name: "99")
    paths.add(tuning_path(tiny_artifact, ("auto", "auto", None)))
    monkeypatch.setattr(tuning, "cpu_sha256", lambda: "another")
    paths.add(tuning_path(tiny_artifact, ("auto", "auto", None)))
    monkeypatch.setattr(tuning, "usable_cores", lambda: 64)
    paths.add(tuning_path(tiny_artifact, ("auto", "auto", None)))
    assert len(paths) == 6
    monkeypatch.undo()
    moved = tmp_path / "moved.glnet"
    moved.write_bytes(tiny_artifact.path.read_bytes())
    request = ("auto", "auto", None)
    assert tuning_path(Artifact.open(moved), request) == tuning_path(tiny_artifact, request)


def test_what_was_not_measured_comes_last() -> None:
    tuned = Tuning((Timing("a", "fp32", 2, 1.0), Timing("a", "fp32", None, 2.0)), Path("p"))
    assert tuned.place("a", "fp32") == 0
    assert tuned.threads("a", "fp32") == 2
    assert tuned.place("b", "fp32") == 2
    assert tuned.threads("b", "fp32") is None


# -- the processor --------------------------------------------------------------------------------


def test_this_machine_has_a_core_and_a_name() -> None:
    assert usable_cores() >= 1
    assert len(cpu_sha256()) == 64


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/a/b", {"a/b/cpu.max": "150000 100000", "a/cpu.max": "max 100000"}, 1.5),
        ("0::/a/b", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ("0::/", {"cpu.max": "200000 100000"}, 2.0),
        ("0::/a", {"a/cpu.max": "max 100000"}, None),
        ("0::/a", {}, None),
        (
            "3:memory:/m\n2:cpu,cpuacct:/a",
            {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"},
            3.0,
        ),
        (
            "2:cpu:/a",
            {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"},
            None,
        ),
    ],
)
def test_a_cgroups_quota_is_read(
    tmp_path: Path, membership: str, files: dict[str, str], quota: float | None
) -> None:
    (tmp_path / "membership").write_text(membership + "\n")
    for name, content in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    assert _cgroup_quota(tmp_path / "membership", tmp_path / "cgroup") == quota
