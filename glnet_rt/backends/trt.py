"""TensorRT 10.3 to 11.x, and TensorRT for RTX, behind one face: which is here, and how to ask it.

Only what all of them have is used anywhere in this project; a test holds every attribute against
the bindings of three versions. What differs stands here, and nowhere else.
"""

from __future__ import annotations

import importlib
import json
import platform
import re
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any

from glnet_rt.backends.device import Gpu, find_gpu
from glnet_rt.engine_cache import EngineKey
from glnet_rt.errors import BackendError, EngineError, MissingDependencyError

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL = {
    "tensorrt": "pip install 'glnet-rt[tensorrt]' (on a Jetson it comes with JetPack: "
    "sudo apt install python3-libnvinfer, in an environment made with --system-site-packages)",
    "tensorrt-rtx": "pip install 'glnet-rt[rtx]'",
}
OLDEST = (10, 3)  # of plain TensorRT: JetPack 6's

_KEPT_MESSAGES = 8
_WORDS = {  # in the order they are looked for: "BFloat16" holds "float16", which holds "float"
    "bf16": ("bf16", "bfloat16"),
    "fp16": ("fp16", "half", "float16"),
    "fp8": ("fp8",),
    "int8": ("int8",),
    "fp32": ("fp32", "float"),
    "int": ("int32", "int64"),
    "bool": ("bool",),
}


@dataclass(frozen=True, eq=False)
class TensorRT:
    """One installed TensorRT.

    Attributes:
        module: the imported library.
        backend: `tensorrt` or `tensorrt-rtx`.
        version: in full.
        log: hears what it says; keeps the last warnings and errors for our own messages.
    """

    module: Any
    backend: str
    version: str
    log: Any

    @classmethod
    def load(cls, backend: str) -> TensorRT:
        """Import it.

        Raises:
            MissingDependencyError: it is not installed.
            BackendError: it is too old.
        """
        try:
            module = importlib.import_module(MODULES[backend])
        except (ImportError, OSError) as error:  # OSError: one of its libraries is not there
            raise MissingDependencyError(
                f"the {backend} backend needs the package {MODULES[backend]}",
                got=str(error),
                expected=f"TensorRT {'.'.join(map(str, OLDEST))} or newer"
                if backend == "tensorrt"
                else "TensorRT for RTX 1.x",
                fix=INSTALL[backend],
            ) from error
        version = str(module.__version__)
        if backend == "tensorrt" and _numbers(version) < OLDEST:
            raise BackendError(
                f"TensorRT {version} is too old",
                got=version,
                expected=f"{'.'.join(map(str, OLDEST))} or newer",
                fix="on a Jetson, install JetPack 6.1 or newer; elsewhere, pip install -U tensorrt",
            )
        return cls(module, backend, version, _listener(module))

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT for RTX: builds without a GPU, keeps no timing cache."""
        return self.backend == "tensorrt-rtx"

    def key(self, onnx_sha256: str, precision: str, batch: int, gpu: Gpu | None) -> EngineKey:
        """What an engine of this TensorRT on this machine is bound to; no plugin yet.

        Args:
            gpu: that runs it; None for one that is named by its compute capability alone.
        """
        return EngineKey(
            onnx_sha256=onnx_sha256,
            plugin_sha256="",
            precision=precision,
            batch=batch,
            backend=self.backend,
            tensorrt=self.version,
            cuda=gpu.cuda if gpu else "",
            sm=gpu.sm if gpu else "",
            gpu=gpu.name if gpu else "",
            platform=f"{platform.system()}-{platform.machine()}".lower(),
        )

    def heard(self) -> str:
        """What TensorRT last complained of, for a message; then forgotten."""
        text = "; ".join(self.log.messages) or "nothing"
        self.log.messages.clear()
        return text

    def deserialize(self, engine: bytes, name: str, rebuild: str) -> Any:
        """An engine in the GPU's memory.

        Args:
            engine: its bytes, checked before.
            name: for messages.
            rebuild: the command that builds it again.

        Raises:
            BackendError: no driver or GPU; without one TensorRT may crash, so it is not asked.
            EngineError: TensorRT refuses it.
        """
        find_gpu()
        runtime = self.module.Runtime(self.log)
        loaded = runtime.deserialize_cuda_engine(engine)
        if loaded is None:
            raise EngineError(
                f"{self.backend} {self.version} refuses the engine {name}",
                got=self.heard(),
                expected="an engine built by this version, on this GPU",
                fix=rebuild,
            )
        return loaded

    def layers(self, engine: Any) -> list[dict[str, str]]:
        """Every layer an engine runs: its name, its type and the precision it really reads.

        Needs an engine built with detailed profiling verbosity, as ours are.
        """
        inspector = engine.create_engine_inspector()
        text = inspector.get_engine_information(self.module.LayerInformationFormat.JSON)
        return [_describe_layer(layer) for layer in json.loads(text)["Layers"]]


def precision_of(words: str) -> str:
    """`fp16`, `int8`, ... out of what TensorRT says of a tensor, such as `Row major FP16 format`.

    Returns:
        `unknown` where none is named.
    """
    lowered = words.lower()
    for name, spellings in _WORDS.items():
        if any(spelling in lowered for spelling in spellings):
            return name
    return "unknown"


def _describe_layer(entry: Any) -> dict[str, str]:
    if isinstance(entry, str):  # an engine without detailed verbosity lists names alone
        return {"name": entry, "type": "unknown", "precision": "unknown"}
    read = [str(one.get("Format/Datatype", "")) for one in entry.get("Inputs", [])]
    return {
        "name": str(entry.get("Name", "")),
        "type": str(entry.get("LayerType", "unknown")),
        "precision": precision_of(read[0]) if read else "none",
    }


@cache  # TensorRT keeps the first logger it is given for as long as the process lives
def _listener(module: Any) -> Any:
    """A logger of TensorRT's own kind that prints nothing and keeps the last complaints."""

    class Listener(module.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.messages: deque[str] = deque(maxlen=_KEPT_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR):
                self.messages.append(message.strip())

    return Listener()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
