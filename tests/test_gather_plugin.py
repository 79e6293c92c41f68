"""The gather plugin: how it is found, what is refused, and a real engine with it inside."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from glnet_rt.backends import gather_plugin
from glnet_rt.backends.gather_plugin import LIBRARY, check_library, find_plugin, load_plugin
from glnet_rt.backends.gather_twin import kernels_sha256, read_shape, sources_sha256
from glnet_rt.errors import BackendError, GlnetError
from tests import native

Check = Callable[[GlnetError], None]
ROOT = Path(__file__).parents[1]
TENSORRT = SimpleNamespace(__name__="tensorrt", __version__="10.3.0")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own; the folder the library is looked for in."""
    monkeypatch.delenv("GLNET_PLUGIN_LIBRARY", raising=False)
    monkeypatch.setenv("GLNET_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "cache" / "plugin"
    home.mkdir(parents=True)
    return home


# -- finding --------------------------------------------------------------------------------------


def test_the_library_of_the_cache_comes_before_the_twin(cache: Path) -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    twin = find_plugin()
    assert twin is not None
    assert (twin.path, twin.sha256) == (None, sources_sha256())
    (cache / LIBRARY).write_bytes(b"library")
    found = find_plugin()
    assert found is not None
    assert found.path == cache / LIBRARY
    assert found.sha256 == hashlib.sha256(b"library").hexdigest()


def test_a_named_library_comes_first(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (cache / LIBRARY, tmp_path / "variable.so", tmp_path / "argument.so"):
        place.write_bytes(place.name.encode())
    monkeypatch.setenv("GLNET_PLUGIN_LIBRARY", str(tmp_path / "variable.so"))
    found = [find_plugin(), find_plugin(tmp_path / "argument.so")]
    assert [plugin.path.name for plugin in found] == ["variable.so", "argument.so"]  # type: ignore[union-attr]


def test_a_named_library_that_is_missing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assert_helpful: Check
) -> None:
    monkeypatch.setenv("GLNET_PLUGIN_LIBRARY", str(tmp_path / "nowhere.so"))
    with pytest.raises(BackendError, match=r"nowhere\.so") as caught:
        find_plugin()
    assert_helpful(caught.value)


def test_without_library_and_bindings_the_fix_is_told(
    monkeypatch: pytest.MonkeyPatch, assert_helpful: Check
) -> None:
    monkeypatch.setattr(gather_plugin, "find_spec", lambda name: None)
    assert find_plugin() is None
    with pytest.raises(BackendError, match=r"pip install(.|\n)*cmake -S export/plugin") as caught:
        load_plugin(TENSORRT)
    assert_helpful(caught.value)


# -- checking a library ---------------------------------------------------------------------------


def library(folder: Path, **changes: str) -> Path:
    """A shared library that answers as the plugin's does, built here."""
    facts = {"name": "PartPointGather", "version": "1", "tensorrt": "tensorrt 10.7"}
    text = json.dumps(facts | {"kernels": kernels_sha256()} | changes)
    source = folder / "info.cpp"
    source.write_text(f'extern "C" const char* glnet_rt_plugin_info() {{ return R"({text})"; }}\n')
    return Path(native.build_library(source)._name)


def test_a_library_of_these_kernels_and_this_major_version_is_taken(tmp_path: Path) -> None:
    check_library(TENSORRT, library(tmp_path))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"version": "2"}, "plugin version 2"),
        ({"kernels": "0" * 64}, "kernel sources 0000"),
        ({"tensorrt": "tensorrt 11.4"}, r"TensorRT tensorrt 11(.|\n)*TensorRT tensorrt 10"),
        ({"tensorrt": "tensorrt_rtx 10.3"}, "TensorRT tensorrt_rtx 10"),
    ],
)
def test_a_library_of_something_else_is_refused(
    tmp_path: Path, changes: dict[str, str], told: str, assert_helpful: Check
) -> None:
    with pytest.raises(BackendError, match=rf"something else(.|\n)*{told}") as caught:
        check_library(TENSORRT, library(tmp_path, **changes))
    assert_helpful(caught.value)
    assert "cmake --build" in str(caught.value.fix)


def test_a_file_that_is_no_plugin_is_refused(tmp_path: Path, assert_helpful: Check) -> None:
    text, other = tmp_path / "text.so", tmp_path / "other.cpp"
    text.write_text("no ELF")
    other.write_text('extern "C" int something() { return 0; }\n')
    for path in (text, Path(native.build_library(other)._name)):
        with pytest.raises(BackendError, match="no gather plugin that runs here") as caught:
            check_library(TENSORRT, path)
        assert_helpful(caught.value)


class Registry:
    """TensorRT's registry as far as registration goes, deaf if told to be."""

    def __init__(self, deaf: bool = False, taken: bool = False) -> None:
        self.deaf, self.known = deaf, taken

    def get_creator(self, name: str, version: str, namespace: str) -> object | None:
        assert (name, version, namespace) == ("PartPointGather", "1", "glnet_rt")
        return self if self.known else None

    def load_library(self, path: str) -> None:
        self.known = not self.deaf


@pytest.mark.parametrize(
    ("registry", "told"),
    [(Registry(deaf=True), "does not take"), (Registry(taken=True), "registered already")],
)
def test_a_registration_that_fails_is_an_error(
    tmp_path: Path, registry: Registry, told: str, assert_helpful: Check
) -> None:
    class Module:
        __name__, __version__ = "tensorrt", "10.3.0"
        get_plugin_registry = staticmethod(lambda: registry)

    with pytest.raises(BackendError, match=told) as caught:
        load_plugin(Module(), library(tmp_path))
    assert_helpful(caught.value)


