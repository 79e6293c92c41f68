"""The threads of a stream: started by name, joined by all, and OpenCV kept to one thread each."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Callable

import cv2

from glnet_rt._closing import Closing
from glnet_rt.errors import SourceError

JOIN_S = 30.0  # longer than a camera or a network may keep a read waiting


_open_streams: weakref.WeakSet[Closing] = weakref.WeakSet()


def close_at_exit(stream: Closing) -> None:
    """Close a stream at the latest when the program ends.

    Threads still inside the network's library while the interpreter takes itself apart abort the
    process.
    """
    _open_streams.add(stream)


@atexit.register
def _close_all() -> None:
    for stream in list(_open_streams):
        with contextlib.suppress(SourceError):  # of a thread that never comes back
            stream.close()


class Workers:
    """Threads that end when their channels do.

    They are daemons: a program that forgets to close its stream still ends.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread called `glnet-NAME`."""
        thread = threading.Thread(target=work, name=f"glnet-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self, timeout_s: float = JOIN_S) -> None:
        """Wait for all of them, but not for the thread that calls. May be repeated.

        Raises:
            SourceError: one does not come back, since what it reads from does not.
        """
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        stuck = [
            thread.name
            for thread in self._threads
            if thread.is_alive() and thread is not threading.current_thread()
        ]
        if stuck:
            raise SourceError(
                "the stream cannot be closed: a thread does not come back",
                got=f"{', '.join(stuck)} still running after {timeout_s:g} s",
                expected="a source or callback that returns",
                fix="give your own source a time limit for each frame",
            )


class SingleThreadedOpenCV(Closing):
    """Keeps OpenCV from starting threads of its own, which would take turns from the network's.

    The setting is the whole process's. It is put back when the last stream that asked has closed.
    """

    _lock = threading.Lock()
    _users = 0
    _before = 0

    def __init__(self) -> None:
        self._open = True
        cls = SingleThreadedOpenCV
        with cls._lock:
            if cls._users == 0:
                cls._before = cv2.getNumThreads()
                cv2.setNumThreads(1)
            cls._users += 1

    def close(self) -> None:
        """This stream no longer minds. Calling it again does nothing."""
        cls = SingleThreadedOpenCV
        with cls._lock:
            if not self._open:
                return
            self._open = False
            cls._users -= 1
            if cls._users == 0:
                cv2.setNumThreads(cls._before)
