"""Use any `concurrent.futures.Executor` as a back-end: loky's, executorlib's, mpi4py's.

The executor belongs to the user, so it is never shut down here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from parallel_facade._common.task_errors import WorkerCrashedError
from parallel_facade._worker.remote_entry import run_remote
from parallel_facade._worker.run_chunk import run_as_worker
from parallel_facade.backends.base import Capabilities, TaskFuture, WorkerSettings
from parallel_facade.backends.engines.base import RemoteBackend
from parallel_facade.backends.engines.executor_threads import ThreadFuture, helper_of

CAPACITY_ATTRIBUTES = ("_max_workers", "num_workers")
"""Where executors of the standard library, loky and mpi4py keep their number of workers."""

_never_ending_in: Final[WeakKeyDictionary[Executor, WeakSet[Future[Any]]]] = WeakKeyDictionary()
"""Executor → its futures of tasks that any call has given up: their workers are busy. The sets are
weak: the executor holds each unresolved future, and the future's callbacks hold the executor."""


class ExecutorBackend(RemoteBackend):
    """Run chunks in the workers of an executor."""

    owns_workers = False
    is_paced = False  # its futures can be cancelled

    capabilities: Capabilities = Capabilities(needs_serialization=True, can_time_tasks=True)

    def __init__(self, settings: WorkerSettings, executor: Executor) -> None:
        super().__init__(settings)
        self._executor: Any = executor
        capacity = _capacity_of(executor)
        self._slots = capacity or settings.workers
        if capacity is not None:  # else there may be more workers than we count
            with suppress(TypeError):  # the executor cannot be a key
                self._never_ending = _never_ending_in.setdefault(executor, WeakSet())
        # Exactly this class: a class derived from it runs its tasks in other interpreters.
        if type(executor) is ThreadPoolExecutor:
            self.capabilities = Capabilities(needs_serialization=False)
            self._helper = helper_of(executor)

    def put(self, call: Any) -> Any:
        """Give the call an id, by which a worker recognizes it the next time.

        For threads of this process, keep the caller's context variables with the call instead.
        """
        if self.capabilities.needs_serialization:
            return super().put(call)
        return call, copy_context()

    def listen(self, handle: Any, on_record: Callable[[bytes], object]) -> None:
        """Call *on_record* with the relayed records of workers in other processes."""
        if self.capabilities.needs_serialization:
            super().listen(handle, on_record)

    def submit(
        self, handle: Any, chunk: Any, task_timeout: float | None = None, **more: Any
    ) -> TaskFuture:
        """Submit *chunk* to the executor."""
        if self.capabilities.needs_serialization:
            return super().submit(handle, chunk, task_timeout, **more)
        call, context = handle
        helper, run = self._helper, functools.partial(context.copy().run, run_as_worker)

        def run_noted() -> Any:
            helper.running.begin()
            try:
                return run(call, chunk)
            finally:
                helper.running.end()

        future = ThreadFuture(self._executor, run_noted)
        helper.watch(future)
        return future

    def drop(self, handle: Any) -> None:
        """Do nothing: workers forget the call when they have loaded newer calls."""

    def translate(self, error: BaseException) -> BaseException:
        """Return a `WorkerCrashedError` instead of the executor's own error."""
        if not isinstance(error, BrokenExecutor):
            return error
        crash = WorkerCrashedError(
            f"the executor lost its workers: {error}\n\n"
            "Hint: it accepts no more tasks; make a new executor.",
            exitcode=None,
        )
        crash.__cause__ = error
        return crash

    def send(self, function_arguments: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = self._executor.submit(run_remote, *function_arguments)
        return future

    def close_engine(self) -> None:
        """Leave the executor as it is: it belongs to the user."""


def _capacity_of(executor: Executor) -> int | None:
    for name in CAPACITY_ATTRIBUTES:
        number = getattr(executor, name, None)
        if isinstance(number, int) and number > 0:
            return number
    return None
