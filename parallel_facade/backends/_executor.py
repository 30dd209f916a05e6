"""Any `concurrent.futures.Executor` as a back-end: loky's, a Dask client's, mpi4py's.

The executor is the user's: it is never shut down here. Its own pickler only ever sees a function
of this library and bytes, so whatever travels on the process back-end travels here too.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from typing import Any

from parallel_facade._errors import WorkerCrashedError
from parallel_facade._scopes import new_scope
from parallel_facade._worker import run_as_worker, run_payload
from parallel_facade.backends import Backend, Capabilities, WorkerSettings

CAPACITY_ATTRIBUTES = ("_max_workers", "num_workers")
"""Where executors of the standard library, loky and mpi4py say how many workers they have."""


class ExecutorBackend(Backend):
    """Run chunks in the workers of an executor."""

    def __init__(self, executor: Executor, settings: WorkerSettings) -> None:
        self._executor = executor
        self._workers = _capacity_of(executor) or settings.workers
        # Only exactly this class: one that derives from it runs its tasks in other interpreters.
        self.capabilities = Capabilities(
            needs_serialization=type(executor) is not ThreadPoolExecutor
        )

    def capacity(self) -> int:
        """Return the executor's number of workers, or what was asked for if it does not tell."""
        return self._workers

    def put(self, call: Any) -> Any:
        """Give the call a name, by which a worker knows it when it comes again."""
        return (new_scope(), call) if self.capabilities.needs_serialization else call

    def submit(
        self,
        handle: Any,
        chunk: Any,
        task_timeout: float | None = None,  # noqa: ARG002 - refused by its capability
    ) -> Future[Any]:
        """Submit *chunk* to the executor."""
        if self.capabilities.needs_serialization:
            scope, call = handle
            return self._executor.submit(run_payload, scope, call, chunk)
        return self._executor.submit(run_as_worker, handle, chunk)

    def translate(self, error: BaseException) -> BaseException:
        """Return a `WorkerCrashedError` in place of the executor's own word for it."""
        if not isinstance(error, BrokenExecutor):
            return error
        crash = WorkerCrashedError(f"the executor lost its workers: {error}", exitcode=None)
        crash.__cause__ = error
        return crash

    def close(self, *, cancel: bool) -> None:
        """Leave the executor as it is: it belongs to the user."""


def _capacity_of(executor: Executor) -> int | None:
    for name in CAPACITY_ATTRIBUTES:
        number = getattr(executor, name, None)
        if isinstance(number, int) and number > 0:
            return number
    return None