@pytest.mark.parametrize(
    ("features", "points"),
    [
        ((2, 8, 4), (2, 5, 2)),
        ((2, 8, 4, 4), (2, 5)),
        ((2, 8, 4, 4), (3, 5, 2)),
        ((2, 8, 4, 4), (2, 5, 3)),
        ((2, 8, 0, 4), (2, 5, 2)),
    ],
)
def test_tensors_that_break_the_contract_are_refused(
    features: tuple[int, ...], points: tuple[int, ...], assert_helpful: Check
) -> None:
    with pytest.raises(BackendError, match="cannot read these tensors") as caught:
        read_shape(features, points)
    assert_helpful(caught.value)


# -- real engines ---------------------------------------------------------------------------------

# What the node means, in standard operators, for whoever has no plugin.
BODY = """
<domain: "glnet_rt", opset_import: ["" : 20]>
PartPointGather <plugin_namespace, plugin_version> (features, points) => (read)
{
  sizes = Constant <value_floats: floats = [31.0, 15.0]> ()
  two = Constant <value_float: float = 2.0> ()
  one = Constant <value_float: float = 1.0> ()
  doubled = Mul (points, two)
  scaled = Div (doubled, sizes)
  grid = Sub (scaled, one)
  axis = Constant <value_ints: ints = [2]> ()
  rows = Unsqueeze (grid, axis)
  map = Cast <to: int = 1> (features)
  sampled = GridSample <align_corners: int = 1, mode: string = "linear", padding_mode: string = "border"> (map, rows)
  last = Constant <value_ints: ints = [3]> ()
  columns = Squeeze (sampled, last)
  turned = Transpose <perm: ints = [0, 2, 1]> (columns)
  read = CastLike (turned, features)
}
"""  # noqa: E501


def write_model(path: Path, half: bool, body: bool) -> Path:
    """image [2, 3, 16, 32] -> convolution -> the gather at points [2, 29, 2] -> [2, 64, 29]."""
    kind, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    weights = np.random.default_rng(0).normal(size=(64, 3, 3, 3)).astype(dtype)
    attributes = {"plugin_namespace": "glnet_rt", "plugin_version": "1"}
    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["features"], "convolution", pads=[1] * 4),
        helper.make_node(
            "PartPointGather", ["features", "points"], ["read"], "gather", "", "glnet_rt",
            **attributes,
        ),
        helper.make_node("Transpose", ["read"], ["output"], "after", perm=[0, 2, 1]),
    ]  # fmt: skip
    inputs = [("image", kind, [2, 3, 16, 32]), ("points", TensorProto.FLOAT, [2, 29, 2])]
    graph = helper.make_graph(
        nodes,
        "gather",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info("output", kind, [2, 64, 29])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("glnet_rt", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if body:
        model.functions.append(parser.parse_function(BODY))
    onnx.save(model, path)
    return path


def build(*arguments: object) -> dict[str, Any]:
    """What `tests.build_rtx_engine` reports."""
    pytest.importorskip("tensorrt_rtx_libs", reason="tensorrt-rtx is not installed")
    command = [sys.executable, "-m", "tests.build_rtx_engine", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("sm", ["SM86", "SM89", "SM120"])
@pytest.mark.parametrize("half", [False, True])
def test_an_engine_is_built_with_the_plugin_in_it(tmp_path: Path, half: bool, sm: str) -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    built = build(write_model(tmp_path / "model.onnx", half, body=True), sm, "--plugin")
    assert built["layers"]["gather"] == "PLUGIN_V3"
    assert built["types"]["gather"] == ("HALF" if half else "FLOAT")
    assert built["shapes"]["gather"] == [2, 29, 64]
    assert built["holds_namespace"]
    assert built["plugin"] == sources_sha256()
    assert built["bytes"] > 10_000


@pytest.mark.slow
def test_the_compiled_library_goes_into_an_engine_too(tmp_path: Path) -> None:
    headers = os.environ.get("TENSORRT_RTX_ROOT")
    if headers is None or shutil.which("nvcc") is None or shutil.which("cmake") is None:
        pytest.skip("needs nvcc, cmake, and $TENSORRT_RTX_ROOT with TensorRT for RTX's headers")
    settings = [f"-DTENSORRT_ROOT={headers}", "-DCMAKE_CUDA_ARCHITECTURES=89"]
    folder = tmp_path / "build"
    for command in (["-S", ROOT / "export/plugin", "-B", folder, *settings], ["--build", folder]):
        subprocess.run(["cmake", *command], check=True, capture_output=True)
    model = write_model(tmp_path / "model.onnx", half=True, body=True)
    built = build(model, "SM89", "--plugin", "--library", folder / LIBRARY)
    assert built["layers"]["gather"] == "PLUGIN_V3"
    assert built["plugin"] == hashlib.sha256((folder / LIBRARY).read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
def test_without_the_plugin_the_function_body_is_built(tmp_path: Path, half: bool) -> None:
    built = build(write_model(tmp_path / "model.onnx", half, body=True), "SM89")
    assert "GRID_SAMPLE" in built["layers"].values()
    assert "PLUGIN_V3" not in built["layers"].values()
    assert not built["holds_namespace"]


@pytest.mark.slow
def test_with_neither_plugin_nor_body_nothing_is_built(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Plugin not found"):
        build(write_model(tmp_path / "model.onnx", half=False, body=False), "SM89")
