"""What the holder of a future may do to its task while it runs, from any thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parallel_facade.backends.process.task_stopper import TaskStopper
from parallel_facade.backends.process.tasks import CallHandle, Task
from parallel_facade.backends.process.work_stealing import WorkStealer


class TaskControl:
    """Passes wishes to the parts of the manager thread, and wakes it.

    Args:
        stopper: Stops tasks.
        stealer: Splits tasks, and looks at them.
        wake: Wakes the manager thread.
    """

    def __init__(
        self, stopper: TaskStopper, stealer: WorkStealer, wake: Callable[[], object]
    ) -> None:
        self._stopper = stopper
        self._stealer = stealer
        self._wake = wake

    def stop(self, task: Task, error: BaseException) -> bool:
        """Stop the worker that runs *task*, which then fails with *error*."""
        can_stop = self._stopper.stop(task, error)
        self._wake()
        return can_stop

    def leave_rest(self, task: Task) -> None:
        """Have the worker of *task* begin no further item of it."""
        self._stealer.leave_rest(task)

    def progress(self, task: Task) -> list[Any]:
        """Return the outcomes of *task* so far."""
        return self._stealer.progress(task)

    def allow_splits(self, call: CallHandle, *, are_allowed: bool) -> None:
        """Let idle workers run parts of the tasks of *call*, or no longer."""
        self._stealer.allow(call, are_allowed=are_allowed)
        if are_allowed and self._stealer.has_work:
            self._wake()
