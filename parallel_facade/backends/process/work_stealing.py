"""Splits running tasks for idle workers, and reads which outcomes running tasks have.

    busy worker ── journal, in shared memory ──► WorkStealer ──► outcomes so far
         ▲                                            │
         └──────────── limit: so many items ◄─────────┘──► the rest, as a task for an idle worker

Guarantees:
    - An item is begun by one worker: the one whose task has it when the split is announced.
    - A split is announced before the rest is sent.

Assumes:
    - The worker looks at its limit before each item or, if its chunk has a larger `begin_size`,
      before each group of that many.
    - A write of either process to shared memory is visible to the other within `LIMIT_SECONDS`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from parallel_facade._common.deadlines import Clock
from parallel_facade._worker.outcomes import Received, count_outcomes
from parallel_facade.backends.base import Stage
from parallel_facade.backends.process.journal import JournalSnapshot
from parallel_facade.backends.process.scheduler import TaskScheduler
from parallel_facade.backends.process.tasks import CallHandle, Task
from parallel_facade.backends.process.worker_handle import WorkerHandle

LIMIT_SECONDS: Final = 0.00005
"""Seconds between telling a worker its limit and reading what it had begun."""

WORTH_SECONDS: Final = 0.0006
"""Work that is worth a message to another worker."""

FIRST_LOOK_SECONDS: Final = 0.001
"""The time until running tasks are looked at while a worker is idle; doubled each time until a task
ends, up to the time below."""

LONGEST_LOOK_SECONDS: Final = 0.1


class WorkStealer:
    """Looks at running tasks by the journals of their workers.

    Args:
        scheduler: Knows which worker has which task.
        lock: Guards the scheduler.
        clock: A monotonic clock in seconds.
        wait: Waits so many seconds.
    """

    def __init__(
        self,
        scheduler: TaskScheduler,
        lock: threading.RLock,
        clock: Clock,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._scheduler = scheduler
        self._lock = lock
        self._clock = clock
        self._wait = wait
        self._may_split: set[CallHandle] = set()  # calls whose tasks may be split
        self._look_at = 0.0
        self._looks = 0  # since a worker has become idle

    # ── called from any thread ────────────────────────────────────────────────────────────────

    def allow(self, call: CallHandle, *, are_allowed: bool) -> None:
        """Let idle workers run parts of the tasks of *call*, or no longer.

        When this has returned with `False`, no task of the call is split any more.
        """
        with self._lock:
            (self._may_split.add if are_allowed else self._may_split.discard)(call)

    def leave_rest(self, task: Task) -> None:
        """Have the worker of *task* begin no further item of it: nobody wants their outcomes."""
        with self._lock:
            worker = task.worker
            if worker is not None and worker.task is task:
                worker.is_left = True
                worker.limit(task, 0)

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

    # ── in the manager thread ─────────────────────────────────────────────────────────────────

    @property
    def has_work(self) -> bool:
        """Whether a worker is idle, and another one may have more than it needs."""
        scheduler = self._scheduler
        return bool(self._may_split and scheduler.idle) and not scheduler.pending

    def seconds_to_next(self) -> float | None:
        """Return the seconds until `split_for_idle` may find something; `None` if nothing is left.

        A task that could not be split, or not with profit, is looked at again.
        """
        if not self.has_work or not any(map(self._may_be_split, list(self._scheduler.workers))):
            self._looks = 0
            return None
        return max(0.0, self._look_at - self._clock())

    def split_for_idle(self) -> None:
        """Give each idle worker a part of a task of which much is left."""
        while self.has_work and self._split_largest():
            self._looks = 0
        wait = min(FIRST_LOOK_SECONDS * 2**self._looks, LONGEST_LOOK_SECONDS)
        self._looks = min(self._looks + 1, 10)
        self._look_at = self._clock() + wait

    def _split_largest(self) -> bool:
        # A copy: another thread may be adopting a worker.
        workers = filter(self._may_be_split, list(self._scheduler.workers))
        work = {worker: self._work_left(worker) for worker in workers}
        victim = max(work, key=lambda worker: work[worker], default=None)
        if victim is None or work[victim] < WORTH_SECONDS:
            return False
        with self._lock:
            return self._split(victim)

    def _work_left(self, worker: WorkerHandle) -> float:
        """Return the seconds that the items will take that were not begun; 0 if not known."""
        tasks = list(worker.tasks)
        if not tasks or (begun := self._begun(worker, tasks[0])) is None:
            return 0.0
        ended, elapsed = max(0, begun - 1), self._clock() - tasks[0].sent_at
        if not ended and elapsed < FIRST_LOOK_SECONDS:
            return 0.0
        left = sum(one.splitting.items for one in tasks if one.splitting) - begun
        return left * elapsed / max(1, ended)

    def _split(self, worker: WorkerHandle) -> bool:
        """Take back what an idle worker can run of the tasks of *worker*.

        1. manager  tells the worker a limit, in the midst of what it has not begun
        2. manager  waits until the worker must have seen it, and reads what was begun
        3. worker   may have begun more than the limit meanwhile: then the split is given up, and
                    what it leaves because of the limit is found by `requeue_left`
        """
        task = worker.task
        if task is None or not self._may_be_split(worker) or task.splitting is None:
            return False
        if (begun := self._begun(worker, task)) is None:
            return False
        groups = -(-(task.splitting.items - begun) // task.splitting.begin_size)
        behind = list(worker.tasks)[1:]
        kept = begun if behind else begun + groups // 2 * task.splitting.begin_size
        worker.limit(task, kept)
        self._wait(LIMIT_SECONDS)
        begun = self._begun(worker, task)
        if begun is None or begun > kept:
            return False
        rest = [one.split(0) for one in behind]
        if kept < task.splitting.items:
            rest.insert(0, task.split(kept))
        self._scheduler.requeue(rest)
        return bool(rest)

    def requeue_left(self, worker: WorkerHandle, task: Task, report: list[Received]) -> None:
        """Hand out what *worker* has left of *task* because of a limit; call this with the lock.

        Nobody else does, if the results are not asked for.
        """
        splitting = task.splitting
        is_limited = worker.is_limited and not worker.is_left
        if not is_limited or splitting is None or task.call not in self._may_split:
            return
        with suppress(Exception):  # an unreadable report: the consumer gets the error
            count = count_outcomes(report)
            if count is not None and count < splitting.items:
                self._scheduler.requeue([task.split(count)])

    def _may_be_split(self, worker: WorkerHandle) -> bool:
        tasks = list(worker.tasks)
        return (
            bool(tasks)
            and tasks[0].call in self._may_split
            and not worker.is_left
            and worker.stopped_for is None
            and all(one.splitting is not None for one in tasks)
            and sum(one.splitting.items for one in tasks if one.splitting) > 1
        )

    def _begun(self, worker: WorkerHandle, task: Task) -> int | None:
        """Return how many items of *task* were begun, in whole groups; `None` if not known.

        Nor if the worker still rebuilds the callable, and an idle worker would have to do the same:
        the items would move from worker to worker, until all have rebuilt the callable for them.
        """
        progress = _progress_now(worker)
        if progress is None or worker.is_sending or task.splitting is None:
            return None
        stage = task.stage_in(progress)
        if stage is not Stage.ITEMS:
            can_begin = self._scheduler.idle_with(task.call) is not None
            return 0 if can_begin and stage is not Stage.UNKNOWN else None
        begin_size = task.splitting.begin_size
        return min(task.splitting.items, -(-(progress.outcomes + 1) // begin_size) * begin_size)


def _progress_now(worker: WorkerHandle) -> JournalSnapshot | None:
    """Return how far a running worker has come, if that can be known just now."""
    with suppress(Exception):  # the journal changed meanwhile, or a task has overwritten it
        return worker.progress()
    return None
