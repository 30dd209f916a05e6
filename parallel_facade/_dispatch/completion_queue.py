"""Queues the resolved futures of one call, for a consumer in a thread or in a coroutine.

Relayed records of running tasks are kept beside the futures:

    resolved futures, splits ──put► take, in the order of their arrival
    relayed records ───put_record─► records, with RECORD_CAME to take
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, NamedTuple

RECORD_CAME: Final[Future[Any]] = Future()
"""Arrives instead of a future when a relayed record has come."""


class Split(NamedTuple):
    """Arrives when a running chunk was split.

    Attributes:
        future: The future of the chunk.
        rest: The future of the rest, which another worker gets.
        kept: How many items, from the first, the chunk keeps.
        at: The time of the split.
    """

    future: Any
    rest: Any
    kept: int
    at: float


Arrival = Future[Any] | Split


class CompletionQueue:
    """A queue of resolved futures; any thread may put, one consumer takes."""

    def __init__(self) -> None:
        self.records: deque[bytes] = deque()
        """Relayed records that are not shown yet. Each arrives before the future of its chunk."""
        self._arrived: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._is_closed = False
        self._wake: Callable[[], object] | None = None

    def put_record(self, record: bytes) -> None:
        """Add *record*; called by the thread that received it."""
        self.records.append(record)
        self.put(RECORD_CAME)

    def put_split(self, future: Any, rest: Any, kept: int) -> None:
        """Add a split; called before the rest is sent, and so before either future is resolved."""
        self.put(Split(future, rest, kept, time.time()))

    def put(self, future: Arrival) -> None:
        """Add *future*; called by the thread that resolved it."""
        self._arrived.put(RECORD_CAME if self._is_closed else future)
        # After the put, so that a consumer that checked the queue before the put is woken.
        if (wake := self._wake) is not None:
            wake()

    def close(self) -> None:
        """Keep no futures any more; a consumer that waits is woken.

        A future refers to this queue by its callback. If the queue referred to the future as well,
        the arguments of an abandoned chunk would wait for the garbage collector.
        """
        self._is_closed = True
        while self.take(0) is not None:
            pass
        self.put(RECORD_CAME)

    def take(self, timeout: float | None) -> Arrival | None:
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
        import asyncio  # loaded already in a program that uses it; others need not wait for it

        loop = asyncio.get_running_loop()
        waker = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed, and nothing waits in it any more
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


def when_all_done(futures: Sequence[Future[Any]], action: Callable[[], object]) -> None:
    """Call *action* once all *futures* are done."""
    if not futures:
        action()
        return
    left = len(futures)
    lock = threading.Lock()  # guards left: back-ends resolve futures in any thread

    def count(_: Future[Any]) -> None:
        nonlocal left
        with lock:
            left -= 1
            was_last = left == 0
        if was_last:
            action()

    for future in futures:
        future.add_done_callback(count)
