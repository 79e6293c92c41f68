"""Engines are found where they fit, and refused with reason and remedy where they do not."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from export import build_engine
from glnet_rt.artifact import MANIFEST, Artifact
from glnet_rt.engine_cache import (
    BUCKETS,
    BuildOptions,
    EngineCache,
    EngineHeader,
    EngineKey,
    cache_root,
    model_sha256,
)
from glnet_rt.errors import ArtifactError, EngineError, GlnetError
from tests import tiny

Check = Callable[[GlnetError], None]
ENGINE = bytes(range(256)) * 8


def key_of(artifact: Artifact, **other: Any) -> EngineKey:
    """An Orin's, for batch 4."""
    facts: dict[str, Any] = {
        "onnx_sha256": model_sha256(artifact, "fp32"),
        "plugin_sha256": "",
        "precision": "fp32",
        "batch": 4,
        "backend": "tensorrt",
        "tensorrt": "10.3.0",
        "cuda": "12.6",
        "sm": "sm87",
        "gpu": "Orin",
        "platform": "linux-aarch64",
    }
    return EngineKey(**{**facts, **other})


def header_of(key: EngineKey, engine: bytes = ENGINE, **options: Any) -> EngineHeader:
    digest = hashlib.sha256(engine).hexdigest()
    return EngineHeader(key, BuildOptions(**options), digest, len(engine))


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


