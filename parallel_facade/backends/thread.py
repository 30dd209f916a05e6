"""The thread back-end: long-running loops in pathos' `ThreadPool`, fed by one queue.

    submit ──► queue ──► N × loop (each one call of the pathos pool) ──► future

Guarantees:
    - A task that was cancelled before a loop took it is not run.
    - `close(cancel=True)` does not wait for a task that runs; its thread ends with it.

Assumes:
    - User code runs with no lock of ours held.
"""

from __future__ import annotations

import itertools
import queue
import threading
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, NamedTuple

from parallel_facade._common.error_notes import note_initializer
from parallel_facade._common.errors import PoolClosedError
from parallel_facade._common.worker_role import WorkerRole
from parallel_facade._worker.run_chunk import Call, Chunk, run_as_worker
from parallel_facade.backends.base import Backend, Capabilities, TaskFuture, WorkerSettings

_pool_numbers = itertools.count()


@dataclass
class _Handle:
    call: Call
    context: Context  # the caller's, of which each chunk gets a copy
    is_dropped: bool = False


class _Task(NamedTuple):
    future: TaskFuture
    handle: _Handle
    chunk: Chunk


class ThreadBackend(Backend):
    """Run chunks in threads of this process."""

    capabilities = Capabilities(needs_serialization=False, can_initialize=True)

    def __init__(self, settings: WorkerSettings) -> None:
        from pathos.threading import ThreadPool

        self._workers = settings.workers
        self._initializer = settings.initializer
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        # Guards _closed with its order to puts, and _outstanding. Reentrant: a collection may run
        # anywhere, and in it the user's __del__, which may call us.
        self._lock = threading.RLock()
        self._closed = False
        self._outstanding = 0
        self._broken: BaseException | None = None  # set once, by any thread; then it stays
        # pathos keeps pools in a table by id: with one of our own, no two back-ends share threads.
        self._id = f"parallel_facade-{next(_pool_numbers)}"
        # In an empty context: where threads inherit one, it would be the caller's, kept for good.
        self._pool: Any = Context().run(lambda: ThreadPool(nodes=self._workers, id=self._id))
        self._loops = [self._pool.apipe(self._run_tasks) for _ in range(self._workers)]

    @property
    def is_usable(self) -> bool:
        """Whether the threads could be initialized."""
        return self._broken is None

    def capacity(self) -> int:
        """Return the number of threads."""
        return self._workers

    def put(self, call: Call) -> _Handle:
        """Keep the context variables of the caller with the call."""
        return _Handle(call, copy_context())

    def submit(
        self,
        handle: _Handle,
        chunk: Chunk,
        task_timeout: float | None = None,  # noqa: ARG002 - refused by its capability
    ) -> TaskFuture:
        """Queue *chunk* for the next free thread."""
        future = TaskFuture()
        with self._lock:
            if self._closed:
                raise PoolClosedError("the thread back-end is closed")
            self._outstanding += 1
            self._tasks.put(_Task(future, handle, chunk))
        return future

    def drop(self, handle: _Handle) -> None:
        """Run nothing more of the call: such as its caller was interrupted before it knew of it."""
        handle.is_dropped = True

    def close(self, *, cancel: bool) -> None:
        """End the threads: after what is queued or, with *cancel*, as soon as they can."""
        with self._lock:
            self._closed = True
        if cancel:
            self._cancel_queued()
        for _ in range(self._workers):  # more of these than threads do no harm
            self._tasks.put(None)
        if (pool := self._pool) is None:
            return
        pool.close()
        if cancel and self._outstanding:
            self._abandon(pool)
        else:
            pool.clear()
        # Files of theirs close when the last reference goes, which the user's to us may outlive.
        self._pool = None
        self._loops = []

    def _cancel_queued(self) -> None:
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                return
            if task is not None:
                task.future.cancel()
                self._end_task()

    def _abandon(self, pool: Any) -> None:
        """Let the pool's own threads end although a task still runs.

        They wait for the results of the loops, which a task that never ends would keep from
        them for ever; so the loops' results are settled here.
        """
        for loop in self._loops:
            if not loop.ready():
                settle(loop)
        pool.__state__.pop(self._id, None)

    def _run_tasks(self) -> None:
        with WorkerRole():
            error = self._initialize()
        while (task := self._tasks.get()) is not None:
            _run(task, error)
            self._end_task()
            del task  # the results of the last task must not live until the next one

    def _end_task(self) -> None:
        with self._lock:
            self._outstanding -= 1

    def _initialize(self) -> BaseException | None:
        try:
            if callable(self._initializer):
                self._initializer()
        except BaseException as exc:
            note_initializer(exc)
            self._broken = exc
            return exc
        return None


def _run(task: _Task, broken: BaseException | None) -> None:
    if task.handle.is_dropped:
        task.future.cancel()
    if not task.future.set_running_or_notify_cancel():
        return
    if broken is not None:
        task.future.set_exception(broken)
        return
    try:
        context = task.handle.context.copy()
        task.future.set_result(context.run(run_as_worker, task.handle.call, task.chunk))
    except BaseException as exc:
        task.future.set_exception(exc)


def settle(result: Any) -> None:
    """Complete a pathos pool's call by hand, so that the pool does not wait for it for ever."""
    try:
        result._set(0, (True, None))
    except KeyError:
        # The pool's own result thread was faster, and has removed it from its table.
        return
