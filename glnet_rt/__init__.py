"""GLNet at run time: from a picture to posed bodies in metres.

    import glnet_rt

    hmr = glnet_rt.load()
    result = hmr("photo.jpg")

Every name below is imported when it is first used, so `import glnet_rt` itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from glnet_rt._version import __version__

if TYPE_CHECKING:
    from glnet_rt.body_model import BodyModel
    from glnet_rt.contracts import Crop, Frame, NetOutput, Person, Result
    from glnet_rt.errors import (
        ArtifactError,
        BackendError,
        CallbackError,
        ContractError,
        EngineError,
        GlnetError,
        MissingDependencyError,
        SourceError,
    )
    from glnet_rt.estimator import Estimator, load
    from glnet_rt.finder import BoxFinder, Found
    from glnet_rt.spec import NetSpec
    from glnet_rt.stream.live import LiveSession
    from glnet_rt.trace import Trace

_HOME = {
    "ArtifactError": "glnet_rt.errors",
    "BackendError": "glnet_rt.errors",
    "BodyModel": "glnet_rt.body_model",
    "BoxFinder": "glnet_rt.finder",
    "CallbackError": "glnet_rt.errors",
    "ContractError": "glnet_rt.errors",
    "Crop": "glnet_rt.contracts",
    "EngineError": "glnet_rt.errors",
    "Estimator": "glnet_rt.estimator",
    "Found": "glnet_rt.finder",
    "Frame": "glnet_rt.contracts",
    "GlnetError": "glnet_rt.errors",
    "LiveSession": "glnet_rt.stream.live",
    "MissingDependencyError": "glnet_rt.errors",
    "NetOutput": "glnet_rt.contracts",
    "NetSpec": "glnet_rt.spec",
    "Person": "glnet_rt.contracts",
    "Result": "glnet_rt.contracts",
    "SourceError": "glnet_rt.errors",
    "Trace": "glnet_rt.trace",
    "load": "glnet_rt.estimator",
}

__all__ = [
    "ArtifactError",
    "BackendError",
    "BodyModel",
    "BoxFinder",
    "CallbackError",
    "ContractError",
    "Crop",
    "EngineError",
    "Estimator",
    "Found",
    "Frame",
    "GlnetError",
    "LiveSession",
    "MissingDependencyError",
    "NetOutput",
    "NetSpec",
    "Person",
    "Result",
    "SourceError",
    "Trace",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use (PEP 562) and keep it."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
