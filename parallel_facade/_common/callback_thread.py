"""The thread in which callbacks run: never the one that talks to workers, never under a lock.

    back-end's thread ──(result, callback)──► Delivery thread ──► callback(result)

Guarantees:
    - A callback that raises is logged; one that blocks holds up other callbacks, and no worker.
    - The thread starts with the first callback, and ends with `close`.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

from parallel_facade._common.threads import new_thread

CLOSE_PATIENCE: Final = 5.0
"""Seconds that `close` waits for callbacks; one that blocks longer is left behind."""

_log = logging.getLogger("parallel_facade")


class CallbackThread:
    """Runs callbacks one after the other in a thread of its own."""

    def __init__(self, purpose: str = "callbacks") -> None:
        self._purpose = purpose
        self._callbacks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # guards _thread and _closed; see Switchboard for why R
        self._thread: threading.Thread | None = None
        self._closed = False

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call ``callback(*args)`` in the thread; when that has ended, at once in this one."""
        with self._lock:
            if not self._closed and self._start():
                self._callbacks.put(lambda: callback(*args))
                return
        _run(lambda: callback(*args))

    def close(self, patience: float = CLOSE_PATIENCE) -> None:
        """Run what was delivered, and end the thread; closing twice is fine.

        Args:
            patience: Seconds to wait for the thread, which ends by itself after that.
        """
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is None:
            return
        self._callbacks.put(None)
        # A callback may close the pool that it was called by.
        if thread is not threading.current_thread():
            thread.join(patience)

    def runs_here(self) -> bool:
        """Return whether the current thread is the one for callbacks."""
        return threading.current_thread() is self._thread

    def _start(self) -> bool:
        """Return whether the thread runs, having started it if need be."""
        if self._thread is None:
            thread = new_thread(self._run, name=self._purpose)
            try:
                thread.start()
            except RuntimeError:  # the program ends, and starts no threads any more
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        while (callback := self._callbacks.get()) is not None:
            _run(callback)
            del callback  # what it refers to must not live until the next one


def _run(callback: Callable[[], object]) -> None:
    try:
        callback()
    except BaseException:
        # SystemExit too: it would end the thread, and with it all callbacks that are to come.
        _log.exception("a callback raised")
