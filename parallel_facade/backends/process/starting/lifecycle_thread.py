"""Make, grow and end a pool in a separate thread, because no Ctrl-C is raised there.

    main thread    open ─request─► make ─opened─►   ...   close ─request─► end ─ended─►
                     └─ Ctrl-C ─request─► end
    manager thread                     request_growth ─► grow

Guarantees:
    - If the making has begun, the pool is ended: by `close`, or because of an interrupt or error.
    - An interrupt stops the wait for the end, not the end itself.

Assumes:
    - *end* works however far *make* got.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from parallel_facade._common.threads import new_thread


class LifecycleThread:
    """Calls *make* and *end*, once each, and *grow* in between, in its own thread.

    Waits use locks, because an interrupted wait leaves a lock to the next waiter. An interrupt can
    leave a condition locked, and `threading.Thread.start` waits on a condition. So the thread
    starts before anything is made.
    """

    def __init__(
        self,
        make: Callable[[], object],
        end: Callable[[], object],
        grow: Callable[[], object] = lambda: None,
    ) -> None:
        self._make = make
        self._grow = grow
        self._end = end
        self._error: BaseException | None = None
        self._requests: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._opened = threading.Lock()  # held until the pool is made
        self._opened.acquire()
        self._ended = threading.Lock()  # held until the pool has ended
        self._ended.acquire()
        self._thread = new_thread(self._run, name="lifecycle")
        try:
            self._thread.start()
        except BaseException:
            # The thread may run although an interrupt has stopped the wait for its start.
            self._requests.put("leave")
            raise

    def open(self) -> None:
        """Make the pool; raise what *make* raises."""
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

    def request_growth(self) -> None:
        """Request one call of *grow*, without waiting; a request after the end does nothing."""
        self._requests.put("grow")

    def request_close(self) -> None:
        """Request the end of the pool, without waiting."""
        self._requests.put("close")

    def runs_here(self) -> bool:
        """Return whether the current thread is this one."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """End the pool, and wait for that; closing twice is fine."""
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
                    self._grow_until_closed()
            self._end()
        finally:
            del self._make, self._grow, self._end
            self._ended.release()
            if self._opened.locked():
                self._opened.release()

    def _grow_until_closed(self) -> None:
        while self._requests.get() == "grow":
            self._grow()

    def _try_to_make(self) -> None:
        try:
            self._make()
        except BaseException as exc:
            self._error = exc
