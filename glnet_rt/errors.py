"""Typed errors. Each says what was wrong, what was got, what was expected, and how to mend it."""

from __future__ import annotations


class GlnetError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        what: one sentence, what is wrong.
        got: what was received.
        expected: what would have been right.
        fix: what the caller can do about it.

    The four parts stay readable as attributes, so an application can log them apart.
    """

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, fix: str | None = None
    ) -> None:
        self.what = what
        self.got = got
        self.expected = expected
        self.fix = fix
        parts = [what]
        if got is not None:
            parts.append(f"got: {got}")
        if expected is not None:
            parts.append(f"expected: {expected}")
        if fix is not None:
            parts.append(f"fix: {fix}")
        super().__init__("\n  ".join(parts))


class ContractError(GlnetError, ValueError):
    """A value handed to the package does not have the promised shape, dtype, range or meaning."""


class ArtifactError(GlnetError):
    """A `.glnet` artifact or a body file is missing, truncated, changed or of another schema."""


class BackendError(GlnetError, RuntimeError):
    """An inference backend could not be opened or failed while running."""


class EngineError(BackendError):
    """A TensorRT engine is missing, damaged, or was built for something else than what is here."""


class SourceError(GlnetError, OSError):
    """An image, folder, video or camera is missing, unreadable or ended early."""


class CallbackError(GlnetError, RuntimeError):
    """A function that the application handed in to be called raised; its error is the cause."""


class MissingDependencyError(GlnetError, ImportError):
    """An optional package is needed for what was asked and is not installed."""
