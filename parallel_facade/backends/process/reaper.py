"""Workers on their way out: told to exit, or not yet exited although their channel has ended.

    end(worker) ────────► SIGTERM to its process tree ── wait ──► SIGKILL
    watch_exit(worker) ─► its exit code, or ── wait ──► SIGKILL ──► its exit code

Guarantees:
    - Nothing here waits: the owner calls `poll_exits` after `seconds_to_next` seconds.

Assumes:
    - Only one thread uses it.
"""

from __future__ import annotations

import time
from typing import Final

from parallel_facade._common.deadlines import Clock, Deadline
from parallel_facade.backends.process.process_tree import TERM_PATIENCE, ProcessTree
from parallel_facade.backends.process.worker_handle import WorkerHandle

EXIT_PATIENCE: Final = 1.0
"""Seconds between the end of a channel and the exit of its process; after them it is killed."""

POLL_SECONDS: Final = 0.002
"""Seconds between two checks whether a process has exited. The sentinel does not show it: a process
that a task has left behind holds it open."""


class Reaper:
    """Stops workers and watches their exits.

    Args:
        clock: A monotonic clock in seconds.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._stopping: list[tuple[ProcessTree, Deadline]] = []
        self._leaving: list[tuple[WorkerHandle, Deadline, bool]] = []

    def end(self, worker: WorkerHandle) -> None:
        """Tell a worker's process tree to exit; `poll_exits` kills it if it does not."""
        tree = ProcessTree(worker.process.pid)
        if not tree.is_known:
            worker.process.kill()
        tree.terminate()
        self._stopping.append((tree, Deadline(TERM_PATIENCE, clock=self._clock)))

    def watch_exit(self, worker: WorkerHandle) -> None:
        """Watch the exit of a worker whose channel has ended."""
        self._leaving.append((worker, Deadline(EXIT_PATIENCE, clock=self._clock), False))

    def seconds_to_next(self) -> float | None:
        """Return the seconds until `poll_exits` is due; `None` if no worker is on its way out."""
        if self._leaving:
            return POLL_SECONDS
        left = [deadline.remaining() for _, deadline in self._stopping]
        return min((seconds for seconds in left if seconds is not None), default=None)

    def poll_exits(self) -> list[tuple[WorkerHandle, int | None]]:
        """Do what is due; return the workers whose exit is finished, with their exit codes.

        The code is `None` if a worker did not exit in time after SIGKILL.
        """
        stopping, self._stopping = self._stopping, []
        for tree, deadline in stopping:
            if deadline.has_passed():
                tree.kill()
            else:
                self._stopping.append((tree, deadline))
        leaving, self._leaving = self._leaving, []
        ended = []
        for worker, deadline, was_killed in leaving:
            code = worker.process.exit_code()
            if code is not None or (was_killed and deadline.has_passed()):
                ended.append((worker, code))
            elif deadline.has_passed():
                worker.process.kill()
                again = Deadline(EXIT_PATIENCE, clock=self._clock)
                self._leaving.append((worker, again, True))
            else:
                self._leaving.append((worker, deadline, was_killed))
        return ended

    def close(self) -> list[WorkerHandle]:
        """Kill without waiting any longer; return the workers whose exit was watched."""
        for tree, _ in self._stopping:
            tree.kill()
        awaited = [worker for worker, _, _ in self._leaving]
        self._stopping.clear()
        self._leaving.clear()
        return awaited
