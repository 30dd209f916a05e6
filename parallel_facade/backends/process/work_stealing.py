"""Polls running tasks: which outcomes they have, and which items an idle worker can take.

    busy worker ── journal, in shared memory ──► WorkStealer ──► outcomes so far
         ▲                                            │
         └───────────── the stop signal ◄─────────────┘──► unstarted items, for another worker

Guarantees:
    - An item that is reported as unstarted is not begun by the worker that has it.
    - Nothing here waits.

Assumes:
    - The worker checks the stop signal before each item or, if its chunk has a larger `begin_size`,
      before each group of that many; the caller of `take_back` rounds the count up to whole groups.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any, Final

from parallel_facade._common.deadlines import Clock
from parallel_facade.backends.base import Stage
from parallel_facade.backends.process.journal import JournalSnapshot
from parallel_facade.backends.process.scheduler import TaskScheduler
from parallel_facade.backends.process.tasks import Task
from parallel_facade.backends.process.worker_handle import WorkerHandle

STOP_SIGNAL_SECONDS: Final = 0.001
"""Seconds between telling a worker to begin no further item and reading what it had begun. A write
of either process to shared memory is visible to the other within microseconds."""


class WorkStealer:
    """Reads the journals of running workers.

    Args:
        scheduler: Knows which worker has which task.
        lock: Guards the scheduler.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, scheduler: TaskScheduler, lock: threading.RLock, clock: Clock) -> None:
        self._scheduler = scheduler
        self._lock = lock
        self._clock = clock

    def progress(self, task: Task) -> list[Any]:
        """Return the outcomes of the items of *task* that have ended.

        It returns none while records that the task sent before them are still to be read.
        """
        with self._lock:
            worker = task.worker
            if worker is None or worker.task is not task:
                return []
            progress = _progress_now(worker)
            if progress is None or task.stage_in(progress) is not Stage.ITEMS:
                return []
            return [] if worker.has_unread() else task.parts_so_far(progress)

    def take_back(self, task: Task) -> int | None:
        """Let an idle worker have what *task* has not begun; ask again for how much.

            1. caller  sets the stop signal, which the worker checks before each item
            2. caller  waits until the worker must have seen it, and reads how many items were begun
            3. worker  reports the outcomes, when its item ends

        Returns:
            How many items, from the first, stay with the worker; `None` if that is not known yet,
            or no idle worker could begin an item earlier.
        """
        with self._lock:
            worker = task.worker
            if worker is None or not self._could_be_earlier(worker):
                return None
            if worker.paused_since is None:
                worker.pause(self._clock())
                return None
            if self._clock() - worker.paused_since < STOP_SIGNAL_SECONDS or worker.is_sending:
                return None
            if (progress := _progress_now(worker)) is not None:
                kept = task.items_begun(progress)
                task.is_taken_back |= kept is not None
                return kept
        return None

    def _could_be_earlier(self, worker: WorkerHandle) -> bool:
        """Return whether an idle worker may begin items earlier than *worker* would.

        Not if the idle worker has to rebuild the callable first and *worker* is ahead with that:
        the items would move from worker to worker, until all have rebuilt the callable for them.
        """
        task = worker.task
        if not self._scheduler.idle or task is None:
            return False
        if self._scheduler.idle_with(task.call) is not None:
            return True
        progress = _progress_now(worker)
        return progress is not None and task.stage_in(progress) is Stage.ITEMS


def _progress_now(worker: WorkerHandle) -> JournalSnapshot | None:
    """Return how far a running worker has come, if that can be known just now."""
    with suppress(Exception):  # the journal changed meanwhile, or a task has overwritten it
        return worker.progress()
    return None
