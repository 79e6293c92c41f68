"""Choosing a backend: `auto` proves each candidate by running it, a named one never falls back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from glnet_rt.artifact import MADE_OF, PRECISIONS, Artifact, stored_as
from glnet_rt.backends.base import Backend, run
from glnet_rt.backends.jit_ import JitBackend
from glnet_rt.backends.onnxruntime_ import (
    OnnxRuntimeBackend,
    OnnxRuntimeCudaBackend,
    OnnxRuntimeTensorRTBackend,
)
from glnet_rt.backends.openvino_ import OpenVinoBackend
from glnet_rt.backends.tensorrt_ import TensorRTBackend, TensorRTRtxBackend
from glnet_rt.errors import BackendError, ContractError, GlnetError
from glnet_rt.parity import Parity
from glnet_rt.tuning import Tuning, measure, recall, tuning_path

# In the order `auto` tries them, the fastest first.
BACKENDS: tuple[type[Backend], ...] = (
    TensorRTBackend,
    OpenVinoBackend,
    JitBackend,
    OnnxRuntimeBackend,
)
GREY = 114  # of the test crop, about the mean of pictures
# Never tried by `auto`.
BY_NAME: tuple[type[Backend], ...] = (
    TensorRTRtxBackend,
    OnnxRuntimeCudaBackend,
    OnnxRuntimeTensorRTBackend,
)


@dataclass(frozen=True)
class Attempt:
    """One backend considered at load.

    Attributes:
        backend, precision: what was considered.
        chosen: whether it is the one in use.
        reason: why, or why not.
        fix: what would make it work; None where nothing is wrong.
    """

    backend: str
    precision: str
    chosen: bool
    reason: str
    fix: str | None = None

    def __str__(self) -> str:
        verdict = "chosen" if self.chosen else "rejected"
        fix = f" (fix: {self.fix})" if self.fix else ""
        return f"{verdict} {self.backend} {self.precision}: {self.reason}{fix}"


def select(
    artifact: Artifact,
    backend: str = "auto",
    precision: str = "auto",
    *,
    threads: int | None = None,
    tune: bool | None = None,
    backends: tuple[type[Backend], ...] = BACKENDS,
) -> tuple[Backend, tuple[Attempt, ...]]:
    """Open the backend to use.

    Every session is tested with a grey crop before it counts as working: a library that lists a
    device proves nothing.

    Args:
        artifact: holds the models.
        backend: a name, or `auto` for the first that works.
        precision: `fp32`, `fp16`, `int8`, `fp8`, `packed`, or `auto` for the one that was fastest
            on that backend at export and works here. All of them passed their gate there.
        threads: CPU threads for one inference; None leaves it to the library.
        tune: what orders the candidates of `auto`. True: what is fastest on this machine, measured
            now unless it was before; None: the same if it was measured before; else, and with
            False, the order of `backends` and what export measured.
        backends: the candidates of `auto`, in order; those of `BY_NAME` may be named as well.

    Returns:
        The open backend, and everything that was considered on the way.

    Raises:
        ContractError: an unknown backend or precision, or threads below 1.
        BackendError: a named backend or precision does not work here, or nothing does.
        MissingDependencyError: a named backend's library is not installed.
    """
    _check_request(backend, precision, threads, (*backends, *BY_NAME))
    backends = (*backends, *(kind for kind in BY_NAME if kind.name == backend))
    chosen: Backend | None = None
    attempts: list[Attempt] = []
    errors: list[GlnetError] = []
    parity = Parity.read(artifact)
    candidates = _candidates(backends, precision, artifact, parity)
    tuning = None
    if tune is not False:
        asked = [(kind, wanted) for kind, wanted in candidates if backend in ("auto", kind.name)]
        request = (backend, precision, threads)
        tuning = _tuned(asked, artifact, request, parity, measured_now=tune is True)
    if tuning is not None:
        places = tuning.place
        candidates.sort(key=lambda candidate: places(candidate[0].name, candidate[1]))
    for kind, wanted in candidates:
        if backend in ("auto", kind.name) and chosen is None:
            best = tuning.threads(kind.name, wanted) if tuning else None
            session, attempt = _attempt(kind, artifact, wanted, best or threads, parity, errors)
            chosen = session
            if session is not None and tune is not False:
                attempt = _told_tuning(attempt, tuning, measured_now=tune is True)
        else:
            reason = f"{backend} was asked for by name"
            if chosen is not None:
                reason = f"{chosen.name} {chosen.precision} comes first and works"
            attempt = Attempt(kind.name, wanted, False, reason)
        attempts.append(attempt)
    if chosen is not None:
        return chosen, tuple(attempts)
    raise _nothing_works(backend, backends, attempts, errors)


def _tuned(
    candidates: list[tuple[type[Backend], str]],
    artifact: Artifact,
    request: tuple[str, str, int | None],
    parity: Parity,
    *,
    measured_now: bool,
) -> Tuning | None:
    """What was measured on this machine, now or before; None where nothing was."""
    path = tuning_path(artifact, request)
    tuning = recall(path)
    if tuning is not None or not measured_now:
        return tuning
    kinds = {kind.name: kind for kind, _ in candidates}

    def open_candidate(backend: str, precision: str, threads: int | None) -> Backend | None:
        return _attempt(kinds[backend], artifact, precision, threads, parity, [])[0]

    names = [(kind.name, precision) for kind, precision in candidates]
    return measure(names, request[2], open_candidate, artifact, path)


def _told_tuning(attempt: Attempt, tuning: Tuning | None, *, measured_now: bool) -> Attempt:
    """The chosen attempt, with what the choice rests on."""
    if tuning is not None:
        return replace(attempt, reason=f"{attempt.reason}; {tuning}")
    if measured_now:
        note = "not tuned, since that cannot be remembered: the recorded order counts"
        return replace(attempt, reason=f"{attempt.reason}; {note}")
    return attempt


def open_each(
    artifact: Artifact,
    backend: str = "auto",
    precision: str = "auto",
    *,
    threads: int | None = None,
    backends: tuple[type[Backend], ...] = BACKENDS,
) -> Iterator[tuple[Backend | None, Attempt]]:
    """Open, one after the other, every model of an artifact on every backend.

    Args:
        backend, precision, threads, backends: as for `select`; `auto` is every one.

    Yields:
        The tested session, which the caller closes, or None; and what came of trying.

    Raises:
        ContractError, BackendError, MissingDependencyError: as `select`, once all were tried.
    """
    _check_request(backend, precision, threads, backends)
    attempts: list[Attempt] = []
    errors: list[GlnetError] = []
    parity = Parity.read(artifact)
    for kind, wanted in _candidates(backends, precision, artifact, parity):
        if backend in ("auto", kind.name):
            session, attempt = _attempt(kind, artifact, wanted, threads, parity, errors)
            attempts.append(attempt)
            yield session, attempt
    if not any(attempt.chosen for attempt in attempts):
        raise _nothing_works(backend, backends, attempts, errors)


def _attempt(
    kind: type[Backend],
    artifact: Artifact,
    precision: str,
    threads: int | None,
    parity: Parity,
    errors: list[GlnetError],
) -> tuple[Backend | None, Attempt]:
    """Try one candidate; an error is noted in `errors` and told in the attempt."""
    try:
        session, took_ms = _open_tested(kind, artifact, precision, threads)
    except GlnetError as error:
        errors.append(error)
        reason = error.what if error.got is None else f"{error.what}, got {error.got}"
        return None, Attempt(kind.name, precision, False, reason, error.fix)
    reason = f"its test session ran in {took_ms:.0f} ms"
    why = parity.why(kind.name, precision)
    return session, Attempt(kind.name, precision, True, f"{reason}; {why}" if why else reason)


def _nothing_works(
    backend: str,
    backends: tuple[type[Backend], ...],
    attempts: list[Attempt],
    errors: list[GlnetError],
) -> GlnetError:
    """What to raise: a named backend's own error, else one that tells of all."""
    if backend != "auto":
        return errors[-1]
    return BackendError(
        "no backend can run this artifact",
        got="; ".join(map(str, attempts)),
        expected=f"one of {', '.join(kind.name for kind in backends)} to work",
        fix=next((error.fix for error in reversed(errors) if error.fix), None),  # the least needed
    )


