"""Workers whose channel has ended: their tasks are kept until it is known how the process exited.

    note ─► Reaper ─► exit code ─► settle ─┬─► TaskScheduler: tasks that were not begun
                                           └─► futures: outcomes so far, and the error

Guarantees:
    - A task that its worker had not begun runs on another worker; else its future fails once.

Assumes:
    - The manager thread alone calls `note` and `settle`.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator

from parallel_facade.backends.base import Stage, WorkerLost
from parallel_facade.backends.process.crash_errors import START_ATTEMPTS, crash_error
from parallel_facade.backends.process.journal import JournalSnapshot
from parallel_facade.backends.process.reaper import Reaper
from parallel_facade.backends.process.scheduler import TaskScheduler
from parallel_facade.backends.process.tasks import Task
from parallel_facade.backends.process.worker_handle import WorkerHandle

_log = logging.getLogger("parallel_facade")


class WorkerLoss:
    """Keeps the tasks of lost workers, and settles them.

    Args:
        scheduler: Has the tasks of workers.
        lock: Guards that.
        reaper: Watches the exits.
        requeue: Gives tasks to other workers, with the lock held; returns those it cannot.
    """

    def __init__(
        self,
        scheduler: TaskScheduler,
        lock: threading.RLock,
        reaper: Reaper,
        requeue: Callable[[list[Task]], list[Task]],
    ) -> None:
        self._scheduler = scheduler
        self._lock = lock
        self._reaper = reaper
        self._requeue = requeue
        self._lost: dict[WorkerHandle, list[Task]] = {}

    def note(self, worker: WorkerHandle) -> None:
        """Note that the channel of *worker* has ended: it left, was stopped, or died."""
        with self._lock:
            self._scheduler.remove(worker)
            if worker.tasks:
                self._lost[worker] = list(worker.tasks)
        worker.channel.close()
        self._reaper.watch_exit(worker)

    def workers(self) -> list[WorkerHandle]:
        """Return the workers that have tasks, and have not exited."""
        return list(self._lost)

    def tasks(self) -> Iterator[Task]:
        """Return their tasks."""
        return itertools.chain.from_iterable(self._lost.values())

    def close(self) -> None:
        """Forget them."""
        self._lost.clear()

    def settle(self, worker: WorkerHandle, code: int | None) -> None:
        """Settle the tasks of a worker that has exited with *code*, if it had any."""
        if self._lost.pop(worker, None) is None:
            return
        with self._lock:
            tasks = self._scheduler.take_all(worker)
        progress = _progress(worker)
        # The worker died of something before these tasks, such as a dropped callable. A task that
        # waited behind another task has not tried this worker at all.
        again = [
            task
            for place, task in enumerate(tasks)
            if task.stage_in(progress) is Stage.CALLABLE
            and worker.may_run_again
            and (place > 0 or task.attempts < START_ATTEMPTS)
        ]
        with self._lock:
            refused = self._requeue(again)
        error = worker.stopped_for or crash_error(code)
        for task in tasks:
            if task not in again or task in refused:
                _fail(task, progress, error)


def _fail(task: Task, progress: JournalSnapshot | None, error: BaseException) -> None:
    stage = task.stage_in(progress)
    parts = task.parts
    if progress is not None and stage is Stage.ITEMS:
        parts = task.parts_so_far(progress)
    task.set_exception(WorkerLost(error, stage, tuple(parts)))


def _progress(worker: WorkerHandle) -> JournalSnapshot | None:
    """Return how far the worker came, if that can be known."""
    try:
        return worker.progress()
    except Exception:  # a task has written over its worker's journal
        _log.exception("the journal of a worker cannot be read")
        return None
