"""The TensorRT plugin that reads features at part points: which one is here, and its registration.

There are two, of the same kernels and under the same name, so an engine built with one runs with
the other: a library compiled on this machine (docs/plugin.md), and a twin in Python, which needs no
compiler. Where the library is, it is taken; it may not be stale, and then nothing takes its place.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from glnet_rt.backends import gather_twin
from glnet_rt.backends.gather_twin import NAME, NAMESPACE, VERSION, kernels_sha256
from glnet_rt.engine_cache import cache_root
from glnet_rt.errors import BackendError

LIBRARY = "libglnet_rt_plugin.so"
LIBRARY_VARIABLE = "GLNET_PLUGIN_LIBRARY"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GatherPlugin:
    """One of the two.

    Attributes:
        path: the compiled library; None for the Python twin.
        sha256: of the library, or of the twin's sources; part of what an engine is bound to.
    """

    path: Path | None
    sha256: str

    def __str__(self) -> str:
        return f"{self.path or 'Python twin'} ({self.sha256[:12]})"


def find_plugin(path: Path | None = None) -> GatherPlugin | None:
    """The plugin to use here; None where there is neither library nor what the twin needs.

    Args:
        path: the library, where it is no other; else $GLNET_PLUGIN_LIBRARY, the cache folder, and
            the Python twin are looked at in this order.

    Raises:
        BackendError: the library named, by `path` or the variable, is not there.
    """
    named = path or os.environ.get(LIBRARY_VARIABLE)
    library = Path(named) if named else library_home() / LIBRARY
    try:
        return GatherPlugin(library, hashlib.sha256(library.read_bytes()).hexdigest())
    except OSError as error:
        if named:
            raise BackendError(
                "the gather plugin's library cannot be read",
                got=f"{library}: {error.strerror}",
                expected=f"{LIBRARY}, built on this machine",
                fix=f"{build_command(library.parent)}; or unset {LIBRARY_VARIABLE}",
            ) from error
    if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
        return None
    return GatherPlugin(None, gather_twin.sources_sha256())


def load_plugin(trt: Any, path: Path | None = None) -> GatherPlugin:
    """Make the plugin known to one TensorRT of this process; again is no harm.

    Args:
        trt: the imported module, `tensorrt` or `tensorrt_rtx`.
        path: as `find_plugin` takes it.

    Raises:
        BackendError: there is none, it was built for something else, or TensorRT refuses it.
    """
    plugin = find_plugin(path)
    if plugin is None:
        raise BackendError(
            "there is no gather plugin",
            got=f"no {library_home() / LIBRARY}, and no package cuda-bindings for the Python twin",
            expected="one of the two",
            fix=f"pip install 'glnet-rt[cuda]', or {build_command(library_home())}",
        )
    _register(trt, plugin)
    return plugin


def library_home() -> Path:
    """Folder in which the compiled library is looked for, in the cache."""
    return cache_root() / "plugin"


def build_command(folder: Path) -> str:
    """What builds the library and puts it into a folder."""
    return (
        "cmake -S export/plugin -B build/plugin && cmake --build build/plugin && "
        f"cmake --install build/plugin --prefix {folder}"
    )


def check_library(trt: Any, path: Path) -> None:
    """Hold a library against this package and this TensorRT, before TensorRT loads it.

    Raises:
        BackendError: it is no such library, or was built of other kernels or for another TensorRT.
    """
    info = _read_info(path)
    flavour, _, version = str(info.get("tensorrt")).partition(" ")
    pairs = {
        "plugin version": (info.get("version"), VERSION),
        "kernel sources": (info.get("kernels"), kernels_sha256()),
        "TensorRT": (f"{flavour} {_major(version)}", f"{trt.__name__} {_major(trt.__version__)}"),
    }
    wrong = {what: pair for what, pair in pairs.items() if pair[0] != pair[1]}
    if wrong:
        raise BackendError(
            f"the gather plugin {path} was built for something else",
            got=", ".join(f"{what} {pair[0]}" for what, pair in wrong.items()),
            expected=", ".join(f"{what} {pair[1]}" for what, pair in wrong.items()),
            fix=build_command(path.parent),
        )


def _read_info(path: Path) -> Mapping[str, Any]:
    try:
        function = ctypes.CDLL(str(path)).glnet_rt_plugin_info
        function.restype = ctypes.c_char_p
        return json.loads(function())
    except (OSError, AttributeError, ValueError, TypeError) as error:
        raise BackendError(
            f"{path} is no gather plugin that runs here",
            got=str(error),
            expected=f"{LIBRARY}, built on this machine",
            fix=build_command(path.parent),
        ) from error


def _major(version: str) -> str:
    return version.partition(".")[0]


@cache
def _register(trt: Any, plugin: GatherPlugin) -> None:
    registry = trt.get_plugin_registry()
    if registry.get_creator(NAME, VERSION, NAMESPACE) is not None:
        raise BackendError(
            f"another {NAMESPACE}::{NAME} is registered already",
            got=f"a second one, {plugin}",
            expected="one per process",
            fix="load it once, before anything else registers plugins of this name",
        )
    if plugin.path is None:
        registry.register_creator(gather_twin.creator(trt), NAMESPACE)
    else:
        check_library(trt, plugin.path)
        registry.load_library(str(plugin.path))
    if registry.get_creator(NAME, VERSION, NAMESPACE) is None:
        raise BackendError(
            f"{trt.__name__} {trt.__version__} does not take the gather plugin",
            got=f"{plugin}, and still no creator of {NAMESPACE}::{NAME} version {VERSION}",
            expected="TensorRT 10.3 or newer, or TensorRT for RTX",
            fix="see what TensorRT logged; or build the engine with the native gather",
        )
    _log.info("gather plugin: %s", plugin)
