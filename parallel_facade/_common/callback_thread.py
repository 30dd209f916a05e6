"""The thread that runs callbacks. It is not the thread that serves workers, and holds no lock.

    back-end's thread ──(result, callback)──► callback thread ──► callback(result)

Guarantees:
    - A callback that raises is logged; one that blocks delays other callbacks, but no worker.
    - The thread starts with the first callback and ends with `close`.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

from parallel_facade._common.threads import new_thread

CLOSE_PATIENCE: Final = 5.0
"""Seconds that `close` waits for callbacks; a callback that blocks longer is left running."""

_log = logging.getLogger("parallel_facade")


class CallbackThread:
    """Runs callbacks one after the other in its own thread."""

    def __init__(self, purpose: str = "callbacks") -> None:
        self._purpose = purpose
        self._callbacks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # guards _thread and _closed; see ManagerThread for why R
        self._thread: threading.Thread | None = None
        self._closed = False

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call ``callback(*args)`` in the thread.

        After `close`, or if no thread can start, call it at once in the caller's thread.
        """
        with self._lock:
            if not self._closed and self._start():
                self._callbacks.put(lambda: callback(*args))
                return
        _run(lambda: callback(*args))

    def close(self, patience: float = CLOSE_PATIENCE) -> None:
        """Run the queued callbacks and end the thread; closing twice is fine.

        Args:
            patience: Seconds to wait for the thread; after that, it ends by itself.
        """
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is None:
            return
        self._callbacks.put(None)
        # A callback may close the pool that called it.
        if thread is not threading.current_thread():
            thread.join(patience)

    def runs_here(self) -> bool:
        """Return whether the current thread is the callback thread."""
        return threading.current_thread() is self._thread

    def _start(self) -> bool:
        """Start the thread if needed; return whether it runs."""
        if self._thread is None:
            thread = new_thread(self._run, name=self._purpose)
            try:
                thread.start()
            except RuntimeError:  # the program is ending and starts no more threads
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        while (callback := self._callbacks.get()) is not None:
            _run(callback)
            del callback  # its references must not live until the next callback


def _run(callback: Callable[[], object]) -> None:
    try:
        callback()
    except BaseException:
        # Also SystemExit: it would end the thread, and later callbacks would not run.
        _log.exception("a callback raised")
