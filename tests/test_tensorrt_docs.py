"""The troubleshooting table of docs/tensorrt.md is made of errors that the code really raises."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs/tensorrt.md"
SOURCES = (
    "export/build_engine.py",
    "glnet_rt/backends/device.py",
    "glnet_rt/backends/onnxruntime_.py",
    "glnet_rt/backends/tensorrt_.py",
    "glnet_rt/backends/trt.py",
    "glnet_rt/engine_cache.py",
)
ANY = "…"


@cache
def raised() -> tuple[str, ...]:
    """First arguments of every error made in the sources, with `…` for what is filled in."""
    calls = [
        node
        for source in SOURCES
        for node in ast.walk(ast.parse((ROOT / source).read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error") and node.args
    ]
    return tuple(template_of(call.args[0]) for call in calls)


def template_of(text: ast.expr) -> str:
    if isinstance(text, ast.Constant):
        return str(text.value)
    assert isinstance(text, ast.JoinedStr), ast.unparse(text)
    return "".join(str(p.value) if isinstance(p, ast.Constant) else ANY for p in text.values)


def rows() -> list[str]:
    text = DOCS.read_text()
    table = text[text.index("| Error |") : text.index("## Proof")]
    return re.findall(r"^\| `([^`]+)` \|", table, re.M)


def fits(row: str, template: str) -> bool:
    """Whether a row says what the template becomes with something filled in."""
    parts = map(re.escape, template.split(ANY))
    return re.fullmatch(".+".join(parts), row, re.S) is not None


@pytest.mark.parametrize("row", rows())
def test_every_row_is_an_error_of_the_code(row: str) -> None:
    assert any(fits(row, template) for template in raised())


def test_every_error_about_engines_has_a_row() -> None:
    options = ("--batches", "--workspace", "TensorRT for RTX has no")  # wrong usage explains itself
    wanted = [
        template
        for template in raised()
        if re.search("engine|GPU|TensorRT", template) and not template.startswith(options)
    ]
    assert len(wanted) > 10
    told = rows()
    assert [t for t in wanted if not any(fits(row, t) for row in told)] == []


@pytest.mark.parametrize("path", sorted((ROOT / "docs/docker").iterdir()), ids=lambda p: p.name)
def test_dockerfiles_install_extras_that_exist(path: Path) -> None:
    text = path.read_text()
    assert f"docker build -f docs/docker/{path.name}" in text
    (extras,) = re.findall(r'install [^\n]*"\.\[([\w,]+)\]"', text)
    declared = (ROOT / "setup.py").read_text()
    for extra in extras.split(","):
        assert f'"{extra}":' in declared
