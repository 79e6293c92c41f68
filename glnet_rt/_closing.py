"""What can be used in a `with` block and ends by being closed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

T = TypeVar("T", bound="Closing")


class Closing(ABC):
    """A `with` block around it ends in `close()`, whatever happened inside."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held. Calling it again does nothing."""

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
