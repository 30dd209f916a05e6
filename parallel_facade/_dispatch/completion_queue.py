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

SAID: Final[Future[Any]] = Future()
"""Comes where something was said."""


class Mailbox:
    """A queue of resolved futures; anybody may put, one consumer takes."""

    def __init__(self) -> None:
        self.said: deque[bytes] = deque()
        """Remarks of tasks, not shown yet. Each was there before the future of its chunk."""
        self._arrived: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._ring: Callable[[], object] | None = None

    def say(self, remark: bytes) -> None:
        """Deliver *remark*; this is called by the thread that has heard it."""
        self.said.append(remark)
        self.put(SAID)

    def put(self, future: Future[Any]) -> None:
        """Deliver *future*; this is called by the thread that resolved it."""
        self._arrived.put(future)
        # After the put: a consumer that looked before it finds the bell rung.
        if (ring := self._ring) is not None:
            ring()

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
        bell = asyncio.Event()

        def ring() -> None:
            with suppress(RuntimeError):  # the loop was closed, and nobody waits any more
                loop.call_soon_threadsafe(bell.set)

        self._ring = ring
        try:
            if self._arrived.empty():
                async with asyncio.timeout(timeout):
                    await bell.wait()
        except TimeoutError:
            return
        finally:
            self._ring = None
