"""The thread that fetches the results of Dask's tasks, several at a time.

    dask future ends, or is unwanted ──put──► batch ──gather──► EngineFuture

Guarantees:
    - Results are fetched together, at most as many as are in flight.
    - The thread is there only while there are tasks.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import Any

from parallel_facade._common.errors import BackendLostError
from parallel_facade._common.threads import new_thread
from parallel_facade.backends.engines.tasks import EngineFuture


class DaskFuture(EngineFuture):
    """The future of a task that Dask runs.

    Args:
        number: The number with which the task reports its start.
        dask_future: Dask's own future.
        worker: The address of the preferred worker; `None` for any worker.
    """

    def __init__(self, number: int, dask_future: Any, worker: str | None) -> None:
        super().__init__()
        self.number = number
        self.dask_future = dask_future
        self.worker = worker
        self.is_unwanted: bool = False
        """Whether the task is to be taken back."""

    def end_with_dasks_error(self) -> None:
        """Set the error that Dask reports."""
        try:
            error = self.dask_future.exception()
        except BaseException as exc:
            error = exc
        self.fail_with(error or BackendLostError("Dask has lost the task"))


class DaskGatherer:
    """Fetches results.

    Args:
        client: Dask's client.
        tasks: The tasks that have not ended, by number; those that have ended are removed.
    """

    def __init__(self, client: Any, tasks: dict[int, DaskFuture]) -> None:
        self._client = client
        self._tasks = tasks
        self._came: queue.SimpleQueue[DaskFuture | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards the two below
        self._is_running = False
        self._thread: threading.Thread | None = None

    def put(self, inner: DaskFuture) -> None:
        """Note that a task has ended or is unwanted; called from any thread."""
        self._came.put(inner)

    def close(self, patience: float) -> None:
        """Forget all tasks, and wait *patience* seconds for the thread."""
        self._tasks.clear()
        self._came.put(None)  # wakes the thread, which finds no tasks then
        if self._thread is not None:
            self._thread.join(patience)

    def ensure_running(self) -> None:
        with self._lock:
            if not self._is_running:
                self._is_running = True
                self._thread = new_thread(self._gather, name="gather")
                self._thread.start()

    def _gather(self) -> None:
        # In a separate function, so that no reference to a fetched result exists during a wait.
        while self._has_tasks():
            self._fetch_batch()

    def _has_tasks(self) -> bool:
        """Return whether there are tasks to wait for; if not, the thread ends."""
        with self._lock:
            self._is_running = bool(self._tasks)
            return self._is_running

    def _fetch_batch(self) -> None:
        batch = self._next_batch()
        # Before they end: their ends send other tasks, to the worker with the fewest of these.
        for inner in batch:
            self._tasks.pop(inner.number, None)
        try:
            self._end(batch)
        except BaseException as exc:  # our own bug: nobody else would end them
            for inner in batch:
                inner.fail_with(exc)

    def _end(self, batch: list[DaskFuture]) -> None:
        if unwanted := [one.dask_future for one in batch if one.is_unwanted]:
            with suppress(Exception):  # the scheduler is lost
                self._client.cancel(unwanted)
        finished = [inner for inner in batch if inner.dask_future.status == "finished"]
        for inner in batch:
            if inner not in finished:
                inner.end_with_dasks_error()
        if finished:
            self._fetch(finished)

    def _next_batch(self) -> list[DaskFuture]:
        """Return all tasks that have ended or are unwanted; wait for the first of them."""
        batch = [self._came.get()]
        while not self._came.empty():
            batch.append(self._came.get())
        return [inner for inner in batch if inner is not None]

    def _fetch(self, finished: list[DaskFuture]) -> None:
        try:
            values = self._client.gather([inner.dask_future for inner in finished])
        except BaseException as exc:
            if len(finished) == 1:
                finished[0].fail_with(exc)
                return
            for inner in finished:
                self._fetch([inner])
            return
        for inner, value in zip(finished, values, strict=True):
            inner.end_with(value)
