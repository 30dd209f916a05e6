"""Stops tasks: on request, when their time is up, and when their caller is gone.

    stop, stop_overdue, stop_orphans ─► mark ─► stop_marked ─► Reaper

Guarantees:
    - A worker is stopped for a task only while it still has that task.
    - Nothing here waits.
"""

from __future__ import annotations

import operator
import threading
from collections import deque

from parallel_facade._common.deadlines import Deadline
from parallel_facade._common.errors import PoolClosedError
from parallel_facade._common.task_errors import TaskTimeoutError
from parallel_facade.backends.process.reaper import Reaper
from parallel_facade.backends.process.scheduler import TaskScheduler
from parallel_facade.backends.process.tasks import CallHandle, Task
from parallel_facade.backends.process.worker_handle import WorkerHandle


class TaskStopper:
    """Stops tasks by stopping their workers.

    Args:
        scheduler: Knows which worker has which task.
        lock: Guards that.
        reaper: Stops workers.
    """

    def __init__(self, scheduler: TaskScheduler, lock: threading.RLock, reaper: Reaper) -> None:
        self._scheduler = scheduler
        self._lock = lock
        self._reaper = reaper
        self._marked: deque[WorkerHandle] = deque()

    def seconds_to_next(self) -> float | None:
        """Return the seconds until there is something to do; `None` if nothing is timed."""
        if self._marked:
            return 0
        if not self._scheduler.has_timed:
            return None
        with self._lock:
            tasks = list(filter(None, map(_task_of, self._scheduler.workers)))
        left = [task.deadline.remaining() for task in tasks]
        return min((one for one in left if one is not None), default=None)

    def stop(self, task: Task, error: BaseException) -> bool:
        """Have the worker that runs *task* stopped; *task* then fails with *error*."""
        with self._lock:
            if (worker := task.worker) is None:
                return False
            worker.may_run_again = False
            self._mark(worker, error)
        return True

    def _mark(self, worker: WorkerHandle, error: BaseException) -> None:
        worker.stopped_for = error
        self._marked.append(worker)

    def stop_overdue(self, listened_at: float) -> None:
        """Have tasks stopped whose time was up when the thread last listened, at *listened_at*.

        Not tasks whose time is up now:

        1. manager  listens, and receives nothing
        2. worker   sends that it has rebuilt the callable, just in time
        3. manager  is late to look at the clock, because the machine is busy
        """
        for worker in list(self._scheduler.workers):
            with self._lock:
                self._stop_if_overdue(worker, listened_at)

    def _stop_if_overdue(self, worker: WorkerHandle, listened_at: float) -> None:
        if worker.task is not None and worker.task.deadline.is_before(listened_at):
            limit = worker.task.deadline.seconds
            what = "a task" if limit == worker.task.task_timeout else "rebuilding a callable"
            self._mark(worker, TaskTimeoutError(f"{what} took longer than {limit:g} seconds"))
            worker.task.deadline = Deadline(None)

    def stop_orphans(self, handle: CallHandle) -> None:
        """Stop the tasks of a dropped call whose caller does not know of them.

        1. main thread  submits a task, which a worker begins
        2. user         presses Ctrl-C; the interrupt is raised before `submit` has returned
        3. caller       stops the tasks that it knows, and drops the call
        """
        with self._lock:
            tasks = list(self._scheduler.all_tasks())
        for task in tasks:
            if task.call is handle and not task.cancel():
                self.stop(task, PoolClosedError("the call was given up"))

    def stop_marked(self) -> None:
        """Stop the workers that were marked and still have their task."""
        while self._marked:
            worker = self._marked.popleft()
            with self._lock:
                if (
                    worker.stopped_for is None  # its task has ended meanwhile
                    or worker.is_leaving
                    or worker not in self._scheduler.workers
                ):
                    continue
                worker.is_leaving = True
            self._reaper.end(worker)

    def close(self) -> None:
        """Forget the workers that were marked."""
        self._marked.clear()


_task_of = operator.attrgetter("task")
