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
        ContractError,
        EngineError,
        GlnetError,
        MissingDependencyError,
        SourceError,
    )
    from glnet_rt.estimator import Estimator, load
    from glnet_rt.spec import NetSpec

_HOME = {
    "ArtifactError": "glnet_rt.errors",
    "BackendError": "glnet_rt.errors",
    "BodyModel": "glnet_rt.body_model",
    "ContractError": "glnet_rt.errors",
    "Crop": "glnet_rt.contracts",
    "EngineError": "glnet_rt.errors",
    "Estimator": "glnet_rt.estimator",
    "Frame": "glnet_rt.contracts",
    "GlnetError": "glnet_rt.errors",
    "MissingDependencyError": "glnet_rt.errors",
    "NetOutput": "glnet_rt.contracts",
    "NetSpec": "glnet_rt.spec",
    "Person": "glnet_rt.contracts",
    "Result": "glnet_rt.contracts",
    "SourceError": "glnet_rt.errors",
    "load": "glnet_rt.estimator",
}

__all__ = [
    "ArtifactError",
    "BackendError",
    "BodyModel",
    "ContractError",
    "Crop",
    "EngineError",
    "Estimator",
    "Frame",
    "GlnetError",
    "MissingDependencyError",
    "NetOutput",
    "NetSpec",
    "Person",
    "Result",
    "SourceError",
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