def built_from(command: str) -> Any:
    """What the builder makes of a rebuild command; fails where it would not understand it."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "export.build_engine"]
    return build_engine.parse(words[3:])


def test_what_was_written_is_found(cache: EngineCache, tiny_artifact: Artifact) -> None:
    key = key_of(tiny_artifact)
    path = cache.write(tiny_artifact, header_of(key), ENGINE)
    found = cache.find(tiny_artifact, key)
    assert found is not None
    assert (found.path, found.header, found.read()) == (path, header_of(key), ENGINE)
    assert [p.name for p in cache.engines.iterdir()] == [path.name], "no draft is left"


def test_the_header_can_be_read_by_people(cache: EngineCache, tiny_artifact: Artifact) -> None:
    path = cache.write(tiny_artifact, header_of(key_of(tiny_artifact)), ENGINE)
    first, rest = path.read_bytes().split(b"\n", 1)
    values = json.loads(rest[: int(first.split()[3])])
    assert values["key"]["gpu"] == "Orin"
    assert values["engine_sha256"] == hashlib.sha256(ENGINE).hexdigest()


def test_where_none_was_built_there_is_none(
    cache: EngineCache, tiny_artifact: Artifact, assert_helpful: Check
) -> None:
    key = key_of(tiny_artifact)
    assert cache.find(tiny_artifact, key) is None
    cache.write(tiny_artifact, header_of(replace(key, batch=8)), ENGINE)
    assert cache.find(tiny_artifact, key) is None, "another batch size is another engine"
    error = cache.missing(tiny_artifact, key)
    assert_helpful(error)
    arguments = built_from(error.fix or "")
    assert arguments.artifact == tiny_artifact.path
    assert (arguments.precision, arguments.out) == ("fp32", cache.root)


OTHERS = {
    "onnx_sha256": "0" * 64,
    "backend": "tensorrt-rtx",
    "tensorrt": "10.13.3.9",
    "cuda": "13.0",
    "sm": "sm110",
    "gpu": "Thor",
    "platform": "linux-x86_64",
}


@pytest.mark.parametrize("name", OTHERS)
def test_one_fact_that_differs_is_named_with_both_values(
    cache: EngineCache, tiny_artifact: Artifact, name: str, assert_helpful: Check
) -> None:
    here = key_of(tiny_artifact)
    there = replace(here, **{name: OTHERS[name]})
    cache.write(tiny_artifact, header_of(there, optimization_level=5), ENGINE)
    if name == "backend":  # a TensorRT for RTX engine asks less, so turn it round
        here, there = there, here
        cache.path(tiny_artifact, here).unlink()
        cache.write(tiny_artifact, header_of(there, optimization_level=5), ENGINE)
    with pytest.raises(EngineError, match="built for something else") as caught:
        cache.find(tiny_artifact, here)
    assert_helpful(caught.value)
    wanted = f"{name}: engine {getattr(there, name)}, here {getattr(here, name)}"
    assert caught.value.got == wanted
    arguments = built_from(caught.value.fix or "")
    assert arguments.optimization_level == 5, "the engine is built again as it was"
    assert arguments.backend == here.backend


def test_every_fact_is_compared() -> None:
    compared = {*OTHERS, "plugin_sha256"}  # the plugin has its own test below
    searched = {"precision", "batch"}  # by file name
    assert compared | searched == set(EngineKey.__dataclass_fields__)


def test_all_facts_that_differ_are_named(cache: EngineCache, tiny_artifact: Artifact) -> None:
    there = key_of(tiny_artifact)
    cache.write(tiny_artifact, header_of(there), ENGINE)
    here = replace(there, gpu="Thor", sm="sm110", tensorrt="10.13.3")
    with pytest.raises(EngineError) as caught:
        cache.find(tiny_artifact, here)
    assert str(caught.value.got).count("engine ") == 3


def test_the_engine_that_fits_is_found_among_others(
    cache: EngineCache, tiny_artifact: Artifact
) -> None:
    key = key_of(tiny_artifact)
    for tensorrt in ("10.3.0", "10.13.3.9", "11.4.0"):
        cache.write(tiny_artifact, header_of(replace(key, tensorrt=tensorrt)), ENGINE)
    found = cache.find(tiny_artifact, replace(key, tensorrt="10.13.3.9"))
    assert found is not None
    assert found.header.key.tensorrt == "10.13.3.9"


@pytest.mark.parametrize("now", ["", "1" * 64])
def test_an_engine_with_the_plugin_needs_that_plugin(
    cache: EngineCache, tiny_artifact: Artifact, now: str
) -> None:
    there = key_of(tiny_artifact, plugin_sha256="0" * 64)
    cache.write(tiny_artifact, header_of(there, gather="plugin"), ENGINE)
    with pytest.raises(EngineError) as caught:
        cache.find(tiny_artifact, replace(there, plugin_sha256=now))
    assert caught.value.got == f"plugin_sha256: engine {'0' * 64}, here {now or 'none'}"
    assert built_from(caught.value.fix or "").gather == "plugin"
    assert cache.find(tiny_artifact, there) is not None


def test_an_engine_without_the_plugin_runs_beside_any(
    cache: EngineCache, tiny_artifact: Artifact
) -> None:
    key = key_of(tiny_artifact)
    cache.write(tiny_artifact, header_of(key), ENGINE)
    assert cache.find(tiny_artifact, replace(key, plugin_sha256="1" * 64)) is not None


def test_a_hardware_compatible_engine_runs_on_another_gpu(
    cache: EngineCache, tiny_artifact: Artifact
) -> None:
    key = key_of(tiny_artifact, sm="sm80", gpu="A100")
    cache.write(tiny_artifact, header_of(key, hardware_compatible=True), ENGINE)
    assert cache.find(tiny_artifact, replace(key, sm="sm90", gpu="H100")) is not None
    with pytest.raises(EngineError, match=r"cuda: engine 12\.6, here 13\.0"):
        cache.find(tiny_artifact, replace(key, sm="sm90", gpu="H100", cuda="13.0"))


def test_hardware_compatible_begins_with_ampere(
    cache: EngineCache, tiny_artifact: Artifact
) -> None:
    key = key_of(tiny_artifact, sm="sm80", gpu="A100")
    cache.write(tiny_artifact, header_of(key, hardware_compatible=True), ENGINE)
    with pytest.raises(EngineError, match="sm: engine sm80, here sm75"):
        cache.find(tiny_artifact, replace(key, sm="sm75", gpu="T4"))


def test_an_engine_built_elsewhere_for_this_gpu_is_taken(
    cache: EngineCache, tiny_artifact: Artifact
) -> None:
    """TensorRT for RTX knows its GPU by compute capability alone."""
    here = key_of(tiny_artifact, backend="tensorrt-rtx", sm="sm86", gpu="RTX 3060")
    cache.write(tiny_artifact, header_of(replace(here, cuda="", gpu="")), ENGINE)
    assert cache.find(tiny_artifact, here) is not None
    with pytest.raises(EngineError, match="sm: engine sm86, here sm89"):
        cache.find(tiny_artifact, replace(here, sm="sm89"))


# -- damage ---------------------------------------------------------------------------------------


def change_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0, 5, 20, 60, 100, 200, 400])
def test_a_changed_byte_of_the_header_is_told(
    cache: EngineCache, tiny_artifact: Artifact, at: int, assert_helpful: Check
) -> None:
    key = key_of(tiny_artifact)
    change_byte(cache.write(tiny_artifact, header_of(key), ENGINE), at)
    with pytest.raises(EngineError, match=r"header .* changed|no engine of this version") as caught:
        cache.find(tiny_artifact, key)
    assert_helpful(caught.value)
    built_from(caught.value.fix or "")


@pytest.mark.parametrize("at", [-1, -len(ENGINE), -len(ENGINE) // 2])
def test_a_changed_byte_of_the_engine_is_told(
    cache: EngineCache, tiny_artifact: Artifact, at: int, assert_helpful: Check
) -> None:
    key = key_of(tiny_artifact)
    change_byte(cache.write(tiny_artifact, header_of(key), ENGINE), at)
    found = cache.find(tiny_artifact, key)
    assert found is not None
    with pytest.raises(EngineError, match=r"engine .* was changed(.|\n)*engine_sha256") as caught:
        found.read()
    assert_helpful(caught.value)
    built_from(caught.value.fix or "")


@pytest.mark.parametrize(("cut", "message"), [(1, "truncated"), (len(ENGINE), "truncated")])
def test_a_truncated_engine_is_told(
    cache: EngineCache, tiny_artifact: Artifact, cut: int, message: str
) -> None:
    key = key_of(tiny_artifact)
    path = cache.write(tiny_artifact, header_of(key), ENGINE)
    found = cache.find(tiny_artifact, key)
    assert found is not None
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(EngineError, match=message):
        found.read()
    path.write_bytes(path.read_bytes() + bytes(2 * cut))
    with pytest.raises(EngineError, match=r"bytes to spare|was changed"):
        found.read()
    path.unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        found.read()


def test_a_cut_header_is_told(cache: EngineCache, tiny_artifact: Artifact) -> None:
    key = key_of(tiny_artifact)
    path = cache.write(tiny_artifact, header_of(key), ENGINE)
    for size in (0, 30, 200):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(EngineError):
            cache.find(tiny_artifact, key)


def test_a_header_of_another_version_is_told(cache: EngineCache, tiny_artifact: Artifact) -> None:
    """Its digest is right, so another version of this package wrote it."""
    key = key_of(tiny_artifact)
    path = cache.write(tiny_artifact, header_of(key), ENGINE)
    text = json.dumps({"key": {"moon": "full"}, "options": {}}).encode()
    first = f"glnet-rt engine 1 {len(text):08d} {hashlib.sha256(text).hexdigest()}\n".encode()
    path.write_bytes(first + text)
    with pytest.raises(EngineError, match="other fields"):
        cache.find(tiny_artifact, key)


def test_a_damaged_engine_is_no_matter_where_another_fits(
    cache: EngineCache, tiny_artifact: Artifact
) -> None:
    key = key_of(tiny_artifact)
    other = cache.write(tiny_artifact, header_of(replace(key, gpu="Thor")), ENGINE)
    change_byte(other, 100)
    cache.write(tiny_artifact, header_of(key), ENGINE)
    assert cache.find(tiny_artifact, key) is not None


@pytest.mark.parametrize("name", [MANIFEST, "model.fp32.onnx"])
def test_a_changed_byte_of_manifest_or_model_is_told_before_any_engine(
    tmp_path: Path, tiny_path: Path, name: str, assert_helpful: Check
) -> None:
    import zipfile

    folder = tmp_path / "a.glnet"
    with zipfile.ZipFile(tiny_path) as archive:
        archive.extractall(folder)
    change_byte(folder / name, 300)
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")) as caught:
        Artifact.open(folder)
    assert_helpful(caught.value)


def test_an_artifact_exported_again_needs_new_engines(
    cache: EngineCache, tmp_path: Path, tiny_artifact: Artifact
) -> None:
    key = key_of(tiny_artifact)
    cache.write(tiny_artifact, header_of(key), ENGINE)
    graph = tiny.model(tiny_artifact.spec)
    graph.doc_string = "again"
    again = Artifact.open(tiny.write(tmp_path / "again.glnet", graph=graph))
    with pytest.raises(EngineError, match="onnx_sha256: engine") as caught:
        cache.find(again, key_of(again))
    assert built_from(caught.value.fix or "").artifact == again.path


# -- the folder, and whoever shares it -------------------------------------------------------------


def test_the_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GLNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "glnet-rt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "glnet-rt"
    monkeypatch.setenv("GLNET_CACHE", str(tmp_path / "own"))
    assert EngineCache().root == tmp_path / "own"


def test_a_rebuild_command_says_no_more_than_needed(
    monkeypatch: pytest.MonkeyPatch, cache: EngineCache, tiny_artifact: Artifact
) -> None:
    monkeypatch.setenv("GLNET_CACHE", str(cache.root))
    command = cache.build_command(tiny_artifact, key_of(tiny_artifact))
    artifact = shlex.quote(str(tiny_artifact.path))
    assert command == f"python -m export.build_engine {artifact} --precision fp32"
    options = BuildOptions("plugin", 4, 512, True)
    arguments = built_from(
        cache.build_command(tiny_artifact, key_of(tiny_artifact), options, batches=(1, 2))
    )
    assert (arguments.gather, arguments.optimization_level) == ("plugin", 4)
    assert (arguments.workspace_mb, arguments.hardware_compatible) == (512, True)
    assert build_engine.parse_batches(arguments.batches) == (1, 2)
    assert build_engine.parse_batches(built_from(command).batches) == BUCKETS


def _add_one_slowly(root: str, times: int) -> None:
    cache, counter = EngineCache(root), Path(root) / "counter"
    for _ in range(times):
        with cache.lock():
            counter.write_text(str(int(counter.read_text()) + 1))


def test_processes_take_turns(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_add_one_slowly, args=(str(tmp_path), 200)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "counter").read_text() == "400"