def _check_request(
    backend: str, precision: str, threads: int | None, backends: tuple[type[Backend], ...]
) -> None:
    requests = {
        "backend": (backend, ("auto", *(kind.name for kind in backends))),
        "precision": (precision, ("auto", *PRECISIONS, *MADE_OF)),
    }
    for what, (value, known) in requests.items():
        if value not in known:
            raise ContractError(
                f"there is no such {what}",
                got=repr(value),
                expected=", ".join(known),
                fix=f"choose one of these, or leave {what} at 'auto'",
            )
    if threads is not None and (type(threads) is not int or threads < 1):
        raise ContractError(
            "threads is no count",
            got=repr(threads),
            expected="a whole number >= 1, or None",
            fix="leave it at None to let the backend choose",
        )


def _candidates(
    backends: tuple[type[Backend], ...], precision: str, artifact: Artifact, parity: Parity
) -> list[tuple[type[Backend], str]]:
    """Every backend with every precision it would try, in order: the fastest at export first.

    A backend that runs none of those held is there with its first, to be told why it is not chosen.
    What no file is kept of is taken only where export judged it and it passed.
    """
    if precision != "auto":
        return [(kind, precision) for kind in backends]
    held = [p for p in artifact.manifest.computable if p not in MADE_OF or p in parity.tolerances]
    return [
        (kind, own)
        for kind in backends
        for own in parity.fastest_first(
            kind.name, tuple(p for p in kind.precisions if p in held) or kind.precisions[:1]
        )
    ]


def _open_tested(
    kind: type[Backend], artifact: Artifact, precision: str, threads: int | None
) -> tuple[Backend, float]:
    """Open a session and run one crop through it; also the milliseconds that took."""
    if precision not in kind.precisions:
        raise BackendError(
            f"{kind.name} does not run {precision}",
            got=precision,
            expected=f"one of {', '.join(kind.precisions)}",
            fix="leave precision at 'auto'",
        )
    if precision not in artifact.manifest.computable:
        raise BackendError(
            f"the artifact holds no {stored_as(precision)} model",
            got=precision,
            expected=f"one of {', '.join(artifact.manifest.computable)}",
            fix=f"leave precision at 'auto', or export the artifact with {stored_as(precision)}",
        )
    started = time.perf_counter()
    session = kind.open(artifact, precision, threads=threads)
    try:
        run(session, np.full((1, *artifact.spec.crop_shape), GREY, np.uint8), artifact.spec)
    except GlnetError:
        session.close()
        raise
    return session, (time.perf_counter() - started) * 1000
