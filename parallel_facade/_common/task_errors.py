"""Errors that tell what became of a task: it took too long, or its worker died.

Apart from the others, since `import parallel_facade` does not need what they derive from.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from multiprocessing.context import TimeoutError as MultiprocessingTimeoutError

from parallel_facade._common.errors import ParallelFacadeError


class TaskTimeoutError(ParallelFacadeError, TimeoutError, MultiprocessingTimeoutError):
    """Raised when a call, or one task of it, took longer than allowed.

    Attributes:
        index: The item that took too long; `None` if it was the whole call.

    >>> import threading
    >>> try:
    ...     pmap(threading.Event().wait, [9], task_timeout=0.1, backend="process")
    ... except TaskTimeoutError as error:
    ...     print(error.index)
    0
    """

    index: int | None = None


class WorkerCrashedError(ParallelFacadeError, BrokenExecutor):
    """Raised when a worker died while it held a task, or could not be started.

    Attributes:
        exitcode: The worker's exit code; the negative signal number if a signal ended the worker;
            `None` if it is not known.
        index: The item that the worker was running; `None` if there was no item.

    >>> import os
    >>> try:
    ...     pmap(os._exit, [3], backend="process")
    ... except WorkerCrashedError as error:
    ...     print(error.exitcode, error.index)
    3 0
    """

    def __init__(self, message: str, *, exitcode: int | None) -> None:
        super().__init__(message)
        self.exitcode = exitcode
        self.index: int | None = None


for _cls in (TaskTimeoutError, WorkerCrashedError):
    # So that tracebacks and logs show these classes under the names that users import.
    _cls.__module__ = "parallel_facade"
