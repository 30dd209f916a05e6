"""The thread that makes a pool and ends it, since no Ctrl-C is raised in it.

    main thread    open ─told─► makes it ─opened─►   ...   close ─told─► ends it ─ended─►
                     └─ Ctrl-C ─told────► ends it

Guarantees:
    - What was begun to be made is ended: by `close`, or since an interrupt or an error came first.
    - An interrupt ends the waiting for the end, and not the end itself.

Assumes:
    - What ends it can do so whatever of it was made.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from parallel_facade._common.threads import new_thread


class LifecycleThread:
    """Has *make* and *end* called, once each, in a thread of its own.

    Waiting is by locks, since an interrupt leaves a lock to whoever waits next. It can leave a
    condition locked, and `threading.Thread.start` waits by one: so the thread is there before
    anything is made.
    """

    def __init__(self, make: Callable[[], object], end: Callable[[], object]) -> None:
        self._make = make
        self._end = end
        self._error: BaseException | None = None
        self._requests: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._opened = threading.Lock()  # held until it was made
        self._opened.acquire()
        self._ended = threading.Lock()  # held until it has ended
        self._ended.acquire()
        self._thread = new_thread(self._run, name="keeper")
        try:
            self._thread.start()
        except BaseException:
            # It may run although an interrupt has ended the waiting for its start.
            self._requests.put("leave")
            raise

    def open(self) -> None:
        """Have it made; raise what that raises."""
        try:
            self._requests.put("open")
            with self._opened:
                pass
        except BaseException:
            self.close()
            raise
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame

    def request_close(self) -> None:
        """Have it ended, without waiting."""
        self._requests.put("close")

    def runs_here(self) -> bool:
        """Return whether the current thread is this one."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Have it ended, and wait for that; closing twice is fine."""
        self.request_close()
        with self._ended:
            pass
        self._thread.join()

    def _run(self) -> None:
        request = self._requests.get()
        if request == "leave":
            return
        try:
            if request == "open":
                self._try_to_make()
                if self._error is None:
                    self._opened.release()
                    self._requests.get()
            self._end()
        finally:
            del self._make, self._end
            self._ended.release()
            if self._opened.locked():
                self._opened.release()

    def _try_to_make(self) -> None:
        try:
            self._make()
        except BaseException as exc:
            self._error = exc
