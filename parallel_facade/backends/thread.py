"""The thread back-end: long-running loops in pathos' `ThreadPool`, fed by one queue.

    submit ──► queue ──► N × loop (each one call of the pathos pool) ──► future
                 └─ all loops wait for this thread ──► a helper for its tasks

If all loops run tasks that wait for a thread, a helper runs what that thread has submitted, one
after the other; see `waiting_threads`.

Guarantees:
    - A task that was cancelled before a loop took it does not run.
    - No more tasks run than there are loops, but for those of threads that running tasks seem to
      wait for; see `waiting_threads` for when that is wrong.
    - `close(cancel=True)` does not wait for a running task; its thread ends when the task ends.

Assumes:
    - User code runs while no lock of this package is held.
"""

from __future__ import annotations

import functools
import itertools
import queue
import threading
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from parallel_facade._common.dill_import import import_dill
from parallel_facade._common.error_notes import note_initializer
from parallel_facade._common.errors import PoolClosedError
from parallel_facade._common.polling_thread import PollingThread
from parallel_facade._common.threads import new_thread
from parallel_facade._common.worker_role import WorkerRole
from parallel_facade._worker.run_chunk import Call, Chunk, run_as_worker
from parallel_facade.backends.base import Backend, Capabilities, TaskFuture, WorkerSettings
from parallel_facade.backends.thread_tasks import TaskRegister, ThreadTask
from parallel_facade.backends.waiting_threads import (
    PATIENCE,
    RunningTasks,
    WaitingThreads,
)

_pool_numbers = itertools.count()


@dataclass
class _Handle:
    call: Call
    context: Context  # the caller's; each chunk gets a copy
    is_dropped: bool = False


class ThreadBackend(Backend):
    """Run chunks in threads of this process."""

    capabilities: Capabilities = Capabilities(needs_serialization=False, can_initialize=True)

    def __init__(self, settings: WorkerSettings) -> None:
        self._workers = settings.workers
        self._initializer = settings.initializer
        self._tasks: queue.SimpleQueue[ThreadTask | None] = queue.SimpleQueue()
        # Guards _closed, its order relative to puts, and the register. Reentrant: garbage
        # collection may run anywhere and call the user's __del__, which may call this object.
        self._lock = threading.RLock()
        self._register = TaskRegister(self._workers, self._lock)
        self._running = RunningTasks(self._workers)
        self._waiting = WaitingThreads(self._running)
        self._helping = PollingThread(self._help_who_waits, name="helper")
        self._closed = False
        self._broken: BaseException | None = None  # any thread sets it, once
        # pathos keeps pools in a table by id: with its own id, no two back-ends share threads.
        self._id = f"parallel_facade-{next(_pool_numbers)}"
        # In an empty context: threads that inherit a context would keep the caller's forever.
        self._pool: Any = Context().run(self._new_pool)
        self._loops = [self._pool.apipe(self._run_tasks) for _ in range(self._workers)]

    def _new_pool(self) -> Any:
        import_dill()
        from pathos.threading import ThreadPool

        try:
            return ThreadPool(nodes=self._workers, id=self._id)
        except AttributeError as exc:
            # The pool then tries to terminate threads, and that hides what the system has said.
            if isinstance(exc.__context__, RuntimeError):
                raise exc.__context__ from None
            raise

    @property
    def is_usable(self) -> bool:
        """Whether no initializer has failed."""
        return self._broken is None

    def capacity(self) -> int:
        """Return the number of threads."""
        return self._workers

    def put(self, call: Call) -> _Handle:
        """Store the caller's context variables with the call."""
        return _Handle(call, copy_context())

    def submit(
        self,
        handle: _Handle,
        chunk: Chunk,
        task_timeout: float | None = None,  # noqa: ARG002 - refused by its capability
    ) -> TaskFuture:
        """Queue *chunk* for the next free thread."""
        future = TaskFuture()
        task = ThreadTask(future, handle, chunk, threading.get_ident())
        with self._lock:
            if self._closed:
                raise PoolClosedError("the thread back-end is closed")
            self._register.add(task)
            self._tasks.put(task)
        self._watch_who_waits()
        return future

    def drop(self, handle: _Handle) -> None:
        """Run no more of the call, for example if its caller was interrupted inside `submit`."""
        handle.is_dropped = True

    def close(self, *, cancel: bool) -> None:
        """Stop the threads: after the queued chunks or, with *cancel*, as soon as they can."""
        with self._lock:
            self._closed = True
        if cancel:
            self.cancel_waiting()
        for _ in range(self._workers):  # more of these than threads do no harm
            self._tasks.put(None)
        if (pool := self._pool) is None:
            return
        pool.close()
        if cancel and self._register.outstanding:
            self._abandon(pool)
        else:
            pool.clear()
        # The pool's files close with the last reference, and the user may keep this object.
        self._pool = None
        self._loops = []

    def cancel_waiting(self) -> None:
        """Cancel the chunks that no thread has taken."""
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                return
            if task is not None and self._register.take(task, by_loop=False):
                task.future.cancel()
                self._register.end(task, by_loop=False)

    def _abandon(self, pool: Any) -> None:
        """Let the pool's own threads end although a task still runs.

        They wait for the results of the loops, and a task that never ends would block them
        forever. So the results of the loops are settled here.
        """
        for loop in self._loops:
            if not loop.ready():
                settle(loop)
        pool.__state__.pop(self._id, None)

    def _run_tasks(self) -> None:
        with WorkerRole():
            error = self._initialize()
        while (task := self._tasks.get()) is not None:
            if self._register.take(task, by_loop=True):
                self._watch_who_waits()
                _run(task, error, self._running)
                self._register.end(task, by_loop=True)
            del task  # so that its results do not live until the next task

    def _watch_who_waits(self) -> None:
        if self._register.waiting():
            with suppress(RuntimeError):  # no more threads: tasks wait until a loop is free
                self._helping.start()

    def _help_who_waits(self) -> float | None:
        """Start a helper for each thread that running tasks wait for."""
        waiting = self._register.waiting()
        for submitter in self._waiting.due(waiting):
            self._register.begin_help(submitter)
            helper = new_thread(functools.partial(self._help, submitter), name="helper")
            try:
                helper.start()
            except RuntimeError:  # no more threads
                self._register.end_help(submitter)
        return PATIENCE if waiting else None

    def _help(self, submitter: int) -> None:
        """Run the tasks of *submitter* that no loop has taken."""
        with WorkerRole():
            error = self._initialize()
        while (task := self._register.next_for_helper(submitter)) is not None:
            _run(task, error, self._running)
            self._register.end(task, by_loop=False)
            del task

    def _initialize(self) -> BaseException | None:
        try:
            if callable(self._initializer):
                self._initializer()
        except BaseException as exc:
            note_initializer(exc)
            self._broken = exc
            return exc
        return None


def _run(task: ThreadTask, broken: BaseException | None, running: RunningTasks) -> None:
    if task.handle.is_dropped:
        task.future.cancel()
    if not task.future.set_running_or_notify_cancel():
        return
    if broken is not None:
        task.future.set_exception(broken)
        return
    context = task.handle.context.copy()
    running.begin()
    try:
        task.future.set_result(context.run(run_as_worker, task.handle.call, task.chunk))
    except BaseException as exc:
        task.future.set_exception(exc)
    finally:
        running.end()


def settle(result: Any) -> None:
    """Complete a call of a pathos pool by hand, so that the pool does not wait for it forever."""
    try:
        result._set(0, (True, None))
    except KeyError:
        # The pool's own result thread was faster, and has removed the call from its table.
        return
