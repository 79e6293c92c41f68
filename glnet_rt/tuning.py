"""What is fastest on this very machine: measured once in a few seconds, and remembered.

Export measured on another processor, and on one thread. Here each candidate runs a crop a few
times; the order found is kept in the cache folder, in a file whose name changes with the machine,
the versions and the artifact, so that what was measured under others is never used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt._version import __version__
from glnet_rt.artifact import Artifact
from glnet_rt.backends.base import Backend, run
from glnet_rt.cpu import cpu_name, cpu_sha256, usable_cores
from glnet_rt.engine_cache import EngineCache, cache_root, write_atomically

BUDGET_S = 3.0
RUNS, RUN_S = 20, 0.15  # of each candidate: as many runs, or as long, after the first three
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx", "numpy")
_log = logging.getLogger(__name__)

# Opens and tests a session of (backend, precision, threads); None where that does not work here.
OpenCandidate = Callable[[str, str, int | None], Backend | None]


@dataclass(frozen=True)
class Timing:
    """One candidate that was measured.

    Attributes:
        backend, precision: what ran.
        threads: CPU threads asked for; None left it to the backend.
        ms: wall milliseconds of one crop that a quarter of the runs stayed below: what else the
            machine has to do only adds to them.
    """

    backend: str
    precision: str
    threads: int | None
    ms: float

    def __str__(self) -> str:
        threads = "" if self.threads is None else f" with {self.threads} threads"
        return f"{self.backend} {self.precision}{threads} {self.ms:.2f} ms"


@dataclass(frozen=True)
class Tuning:
    """What was measured, the fastest first.

    Attributes:
        timings: of every candidate there was time for.
        path: where it is remembered.
    """

    timings: tuple[Timing, ...]
    path: Path

    def place(self, backend: str, precision: str) -> int:
        """How many were faster; all of them for what was not measured."""
        for index, timing in enumerate(self.timings):
            if (timing.backend, timing.precision) == (backend, precision):
                return index
        return len(self.timings)

    def threads(self, backend: str, precision: str) -> int | None:
        """The number of threads that this candidate was fastest with."""
        place = self.place(backend, precision)
        return self.timings[place].threads if place < len(self.timings) else None

    def __str__(self) -> str:
        return f"measured here ({self.path}): {', '.join(map(str, self.timings))}"


def tuning_path(artifact: Artifact, request: Sequence[Any]) -> Path:
    """Where a tuning is remembered: a name for everything it depends on.

    Args:
        artifact: of which every file counts, and not where it lies.
        request: what of backend, precision and threads was given.
    """
    facts = {
        "files": {name: entry.sha256 for name, entry in sorted(artifact.manifest.files.items())},
        "request": list(request),
        "cpu": [cpu_name(), cpu_sha256(), usable_cores()],
        "gpu": _gpu(),
        "engines": sorted(engine.name for engine in EngineCache().engines.glob("*.engine")),
        "versions": {name: _version(name) for name in _PACKAGES} | {"glnet-rt": __version__},
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return cache_root() / "tuning" / f"{digest}.json"


def recall(path: Path) -> Tuning | None:
    """What was measured before, or None; a file that cannot be read is told and not used."""
    try:
        rows = json.loads(path.read_text())["timings"]
        timings = tuple(Timing(**row) for row in rows)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("the tuning in %s cannot be read and is not used: %s", path, error)
        return None
    return Tuning(timings, path) if timings else None


def measure(
    candidates: Sequence[tuple[str, str]],
    threads: int | None,
    open_candidate: OpenCandidate,
    artifact: Artifact,
    path: Path,
) -> Tuning | None:
    """Measure candidates while there is time, and remember the order.

    Args:
        candidates: (backend, precision), of each backend the one to expect most of first. They
            take turns: where time is up early, every backend was measured at its best.
        threads: as asked for; None also tries fewer than all cores with the fastest candidate.
        open_candidate: opens each.
        artifact: whose crops have the right size.
        path: where it is remembered.

    Returns:
        None where it could not be remembered, or nothing works: without a memory every start
        would measure again and could choose differently.
    """
    try:
        write_atomically(path, b'{"timings": []}')
    except OSError as error:
        _log.warning("not tuned, since it could not be remembered in %s: %s", path, error)
        return None
    deadline = time.perf_counter() + BUDGET_S
    timings: list[Timing] = []
    left = [(backend, precision, threads) for backend, precision in in_turns(candidates)]
    while left and time.perf_counter() < deadline:
        timings += _time(*left.pop(0), open_candidate, artifact)
        if not left and threads is None and timings:
            best = min(timings, key=lambda t: t.ms)
            tried = {t.threads for t in timings if t.backend == best.backend}
            fewer = [n for n in _fewer(usable_cores()) if n not in tried]
            left = [(best.backend, best.precision, n) for n in fewer]
    if not timings:
        return None
    tuning = Tuning(tuple(sorted(timings, key=lambda t: t.ms)), path)
    told = {"timings": [dataclasses.asdict(timing) for timing in tuning.timings]}
    write_atomically(path, json.dumps(told, indent=1).encode())
    return tuning


def in_turns(candidates: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The first of every backend, then the second of each, and so on."""
    backends = [backend for backend, _ in candidates]
    turns = [backends[:index].count(backend) for index, backend in enumerate(backends)]
    order = sorted(range(len(turns)), key=turns.__getitem__)
    return [candidates[index] for index in order]


def _time(
    backend: str,
    precision: str,
    threads: int | None,
    open_candidate: OpenCandidate,
    artifact: Artifact,
) -> list[Timing]:
    """One candidate's time; none where it does not work."""
    session = open_candidate(backend, precision, threads)
    if session is None:
        return []
    crops = np.random.default_rng(0).integers(0, 256, (1, *artifact.spec.crop_shape), np.uint8)
    with session:
        return [Timing(backend, precision, threads, quarter_ms(session, crops, artifact))]


def quarter_ms(session: Backend, crops: Any, artifact: Artifact) -> float:
    """Lower quartile of one inference's wall milliseconds, the first three left out."""
    for _ in range(3):
        run(session, crops, artifact.spec)
    taken: list[float] = []
    started = time.perf_counter()
    while len(taken) < 3 or (len(taken) < RUNS and time.perf_counter() - started < RUN_S):
        before = time.perf_counter()
        run(session, crops, artifact.spec)
        taken.append((time.perf_counter() - before) * 1000)
    return statistics.quantiles(taken, n=4, method="inclusive")[0]


def _fewer(cores: int) -> list[int]:
    """Half the cores, a quarter, down to one."""
    counts = []
    while cores > 1:
        cores //= 2
        counts.append(cores)
    return counts


def _gpu() -> str:
    """The NVIDIA GPU and its driver; empty where there is none."""
    from glnet_rt.backends.device import find_gpu
    from glnet_rt.errors import GlnetError

    try:
        return str(find_gpu())
    except GlnetError:
        return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
