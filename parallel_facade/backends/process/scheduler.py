"""Which worker has which task.

    add ─► pending ─► hand_out ─► idle worker; for a short task, also the channel of a busy worker
              ▲                            │
              └─ requeue, if not begun ◄── take_all

Guarantees:
    - A task is with one worker at most, and is handed out again only by `requeue`.
    - Tasks are handed out in the order in which they arrived.

Assumes:
    - Every caller holds the manager thread's lock, except where a docstring says otherwise.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from parallel_facade._common.deadlines import Clock, Deadline
from parallel_facade.backends.base import LOAD_PATIENCE
from parallel_facade.backends.process.protocol import TASK_HEAD, MessageType
from parallel_facade.backends.process.tasks import CallHandle, Task
from parallel_facade.backends.process.worker_handle import WorkerHandle

LARGE_CALL_BYTES: Final = 1 << 16
"""A worker forgets a smaller callable with the next message to it: waking the worker for that would
cost more than a small call itself."""


class TaskScheduler:
    """Hands tasks to workers.

    Args:
        numbers: Increasing numbers for tasks; no call has the same number.
        clock: A monotonic clock in seconds.
        on_timed: Called when a task with a deadline was sent.
    """

    def __init__(
        self,
        numbers: Iterator[int],
        clock: Clock,
        on_timed: Callable[[], object],
    ) -> None:
        self._numbers = numbers
        self._clock = clock
        self._on_timed = on_timed
        self.idle: deque[WorkerHandle] = deque()
        """Workers that wait for tasks."""
        self._running = 0
        self._timed = 0  # tasks with a time-out that workers have
        self.workers: set[WorkerHandle] = set()
        """All workers with an open channel, including those that are starting or leaving."""
        self.pending: deque[Task] = deque()
        """Tasks that no worker has; some of them may be cancelled."""

    # ── workers ───────────────────────────────────────────────────────────────────────────────

    def remove(self, worker: WorkerHandle) -> None:
        """Note that the worker takes no more tasks; the tasks that it has stay with it."""
        self.workers.discard(worker)
        with suppress(ValueError):
            self.idle.remove(worker)
        for task in worker.tasks:
            task.worker = None

    def clear(self) -> None:
        """Forget all workers and all pending tasks."""
        for task in itertools.chain.from_iterable(worker.tasks for worker in self.workers):
            task.worker = None
        self.workers.clear()
        self.idle.clear()
        self.pending.clear()

    def idle_with(self, call: CallHandle) -> WorkerHandle | None:
        """Return a worker that waits for tasks and was sent *call*, if there is one."""
        return next((worker for worker in self.idle if call.number in worker.known_calls), None)

    # ── tasks ─────────────────────────────────────────────────────────────────────────────────

    @property
    def is_clear(self) -> bool:
        """Whether no worker has a task, and no task waits for a worker."""
        return not self._running and all(task.cancelled() for task in self.pending)

    @property
    def task_count(self) -> int:
        """How many tasks there may be; reading this needs no lock."""
        return self._running + len(self.pending)

    @property
    def has_timed(self) -> bool:
        """Whether a worker has a task with a deadline; reading this needs no lock."""
        return self._timed > 0

    def all_tasks(self) -> Iterator[Task]:
        """Return the pending tasks, and the tasks of workers with an open channel."""
        return itertools.chain(self.pending, *(list(worker.tasks) for worker in self.workers))

    def requeue(self, tasks: list[Task]) -> None:
        """Hand out *tasks*, which were not begun, before all others."""
        self.pending.extendleft(reversed(tasks))
        self.hand_out()

    def hand_out(self) -> None:
        """Give the next task to each worker that can take one, while there are tasks."""
        while self.pending and (worker := self._worker_for(self.pending[0])) is not None:
            task = self.pending.popleft()
            if task.is_wanted():
                if not worker.tasks:
                    self.idle.remove(worker)
                self._give(worker, task)

    def take(self, worker: WorkerHandle) -> Task:
        """Remove and return the task that the worker has ended."""
        task = worker.tasks.popleft()
        task.worker = None
        self._running -= 1
        self._timed -= task.task_timeout is not None
        return task

    def take_all(self, worker: WorkerHandle) -> list[Task]:
        """Remove and return all tasks of the worker, which will not report them any more."""
        return [self.take(worker) for _ in range(len(worker.tasks))]

    def _worker_for(self, task: Task) -> WorkerHandle | None:
        """Return an idle worker or, for a short task, one in whose channel it can wait."""
        if self.idle:
            return self.idle_with(task.call) or self.idle[0]
        if not task.is_short:
            return None
        return next((worker for worker in self.workers if worker.has_room_for(task)), None)

    def _give(self, worker: WorkerHandle, task: Task) -> None:
        worker.tasks.append(task)
        task.worker = worker
        task.attempts += 1
        task.number = next(self._numbers)
        self._running += 1
        if task.call.number not in worker.known_calls:
            worker.known_calls.add(task.call.number)
            payload = task.call.payload
            worker.channel.queue(
                MessageType.CALL, task.call.number, payload.data, segments=payload.segments
            )
        is_timed = task.task_timeout is not None
        head = TASK_HEAD.pack(task.call.number, is_timed, task.first, task.end)
        task.sent_at = self._clock()
        payload = task.payload
        worker.channel.queue(
            MessageType.TASK, task.number, head, payload.data, segments=payload.segments
        )
        worker.channel.flush()
        if is_timed:
            self._timed += 1
            task.deadline = Deadline(LOAD_PATIENCE, clock=self._clock)
            self._on_timed()

    def forget(self, *calls: CallHandle) -> None:
        """Make the workers that know any of *calls* forget it, unless they keep it."""
        for call, worker in itertools.product(calls, self.workers):
            if call.number in worker.known_calls and not call.sent.is_kept:
                worker.known_calls.discard(call.number)
                worker.channel.queue(MessageType.FORGET, call.number)
                if call.payload.size >= LARGE_CALL_BYTES:
                    worker.channel.flush()
