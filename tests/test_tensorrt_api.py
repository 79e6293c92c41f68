"""Everything our code asks of TensorRT exists in the oldest, a middle and the newest version.

What is asked is read off the source. A variable's name tells which of TensorRT's classes it holds,
and an attribute on a variable of another name that only TensorRT could have fails the test.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.standin import VERSIONS, members

ROOT = Path(__file__).parents[1]
SOURCES = (
    ROOT / "export/build_engine.py",
    ROOT / "glnet_rt/backends/tensorrt_.py",
    ROOT / "glnet_rt/backends/trt.py",
)
CLASSES = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "layer": "ILayer",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "tensor": "ITensor",
    "timing_cache": "ITimingCache",
}
# Asked of TensorRT for RTX alone, behind `is_rtx`.
RTX_ONLY = {
    ("", "ComputeCapability"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
}
MODULES = ("module", "self.module", "trt.module", "self._trt.module")


@dataclass(frozen=True)
class Asked:
    """One attribute that our code asks of TensorRT: of which class ("" the module), and where."""

    kind: str
    name: str
    where: str


@cache
def asked() -> tuple[Asked, ...]:
    """Every attribute asked for, and every method of TensorRT's that a class of ours overrides."""
    found = []
    for path, tree in trees():
        for node in ast.walk(tree):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute):
                kind = kind_of(node.value)
                if kind is not None and not node.attr.startswith("__"):
                    found.append(Asked(kind, node.attr, where))
            elif isinstance(node, ast.ClassDef):
                bases = [b.attr for b in node.bases if isinstance(b, ast.Attribute)]
                methods = [m.name for m in node.body if isinstance(m, ast.FunctionDef)]
                found += [Asked(b, m, where) for b in bases for m in methods if m[:2] != "__"]
    return tuple(found)


@cache
def trees() -> tuple[tuple[Path, ast.Module], ...]:
    return tuple((path, ast.parse(path.read_text())) for path in SOURCES)


def kind_of(receiver: ast.expr) -> str | None:
    """The TensorRT class that an expression is of, "" for the module, None where it is ours."""
    text = ast.unparse(receiver)
    if text in MODULES:
        return ""
    if isinstance(receiver, ast.Attribute) and ast.unparse(receiver.value) in MODULES:
        return receiver.attr
    return CLASSES.get(text)


def lacking(held: dict[str, list[str]], wanted: Iterable[Asked]) -> list[str]:
    return [
        f"{one.where}: {one.kind or 'the module'} has no {one.name}"
        for one in wanted
        if one.name not in held.get(one.kind, ())
    ]


def test_the_source_asks_for_much() -> None:
    pairs = {(one.kind, one.name) for one in asked()}
    assert {one.kind for one in asked()} >= {"", "LayerType", "DataType", *CLASSES.values()}
    assert ("Builder", "build_serialized_network") in pairs
    assert ("IExecutionContext", "execute_async_v3") in pairs
    assert ("IProgressMonitor", "step_complete") in pairs
    assert pairs >= RTX_ONLY


@pytest.mark.parametrize(("package", "version"), VERSIONS)
def test_every_version_has_what_is_asked(package: str, version: str) -> None:
    wanted = [one for one in asked() if (one.kind, one.name) not in RTX_ONLY]
    assert lacking(members(package, version), wanted) == []


def test_tensorrt_for_rtx_has_what_is_asked() -> None:
    module = pytest.importorskip("tensorrt_rtx")
    held = {n: dir(getattr(module, n)) for n in dir(module) if isinstance(getattr(module, n), type)}
    assert lacking({"": dir(module), **held}, asked()) == []


@pytest.mark.parametrize(("package", "version"), VERSIONS)
def test_nothing_is_asked_past_this_test(package: str, version: str) -> None:
    """What only TensorRT's classes have is asked of variables that are known to hold them."""
    held = {name for names in members(package, version).values() for name in names}
    only_theirs = {name for name in held if "_" in name.strip("_")} - ours()
    known = {one.where for one in asked()}
    stray = [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in only_theirs
        and f"{path.name}:{node.lineno}" not in known
    ]
    assert stray == []


def ours() -> set[str]:
    """Names of functions, methods and fields of our own."""
    names = set()
    for path in (*(ROOT / "glnet_rt").rglob("*.py"), ROOT / "export/build_engine.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.AnnAssign):
                names.add(ast.unparse(node.target).removeprefix("self."))
    options = re.findall(r'"--([a-z-]+)"', (ROOT / "export/build_engine.py").read_text())
    return names | {option.replace("-", "_") for option in options}


def test_a_missing_attribute_would_be_noticed() -> None:
    held = members(*VERSIONS[0])
    wanted = [Asked("IBuilderConfig", "set_flag", "a"), Asked("BuilderFlag", "WARP_SPEED", "b")]
    assert lacking(held, wanted) == ["b: BuilderFlag has no WARP_SPEED"]
