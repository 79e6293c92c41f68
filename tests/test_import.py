"""The run time imports fast, and without anything that only training or export needs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import glnet_rt

ROOT = Path(__file__).parents[1]
FORBIDDEN = ("torch", "tensorrt", "train", "export")
HEAVY = ("cv2", "numba", "onnxruntime", "scipy", "rich", "typer")
# Starts every process below: a finder, asked before all others, that refuses the forbidden.
BLOCK = f"""
import importlib.abc, json, sys, time
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FORBIDDEN!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Refuse())
"""


def in_fresh_python(code: str) -> Any:
    """Run code in a new interpreter with the forbidden blocked; the JSON it prints."""
    command = [sys.executable, "-c", BLOCK + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_block_blocks() -> None:
    caught = in_fresh_python(f"""
caught = []
for name in {FORBIDDEN!r}:
    try:
        __import__(name)
    except ImportError as error:
        caught.append(str(error))
print(json.dumps(caught))
""")
    assert caught == [f"blocked: {name}" for name in FORBIDDEN]


def test_import_is_fast_and_light() -> None:
    code = """
started = time.perf_counter()
import glnet_rt
seconds = time.perf_counter() - started
print(json.dumps([seconds, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    runs = [in_fresh_python(code) for _ in range(5)]
    assert statistics.median(seconds for seconds, _ in runs) < 0.3
    for _, loaded in runs:
        assert not set(loaded) & {*HEAVY, *FORBIDDEN}


def test_the_data_types_need_numpy_alone() -> None:
    loaded = in_fresh_python("""
import glnet_rt
glnet_rt.Frame, glnet_rt.Crop, glnet_rt.NetSpec, glnet_rt.Result, glnet_rt.SourceError
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
""")
    assert "numpy" in loaded
    assert not set(loaded) & {*HEAVY, *FORBIDDEN}


def test_every_module_imports_without_training_and_export() -> None:
    modules = in_fresh_python("""
import importlib, pkgutil
import glnet_rt
names = [m.name for m in pkgutil.walk_packages(glnet_rt.__path__, "glnet_rt.")]
for name in names:
    if not name.endswith("__main__"):  # that one is there to run
        importlib.import_module(name)
print(json.dumps(names))
""")
    assert {"glnet_rt.estimator", "glnet_rt.backends.onnxruntime_", "glnet_rt.decode"} <= set(
        modules
    )


def test_the_miniature_runs_without_training_and_export(tiny_path: Path) -> None:
    people = in_fresh_python(f"""
import numpy
import glnet_rt
with glnet_rt.load({str(tiny_path)!r}) as hmr:
    assert hmr.verify().passed
    result = hmr(numpy.zeros((60, 50, 3), numpy.uint8))
print(json.dumps(len(result.people)))
""")
    assert people == 1


@pytest.mark.parametrize("name", glnet_rt.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(glnet_rt, name) is not None
    assert name in dir(glnet_rt)


def test_the_public_face_is_complete() -> None:
    """Everything `__getattr__` knows is listed, and the errors all are."""
    from glnet_rt import _HOME, errors

    assert sorted([*_HOME, "__version__"]) == sorted(glnet_rt.__all__)
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.GlnetError)
    }
    assert kinds <= set(glnet_rt.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        glnet_rt.nothing  # noqa: B018


def test_the_version_stands_in_one_place() -> None:
    assert glnet_rt.__version__ == "0.1.0"
    assert glnet_rt.__version__ in (ROOT / "glnet_rt" / "_version.py").read_text()
