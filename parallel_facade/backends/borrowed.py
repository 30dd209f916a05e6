"""A back-end that belongs to another pool, used for a time and returned unchanged.

Guarantees:
    - `close` ends the chunks submitted here, and leaves the workers and all other work alone.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from parallel_facade._common.errors import PoolClosedError
from parallel_facade._serialization.buffers.object_store import Store
from parallel_facade._serialization.buffers.shared_memory import SegmentPool
from parallel_facade.backends.base import Backend, Capabilities, TaskFuture
from parallel_facade.backends.kept_calls import KeptCalls


class BorrowedBackend(Backend):
    """Pass every call on to *backend*, and remember the chunks in flight."""

    owns_workers = False

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.capabilities: Capabilities = backend.capabilities
        self.segment_pool: SegmentPool | Store | None = backend.segment_pool
        self.kept_calls: KeptCalls | None = backend.kept_calls
        self.seconds_in_chunk: float = backend.seconds_in_chunk
        self.chunks_in_flight: int = backend.chunks_in_flight
        self._lock = threading.RLock()  # guards _in_flight, _closed; reentrant: see ManagerThread
        self._in_flight: set[TaskFuture] = set()
        self._closed = False

    @property
    def is_usable(self) -> bool:
        """Whether the lent back-end is usable."""
        return self._backend.is_usable

    def capacity(self) -> int:
        """Return the capacity of the lent back-end."""
        return self._backend.capacity()

    def put(self, call: Any) -> Any:
        """Put *call* into the lent back-end."""
        return self._backend.put(call)

    def listen(self, handle: Any, on_record: Callable[[bytes], object]) -> None:
        """Listen to the records of a call in the lent back-end."""
        self._backend.listen(handle, on_record)

    def submit(
        self, handle: Any, chunk: Any, task_timeout: float | None = None, **more: Any
    ) -> TaskFuture:
        """Submit *chunk* to the lent back-end."""
        with self._lock:
            if self._closed:
                raise PoolClosedError("the pool is closed")
        # Outside the lock: a serial back-end runs the task in `submit`.
        future = self._backend.submit(handle, chunk, task_timeout, **more)
        with self._lock:
            self._in_flight.add(future)
        future.add_done_callback(self._forget)
        return future

    def runs_here(self) -> bool:
        """Return whether the current thread is the lent back-end's own."""
        return self._backend.runs_here()

    def drop(self, handle: Any) -> None:
        """Make the lent back-end forget the call."""
        self._backend.drop(handle)

    def translate(self, error: BaseException) -> BaseException:
        """Return the lent back-end's translation."""
        return self._backend.translate(error)

    def cancel_waiting(self) -> None:
        """Cancel the chunks submitted here that do not run yet."""
        with self._lock:
            futures = list(self._in_flight)
        for future in reversed(futures):
            future.cancel()

    def close(self, *, cancel: bool) -> None:
        """Wait for the chunks submitted here or, with *cancel*, give them up."""
        with self._lock:
            self._closed = True
            futures = list(self._in_flight)
        if not cancel:
            ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
            for future in futures:
                future.add_done_callback(ended.put)
            for _ in futures:
                ended.get()
            return
        for future in futures:
            if not future.cancel():
                future.stop()

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._in_flight.discard(future)
