"""A bounded queue between two threads that can end, be closed, and drop by a stated rule."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Literal, TypeVar

from glnet_rt.errors import ContractError

T = TypeVar("T")
# What gives way where a full queue gets one more: the one waiting longest, the one that comes, or
# none, and then whoever puts must wait.
Drop = Literal["oldest", "newest", "none"]
DROPS: tuple[Drop, ...] = ("oldest", "newest", "none")


class ChannelClosed(Exception):
    """The other side has gone. It ends a thread; nobody outside `stream` meets it."""


class Channel(Generic[T]):
    """Items in the order they were put, never more than `size` of them.

    Args:
        size: items it holds at most.
        drop: what happens to one too many.
        on_drop: told each item that was dropped, by whichever thread dropped it.

    Raises:
        ContractError: no such rule, or no room for a single item.
    """

    def __init__(
        self, size: int, drop: Drop = "none", on_drop: Callable[[T], None] | None = None
    ) -> None:
        if type(size) is not int or size < 1:
            raise ContractError(
                "a queue holds at least one frame",
                got=repr(size),
                expected="a whole number >= 1",
                fix="leave queue at 1, which keeps a live stream freshest",
            )
        if drop not in DROPS:
            raise ContractError(
                "there is no such rule for dropping",
                got=repr(drop),
                expected=", ".join(DROPS),
                fix="leave it at 'oldest', which keeps a live stream freshest",
            )
        self._size = size
        self._drop = drop
        self._on_drop = on_drop
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Append an item; with drop="none", wait until there is room.

        Raises:
            ChannelClosed: nobody takes items any more; this one was not taken either.
        """
        lost: list[T] = []
        with self._changed:
            if self._drop == "none":
                self._changed.wait_for(lambda: self._closed or len(self._items) < self._size)
            if self._closed:
                raise ChannelClosed
            full = len(self._items) == self._size
            if full and self._drop == "newest":
                lost.append(item)
            else:
                lost.extend([self._items.popleft()] if full else [])
                self._items.append(item)
                self._changed.notify_all()
        self._tell(lost)

    def get(self) -> T:
        """Take the item that came first, waiting for one.

        Raises:
            ChannelClosed: there will be no more; or the error with which `end` said so.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended or self._closed)
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None and not self._closed:
                raise self._error
            raise ChannelClosed

    def __iter__(self) -> Iterator[T]:
        """Items until there are no more; raises the error with which `end` said so."""
        while True:
            try:
                item = self.get()
            except ChannelClosed:
                return
            yield item

    def end(self, error: BaseException | None = None) -> None:
        """Say that nothing more will be put; what is queued may still be taken."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Take nothing more, drop what is queued, and wake whoever waits. May be repeated."""
        with self._changed:
            self._closed = True
            lost = list(self._items)
            self._items.clear()
            self._changed.notify_all()
        self._tell(lost)

    def _tell(self, lost: list[T]) -> None:
        if self._on_drop is not None:
            for item in lost:
                self._on_drop(item)
