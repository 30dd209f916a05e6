"""Which thread's tasks wait and run on the thread back-end."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from parallel_facade._worker.run_chunk import Chunk
from parallel_facade.backends.base import TaskFuture


@dataclass(eq=False)
class ThreadTask:
    """A chunk for a thread.

    Attributes:
        future: Its future.
        handle: Its call.
        chunk: The chunk.
        submitter: The id of the thread that has submitted it.
        is_taken: Whether a loop or a helper has it.
    """

    future: TaskFuture
    handle: Any
    chunk: Chunk
    submitter: int
    is_taken: bool = False


class TaskRegister:
    """Counts tasks by the thread that has submitted them.

    Args:
        loops: How many threads take any task.
        lock: Guards all of it.
    """

    def __init__(self, loops: int, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock
        self.outstanding: int = 0
        """Tasks that have not ended."""
        self._idle = loops
        self._waiting: dict[int, dict[int, ThreadTask]] = {}  # by submitter and id, in order
        self._running: Counter[int] = Counter()  # by submitter; helpers count as one, too

    def add(self, task: ThreadTask) -> None:
        """Add a task that waits, with the lock held."""
        self.outstanding += 1
        self._waiting.setdefault(task.submitter, {})[id(task)] = task

    def take(self, task: ThreadTask, *, by_loop: bool) -> bool:
        """Return whether the current thread is to run *task*, because no other has it."""
        with self._lock:
            if task.is_taken:
                return False
            task.is_taken = True
            self._idle -= by_loop
            self._running[task.submitter] += 1
            waiting = self._waiting[task.submitter]
            del waiting[id(task)]
            if not waiting:
                del self._waiting[task.submitter]
            return True

    def end(self, task: ThreadTask, *, by_loop: bool) -> None:
        """Note the end of *task*."""
        with self._lock:
            self.outstanding -= 1
            self._idle += by_loop
            self._leave(task.submitter)

    def waiting(self) -> set[int]:
        """Return the submitters whose tasks all wait, while every loop runs the task of another."""
        with self._lock:
            if self._idle:
                return set()
            return self._waiting.keys() - self._running.keys() - {threading.main_thread().ident}

    def begin_help(self, submitter: int) -> None:
        """Note that a helper runs tasks of *submitter* from now on."""
        with self._lock:
            self._running[submitter] += 1

    def next_for_helper(self, submitter: int) -> ThreadTask | None:
        """Take the next task of *submitter*; if there is none, its helper ends."""
        with self._lock:
            if waiting := self._waiting.get(submitter):
                task = next(iter(waiting.values()))
                self.take(task, by_loop=False)
                return task
            self.end_help(submitter)
            return None

    def end_help(self, submitter: int) -> None:
        """Note that a helper of *submitter* has ended."""
        with self._lock:
            self._leave(submitter)

    def _leave(self, submitter: int) -> None:
        self._running[submitter] -= 1
        if not self._running[submitter]:
            del self._running[submitter]
