"""Where what comes of one call arrives, for a consumer that waits in a thread or in a coroutine.

What tasks say while they run is beside them:

    futures, when they are resolved ──put──► take, in the order of their arrival
    remarks ──────────────────────────say──► said, with SAID to take
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

RECORD_CAME: Final[Future[Any]] = Future()
"""Comes where something was said."""


class CompletionQueue:
    """A queue of resolved futures; anybody may put, one consumer takes."""

    def __init__(self) -> None:
        self.records: deque[bytes] = deque()
        """Remarks of tasks, not shown yet. Each was there before the future of its chunk."""
        self._arrived: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._wake: Callable[[], object] | None = None

    def put_record(self, record: bytes) -> None:
        """Deliver *record*; this is called by the thread that has heard it."""
        self.records.append(record)
        self.put(RECORD_CAME)

    def put(self, future: Future[Any]) -> None:
        """Deliver *future*; this is called by the thread that resolved it."""
        self._arrived.put(future)
        # After the put: a consumer that looked before it finds the bell rung.
        if (wake := self._wake) is not None:
            wake()

    def take(self, timeout: float | None) -> Future[Any] | None:
        """Return the next future, waiting *timeout* seconds; `None` if none came."""
        try:
            return self._arrived.get(timeout=timeout)
        except queue.Empty:
            return None

    @property
    def count(self) -> int:
        """How many futures can be taken now."""
        return self._arrived.qsize()

    async def arrival(self, timeout: float | None) -> None:
        """Wait in a coroutine until a future can be taken, *timeout* seconds at most."""
        import asyncio  # whoever comes here has it already, and others need not wait for it

        loop = asyncio.get_running_loop()
        waker = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed, and nobody waits any more
                loop.call_soon_threadsafe(waker.set)

        self._wake = wake
        try:
            if self._arrived.empty():
                async with asyncio.timeout(timeout):
                    await waker.wait()
        except TimeoutError:
            return
        finally:
            self._wake = None
