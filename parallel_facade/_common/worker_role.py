"""Whether this process or thread is a worker: a process for its life, a thread for a while.

Guarantees:
    - A thread that a task uses through `asyncio.to_thread` and similar functions is also a worker.
    - While a process that others have started runs a task, all its threads are workers: a task may
      make a call from a thread of its own, and must not start more processes there.
"""

from __future__ import annotations

import time
from typing import Final

from parallel_facade._common.threads import ThreadVariable

_is_private: ThreadVariable[bool | None] = ThreadVariable("parallel_facade_worker", None)
"""Whether this worker has its process to itself; `None` in a thread that is not a worker.
`asyncio.to_thread` and similar functions pass it on to their threads."""


class WorkerRole:
    """A block in which this thread is a worker: the calls that it makes run in this worker.

    Args:
        is_private: Whether no other worker runs in this process.
        is_elsewhere: Whether the caller is another process, so that this one only runs tasks.
    """

    def __init__(self, *, is_private: bool = False, is_elsewhere: bool = False) -> None:
        self._is_private_here = is_private
        self._is_elsewhere = is_elsewhere

    def __enter__(self) -> None:
        self._token = _is_private.set(self._is_private_here)
        if self._is_elsewhere:
            _process.tasks_of_others.append(None)

    def __exit__(self, *exc_info: object) -> None:
        _is_private.reset(self._token)
        if self._is_elsewhere:
            _process.tasks_of_others.pop()


class _ProcessRole:
    """What this process is to the tasks that run in it."""

    def __init__(self) -> None:
        self.is_worker = False
        self.ready_since = 0.0
        """When this process, if it is a worker, became ready for its first task."""
        self.tasks_of_others: list[None] = []
        """One entry for each task of another process that runs here; a list needs no lock."""


_process: Final = _ProcessRole()


def make_process_a_worker() -> None:
    """Mark every thread of this process as a worker, permanently."""
    _process.is_worker = True


def note_ready() -> None:
    """Note that this process has started as a worker."""
    _process.ready_since = time.time()


def ready_since() -> float:
    """Return when this process became ready for its first task, on the clock of `time.time`."""
    return _process.ready_since


def is_worker_process() -> bool:
    """Return whether this whole process is a worker."""
    return _process.is_worker


def is_worker() -> bool:
    """Return whether the current thread runs tasks of a call that was made elsewhere."""
    return _process.is_worker or _is_private.get() is not None or bool(_process.tasks_of_others)


def has_private_state() -> bool:
    """Return whether this thread, if it is a worker, has its process to itself."""
    return _process.is_worker or _is_private.get() is not False
