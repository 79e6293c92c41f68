"""Without a driver, a device or a package, each binding says what is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from glnet_rt.backends.cuda.binding import NoDriverError, open_binding
from glnet_rt.backends.cuda.memory import ALIGNMENT, Layout
from glnet_rt.errors import ContractError, GlnetError, MissingDependencyError

Check = Callable[[GlnetError], None]


def test_an_unknown_binding_is_refused() -> None:
    with pytest.raises(ContractError, match="no such CUDA binding"):
        open_binding("cupy")


@pytest.mark.parametrize(
    ("name", "package"), [("cuda-bindings", "cuda.bindings"), ("pycuda", "pycuda.driver")]
)
def test_a_missing_package_is_told_with_the_command(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch, assert_helpful: Check
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match="pip install") as caught:
        open_binding(name)
    assert_helpful(caught.value)


def test_a_missing_driver_is_told(assert_helpful: Check) -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="no cuda-bindings")
    try:
        driver.cuInit(0)
    except RuntimeError:
        pass
    else:
        pytest.skip("this machine has an NVIDIA driver")
    with pytest.raises(NoDriverError, match="libcuda") as caught:
        open_binding()
    assert_helpful(caught.value)


def test_pycuda_without_a_driver_is_told(
    monkeypatch: pytest.MonkeyPatch, assert_helpful: Check
) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise ImportError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setitem(sys.modules, "pycuda", Broken("pycuda"))
    monkeypatch.delitem(sys.modules, "pycuda.driver", raising=False)
    with pytest.raises(MissingDependencyError) as caught:
        open_binding("pycuda")
    assert_helpful(caught.value)


def test_a_layout_keeps_arrays_apart_and_aligned() -> None:
    layout = Layout()
    layout.add("a", (3, 5), np.float32)
    layout.add("none", (0, 5), np.float32)
    layout.add("b", (), np.int64)
    layout.add("c", (300,), np.uint8)
    memory = np.zeros(layout.size, np.uint8)
    for i, name in enumerate(("a", "b", "c"), 1):
        assert layout.offset(name) % ALIGNMENT == 0
        layout.view(memory.ctypes.data, name)[...] = i
    assert layout.view(memory.ctypes.data, "none").shape == (0, 5)
    for i, name in enumerate(("a", "b", "c"), 1):
        assert (layout.view(memory.ctypes.data, name) == i).all()
    assert layout.nbytes("a") == 60
