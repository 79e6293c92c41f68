"""What every inference backend promises, and the check that holds it to the promise."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import ClassVar, Protocol

import numpy as np

from glnet_rt.artifact import Artifact
from glnet_rt.contracts import Array, NetOutput, check_array
from glnet_rt.errors import ArtifactError, BackendError, ContractError
from glnet_rt.spec import NetSpec


class Backend(Protocol):
    """One way to run the network. A new one is one file, and one line in `registry.BACKENDS`.

    Attributes:
        name: what `backend=` calls it.
        precisions: what it can run, in the order `precision="auto"` tries them where the artifact
            does not tell which was the fastest.
        precision: what this session runs.
        concurrent: whether several threads may call `infer` of one session at a time.

    A module that holds a backend imports its library inside `open` alone, so that listing the
    backends costs nothing and needs nothing installed.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    concurrent: ClassVar[bool]

    @property
    def precision(self) -> str: ...

    @classmethod
    def open(cls, artifact: Artifact, precision: str, *, threads: int | None) -> Backend:
        """Open a session.

        Args:
            artifact: holds the model and its spec.
            precision: one of `precisions` that the artifact has.
            threads: CPU threads for one inference; None leaves it to the library.

        Raises:
            MissingDependencyError: its library is not installed; the fix is a pip command.
            BackendError: the session cannot be opened on this machine.
            ArtifactError: the model does not match the artifact's spec.
        """

    def infer(self, crops: Array) -> Mapping[str, Array]:
        """Run B crops. Normalising them is the backend's part: some do it on the way for nothing.

        Args:
            crops: [B, S, S, 3] uint8, contiguous, BGR, B > 0.

        Returns:
            Name -> array, as `NetSpec.output_shapes` lists them; the caller owns them, and the
            next `infer` leaves them alone.

        Raises:
            BackendError: the run failed, or the session is closed.
        """

    def close(self) -> None:
        """Let go of the session. Calling it again does nothing."""

    def __enter__(self) -> Backend: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def run(backend: Backend, crops: Array, spec: NetSpec) -> NetOutput:
    """Run one batch and check what comes back against the spec.

    Raises:
        ContractError: the batch is not [B, S, S, 3] uint8 with B > 0.
        BackendError: the run failed, or its outputs are not what the spec promises.
    """
    check_array("the batch", crops, (None, *spec.crop_shape), np.uint8)
    if len(crops) == 0:
        raise ContractError("the batch is empty", got=list(crops.shape), expected="B > 0 crops")
    arrays = backend.infer(crops)
    try:
        output = NetOutput.from_arrays(spec, arrays)
        check_array("output score", output.score, (len(crops),), np.float32)
    except ContractError as error:
        raise BackendError(
            f"{backend.name} ({backend.precision}) broke the network's contract: {error.what}",
            got=error.got,
            expected=error.expected,
            fix="choose another precision or backend, or export the artifact again",
        ) from error
    return output


def session_closed(name: str) -> BackendError:
    """What to raise where `infer` is called after `close`."""
    return BackendError(
        f"the {name} session is closed",
        got="infer() after close()",
        expected="an open session",
        fix="load the artifact again: glnet_rt.load()",
    )


def run_failed(library: str, crops: Array, spec: NetSpec, error: Exception) -> BackendError:
    """What to raise where a library failed while it ran these crops."""
    return BackendError(
        f"{library} failed while running the model",
        got=f"batch {list(crops.shape)}: {error}",
        expected=f"a batch [B, {', '.join(map(str, spec.crop_shape))}]",
        fix="use a smaller batch if memory ran out; else export the artifact again",
    )


def check_shape(what: str, shape: tuple[int | None, ...], wanted: tuple[int, ...]) -> None:
    """Hold a model's stated shape against the spec's before anything runs.

    Args:
        what: `input image`, `output score`, ...
        shape: as the model states it; None where it states no number.
        wanted: one person's shape; the model's first dimension, the batch, must be free.

    Raises:
        ArtifactError: the batch is fixed, or a stated number differs.
    """
    free_batch = bool(shape) and shape[0] is None
    fits = len(shape) == len(wanted) + 1 and all(
        n is None or n == m for n, m in zip(shape[1:], wanted, strict=True)
    )
    if not (free_batch and fits):
        raise ArtifactError(
            f"the model's {what} has another shape than the manifest's spec",
            got=_show(shape),
            expected=_show((None, *wanted)),
            fix="export the artifact again with this version of glnet-rt",
        )


def check_names(what: str, names: set[str], wanted: set[str]) -> None:
    """Hold a model's input or output names against the spec's.

    Raises:
        ArtifactError: a name is missing or too many.
    """
    if names != wanted:
        raise ArtifactError(
            f"the model has other {what} than the manifest's spec",
            got=sorted(names),
            expected=sorted(wanted),
            fix="export the artifact again with this version of glnet-rt",
        )


def _show(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("*" if n is None else str(n) for n in shape) + "]"
