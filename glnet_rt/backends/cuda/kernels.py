"""The kernels of this package, compiled for the device at hand and loaded."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from glnet_rt.backends.cuda import nvrtc
from glnet_rt.backends.cuda.binding import Binding

SOURCES = Path(__file__).parent / "kernels"
# Source -> its entry points.
ENTRY_POINTS = {
    "crop.cu": ("crop_halve", "crop_float", "crop_half"),
    "decode.cu": ("decode",),
    "skin.cu": ("skin",),
}
_log = logging.getLogger(__name__)


def compile_kernels(name: str, arch: str, cache: Path | None = None) -> bytes:
    """The cubin of one source.

    Args:
        name: a key of ENTRY_POINTS.
        arch: `sm_87` and the like.
        cache: folder for cubins; one is used again while sources, NVRTC and arch stay the same.

    Raises:
        MissingDependencyError: NVRTC is not installed.
        BackendError: it does not know the architecture.
    """
    if cache is None:
        return nvrtc.compile_cubin((SOURCES / name).read_text(), name, arch, [SOURCES])
    digest = hashlib.sha256(repr((nvrtc.version(), arch)).encode())
    for source in sorted([SOURCES / name, *SOURCES.glob("*.h")]):
        digest.update(source.read_bytes())
    kept = cache / f"{Path(name).stem}-{arch}-{digest.hexdigest()[:16]}.cubin"
    if not kept.exists():
        _log.info("compiling %s for %s", name, arch)
        cubin = compile_kernels(name, arch)
        cache.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{id(cubin)}.tmp")
        part.write_bytes(cubin)
        part.replace(kept)  # whole or not at all, whoever else writes it
    return kept.read_bytes()


def load_kernels(binding: Binding, name: str, cache: Path | None) -> tuple[int, dict[str, int]]:
    """Compile one source and load it.

    Returns:
        The module, which the caller unloads, and its functions by entry point.
    """
    module = binding.load_module(compile_kernels(name, binding.device.arch, cache))
    try:
        return module, {entry: binding.get_function(module, entry) for entry in ENTRY_POINTS[name]}
    except BaseException:
        binding.unload_module(module)
        raise
