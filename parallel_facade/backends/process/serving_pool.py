"""The pathos pool, whose processes serve.

    ProcessPool(nodes=N, maxtasksperchild=1, context=WorkerContext(...))
        │ starts and replaces processes
        ▼
    each process takes one call of `serve`, and exits when it returns

Guarantees:
    - pathos replaces a process that exits; `serve_once` gives the new one its call of `serve`.
    - After `clear`, no process, thread or file of the pool is left.
"""

from __future__ import annotations

import itertools
import os
import threading
from contextlib import suppress
from typing import Any

from parallel_facade.backends.process.worker_loop import serve
from parallel_facade.backends.thread import settle

_numbers = itertools.count()


class ServingPool:
    """A pathos pool with a call of `serve` for each of its processes that has started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _pool and _serves
        self._pool: Any = None
        self._serves: list[Any] = []

    @property
    def is_made(self) -> bool:
        """Whether pathos has made the pool."""
        return self._pool is not None

    def open(self, workers: int, context: Any) -> None:
        """Make the pool, with processes from *context*."""
        from pathos.multiprocessing import ProcessPool

        # pathos keeps pools in a table by id: with its own id, no two back-ends share workers.
        pool_id = f"parallel_facade-{os.getpid()}-{next(_numbers)}"
        # Workers may die before the pool is made; then the manager thread calls `serve_once`.
        with self._lock:
            self._pool = ProcessPool(nodes=workers, id=pool_id, maxtasksperchild=1, context=context)

    def serve_once(self) -> None:
        """Give the pool one call of `serve`, for a process that is starting."""
        with self._lock, suppress(ValueError):  # closed meanwhile: it starts no more processes
            if self._pool is None:
                return
            self._serves = [*_not_ready(self._serves), self._pool.apipe(serve)]
            # Wake the pool, so that it checks for dead processes: a process that a task left
            # behind can keep it from noticing them by itself.
            self._pool._serve()._change_notifier.put(None)

    def end(self) -> None:
        """Close the pool, so that it replaces no more workers, and settle its calls.

        A call of `serve` whose process died never completes by itself:
            1. worker  takes the call, and dies
            2. pool    starts a replacement, but no process has the call
            3. join    waits for the call's result forever
        """
        with self._lock:
            if self._pool is not None:
                self._pool.close()
            serves, self._serves = self._serves, []
        for call in _not_ready(serves):
            settle(call)

    def clear(self) -> None:
        """Join the processes, which have been told to exit, and release the pool."""
        if self._pool is not None:
            self._pool.clear()
        # The pool's files close with the last reference.
        self._pool = None


def _not_ready(calls: list[Any]) -> list[Any]:
    return [call for call in calls if not call.ready()]
