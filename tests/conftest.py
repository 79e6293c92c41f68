"""Fixtures that several test files share. Everything is made on the spot; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glnet_rt.artifact import Artifact
from glnet_rt.errors import GlnetError
from tests import tiny


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is compiled or measured in tests is kept here, and not in the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLNET_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature `.glnet` zip; copy it before changing it."""
    return tiny.write(tmp_path_factory.mktemp("artifact") / "tiny.glnet")


@pytest.fixture(scope="session")
def tiny_artifact(tiny_path: Path) -> Artifact:
    """The same, opened."""
    return Artifact.open(tiny_path)


@pytest.fixture
def assert_helpful() -> Callable[[GlnetError], None]:
    """Check that an error tells all it must: what was wrong, got, expected, and the fix."""

    def check(error: GlnetError) -> None:
        for part in ("what", "got", "expected", "fix"):
            value = getattr(error, part)
            assert value not in (None, ""), f"{type(error).__name__} has no {part}: {error}"
            assert str(value) in str(error)

    return check
