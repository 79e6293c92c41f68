"""What readers say of files that are not there, or are not what they look for."""

from __future__ import annotations

from pathlib import Path

from glnet_rt.errors import SourceError


def nothing_found(what: str, root: Path, expected: str, fetch: str) -> SourceError:
    """A folder holds none of the files looked for."""
    return SourceError(f"no {what} found", got=str(root), expected=expected, fix=fetch)


def foreign_file(what: str, error: Exception, expected: str, fetch: str) -> SourceError:
    """A file is there, and reading it failed as no file of the set would."""
    return SourceError(what, got=f"{type(error).__name__}: {error}", expected=expected, fix=fetch)
