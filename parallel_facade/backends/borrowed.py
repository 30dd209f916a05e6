"""A back-end that belongs to somebody else, used for a time and given back as it was.

Guarantees:
    - `close` ends what was submitted here, and leaves the workers and the work of others alone.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from parallel_facade._common.errors import PoolClosedError
from parallel_facade.backends.base import Backend, TaskFuture


class BorrowedBackend(Backend):
    """Pass everything on to *lent*, remembering what is in flight."""

    owns_workers = False

    def __init__(self, lent: Backend) -> None:
        self._lent_backend = lent
        self.capabilities = lent.capabilities
        self.segment_pool = lent.segment_pool
        self.seconds_in_chunk = lent.seconds_in_chunk
        self.chunks_in_flight = lent.chunks_in_flight
        self._lock = threading.RLock()  # guards _in_flight and _closed; see Switchboard for why R
        self._in_flight: set[TaskFuture] = set()
        self._closed = False

    @property
    def is_usable(self) -> bool:
        """Whether the lender's workers are."""
        return self._lent_backend.is_usable

    def capacity(self) -> int:
        """Return the lender's."""
        return self._lent_backend.capacity()

    def put(self, call: Any) -> Any:
        """Place *call* at the lender's."""
        return self._lent_backend.put(call)

    def listen(self, handle: Any, on_record: Callable[[bytes], object]) -> None:
        """Listen at the lender's."""
        self._lent_backend.listen(handle, on_record)

    def submit(
        self, handle: Any, chunk: Any, task_timeout: float | None = None, **more: Any
    ) -> TaskFuture:
        """Submit *chunk* to the lender."""
        with self._lock:
            if self._closed:
                raise PoolClosedError("the pool is closed")
        # Outside: a serial back-end runs the task here.
        future = self._lent_backend.submit(handle, chunk, task_timeout, **more)
        with self._lock:
            self._in_flight.add(future)
        future.add_done_callback(self._forget)
        return future

    def runs_here(self) -> bool:
        """Return whether the lender does."""
        return self._lent_backend.runs_here()

    def drop(self, handle: Any) -> None:
        """Have the lender forget the call."""
        self._lent_backend.drop(handle)

    def translate(self, error: BaseException) -> BaseException:
        """Return the lender's translation."""
        return self._lent_backend.translate(error)

    def close(self, *, cancel: bool) -> None:
        """Wait for what was submitted here or, with *cancel*, give it up."""
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
