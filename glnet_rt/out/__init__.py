"""What becomes of results: arrays, meshes, pictures, videos."""

from __future__ import annotations

from pathlib import Path

from glnet_rt.contracts import Result
from glnet_rt.errors import ContractError
from glnet_rt.out.glb import BodyMotion, write_animated_glb, write_glb
from glnet_rt.out.mesh import write_obj, write_ply
from glnet_rt.out.npz import ResultWriter, write_npz
from glnet_rt.out.overlay import OverlayRenderer, draw_overlay
from glnet_rt.out.video import VideoWriter

__all__ = [
    "BodyMotion",
    "OverlayRenderer",
    "ResultWriter",
    "VideoWriter",
    "draw_overlay",
    "save_result",
    "write_animated_glb",
    "write_glb",
    "write_npz",
    "write_obj",
    "write_ply",
]

_WRITERS = {".npz": write_npz, ".glb": write_glb, ".obj": write_obj, ".ply": write_ply}


def save_result(result: Result, path: str | Path) -> Path:
    """Write one frame in the format its suffix names: all arrays, or the bodies as meshes.

    Raises:
        ContractError: another suffix, or a `.glb` of nobody.
    """
    path = Path(path)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ContractError(
            "no file format has this suffix",
            got=path.suffix or "no suffix",
            expected=" ".join(_WRITERS),
            fix=f"name it, for instance, {path.stem or 'result'}.npz",
        )
    return writer(result, path)
