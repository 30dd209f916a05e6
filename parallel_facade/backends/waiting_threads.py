"""Which threads wait for workers that are busy with tasks that may, in turn, wait for them.

A task may make a call from a thread of its own, on the back-end that runs it:

    1. task    runs in each worker thread, and waits for a thread that it has started
    2. thread  submits chunks, which no worker will take before those tasks end

Such a thread needs help: another thread that runs its chunks. Others that wait have to wait, since
the program has said how many tasks may run at a time. Python does not tell who has started a
thread. It began after its task, and its task stands in a function, or in C code, that waits.

Guarantees:
    - A thread that is older than all running tasks gets no help.
    - A thread that a task has started, and waits for, gets help, however the task waits.

Not guaranteed:
    - A thread that began after a task which waits for something else is taken for its own, and gets
      help. So does any that began after it and waits for more than `LONG_PATIENCE`.
    - A task that waits for a thread which is older than itself may wait for ever.
"""

from __future__ import annotations

import platform
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from time import monotonic
from typing import Final

from parallel_facade._common.deadlines import Clock

PATIENCE: Final = 0.05
"""Seconds for which a thread waits that a task seems to wait for."""

LONG_PATIENCE: Final = 5.0
"""Seconds for which a thread waits if tasks that are older seem to compute: they may also look now
and then whether it has ended."""

WAITING_PACKAGES: Final = frozenset(
    {"threading", "queue", "concurrent", "asyncio", "selectors", "multiprocessing"}
)
"""Modules and packages of the functions in Python in which tasks wait for threads."""


class RunningTasks:
    """The tasks that run in a back-end's threads.

    Args:
        workers: How many threads the back-end has.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        # By the id of the thread that runs it: the threads that were there before. Not their ids,
        # which the system gives to new threads when the old ones have ended.
        self._older: dict[int, list[threading.Thread]] = {}
        self._places: dict[
            int, tuple[int, int]
        ] = {}  # where its thread stood when it was looked at

    def begin(self) -> None:
        """Note that the current thread begins a task."""
        self._older[threading.get_ident()] = threading.enumerate()

    def end(self) -> None:
        """Note that the task of the current thread has ended."""
        me = threading.get_ident()
        del self._older[me]
        self._places.pop(me, None)

    def patience_with(self, thread: int) -> float | None:
        """Return how long *thread* has to wait until it gets help; `None` if it gets none.

        Args:
            thread: Its id.
        """
        running = self._older.copy()
        if len(running) < self._workers:
            return None  # the others do something else, which ends without us
        waiting = next((one for one in threading.enumerate() if one.ident == thread), None)
        tasks = [task for task, older in running.items() if waiting not in older]
        if not tasks:
            return None
        waits = [self._waits(task) for task in tasks]  # all: their places are needed the next time
        return PATIENCE if any(waits) else LONG_PATIENCE

    def _waits(self, task: int) -> bool:
        """Return whether the thread of *task* stands in something that waits."""
        if (frame := sys._current_frames().get(task)) is None:
            return False
        place = id(frame), frame.f_lasti
        is_where_it_was = self._places.get(task) == place
        self._places[task] = place
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] in WAITING_PACKAGES:
            return True
        return is_where_it_was and _is_in_futex(task)


FUTEX: Final = {"x86_64": b"202", "aarch64": b"98"}.get(platform.machine())
"""The number of the system call in which threads wait for locks and queues, on Linux."""


def _is_in_futex(thread: int) -> bool:
    """Return whether *thread* waits for a lock, or a queue, in C; false where nothing tells it.

    So does a thread that waits for the GIL; but that one moves on.
    """
    native = next((one.native_id for one in threading.enumerate() if one.ident == thread), None)
    with suppress(OSError), open(f"/proc/self/task/{native}/syscall", "rb") as file:
        return FUTEX is not None and file.read().partition(b" ")[0] == FUTEX
    return False


class WaitingThreads:
    """Notes since when threads wait.

    Args:
        running: The tasks that keep the workers busy.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, running: RunningTasks, clock: Clock = monotonic) -> None:
        self._running = running
        self._clock = clock
        self._since: dict[int, float] = {}

    def due(self, waiting: Collection[int]) -> list[int]:
        """Return those of the *waiting* threads that need help now.

        Args:
            waiting: The ids of all threads that wait at this time.
        """
        now = self._clock()
        self._since = {thread: self._since.get(thread, now) for thread in waiting}
        return [
            thread
            for thread, since in self._since.items()
            if (patience := self._running.patience_with(thread)) is not None
            and now - since >= patience
        ]
