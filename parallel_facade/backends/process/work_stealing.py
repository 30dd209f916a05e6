"""Looks at tasks that run: what of them is done, and what an idle worker may have.

    busy worker ── journal, in shared memory ──► Looks ──► outcomes so far
         ▲                                         │
         └────────────── the signal to stop ◄──────┘──► what it has not begun, for another

Guarantees:
    - What is said to be not begun is not begun by the worker that has it.
    - Nothing here waits.

Assumes:
    - The worker looks at the signal before each item.
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
"""Seconds from telling a worker to begin no further item to reading what it had begun. What either
process writes to shared memory is seen by the other within microseconds."""


class WorkStealer:
    """Looks into the journals of workers.

    Args:
        scheduler: Knows which worker has which task.
        lock: Guards that.
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

            1. caller  sets the signal to stop, which the worker looks at before each item
            2. caller  waits until the worker cannot but see it, and reads what was begun
            3. worker  reports what it has run, when its item ends

        Returns:
            How many items, from the first, stay with the worker; `None` if that is not known yet,
            or there is no idle worker that could begin one earlier.
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

        Not if it has to rebuild the callable first, with which the other is ahead: the item would
        go on from worker to worker, until all have rebuilt the callable for it.
        """
        task = worker.task
        if not self._scheduler.has_idle or task is None:
            return False
        if self._scheduler.idle_with(task.call) is not None:
            return True
        progress = _progress_now(worker)
        return progress is not None and task.stage_in(progress) is Stage.ITEMS


def _progress_now(worker: WorkerHandle) -> JournalSnapshot | None:
    """Return how far a worker has come that goes on, if that can be known just now."""
    with suppress(Exception):  # it changed meanwhile, or a task has written over it
        return worker.progress()
    return None
