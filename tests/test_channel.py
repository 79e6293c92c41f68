"""The queue between stages: what it holds, what it drops, how it ends, and who it wakes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from glnet_rt.errors import ContractError, GlnetError, SourceError
from glnet_rt.stream.channel import Channel, ChannelClosed, Drop


@pytest.mark.parametrize(
    ("drop", "kept", "lost"), [("oldest", [3, 4], [0, 1, 2]), ("newest", [0, 1], [2, 3, 4])]
)
def test_a_full_queue_drops_by_its_rule(drop: Drop, kept: list[int], lost: list[int]) -> None:
    dropped: list[int] = []
    channel = Channel[int](2, drop, dropped.append)
    for item in range(5):
        channel.put(item)
    channel.end()
    assert list(channel) == kept
    assert dropped == lost


def test_without_dropping_whoever_puts_waits() -> None:
    channel = Channel[int](1)
    put: list[int] = []

    def fill() -> None:
        for item in range(50):
            channel.put(item)
            put.append(item)
        channel.end()

    thread = threading.Thread(target=fill)
    thread.start()
    taken = []
    for item in channel:
        taken.append(item)
        assert len(put) <= len(taken) + 2
    thread.join(30)
    assert taken == put == list(range(50))


def test_an_error_comes_after_everything_that_was_put() -> None:
    channel = Channel[int](3)
    channel.put(1)
    channel.end(SourceError("gone"))
    channel.end()  # the first end counts
    assert channel.get() == 1
    for _ in range(2):
        with pytest.raises(SourceError, match="gone"):
            channel.get()


@pytest.mark.parametrize("waiting", ["get", "put"])
def test_closing_wakes_whoever_waits(waiting: str) -> None:
    lost: list[int] = []
    channel = Channel[int](1, on_drop=lost.append)
    if waiting == "put":
        channel.put(7)
    woken = threading.Event()

    def wait() -> None:
        with pytest.raises(ChannelClosed):
            channel.get() if waiting == "get" else channel.put(8)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    channel.close()
    assert woken.wait(30)
    thread.join(30)
    channel.close()
    assert lost == ([7] if waiting == "put" else [])  # 8 was never taken in
    with pytest.raises(ChannelClosed):
        channel.put(9)


@pytest.mark.parametrize(
    ("size", "drop"), [(0, "none"), (1.5, "none"), (1, "some"), (True, "none")]
)
def test_misuse_is_told(
    size: int, drop: Drop, assert_helpful: Callable[[GlnetError], None]
) -> None:
    with pytest.raises(ContractError) as caught:
        Channel[int](size, drop)
    assert_helpful(caught.value)
