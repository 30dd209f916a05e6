"""Workers on their way out: asked to end, or gone from their channel and not yet ended.

    end(link) ───► SIGTERM to it and what it started ── patience ──► SIGKILL
    see_off(link) ─► its exit code, or ── patience ──► SIGKILL ──► its exit code

Guarantees:
    - Nothing here waits: the owner calls `tend` when `seconds_to_next` have passed.

Assumes:
    - One thread uses it.
"""

from __future__ import annotations

import time
from typing import Final

from parallel_facade._common.deadlines import Clock, Deadline
from parallel_facade.backends.process.process_tree import TERM_PATIENCE, Family
from parallel_facade.backends.process.worker_handle import Link

EXIT_PATIENCE: Final = 1.0
"""Seconds between the end of a channel and the end of its process, after which we end it."""

LOOK_AGAIN: Final = 0.002
"""Seconds between two looks at whether a process has ended. No descriptor tells: a process that a
task has left behind holds the sentinel open."""


class Departures:
    """Sees workers off.

    Args:
        clock: A monotonic clock in seconds.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._asked: list[tuple[Family, Deadline]] = []
        self._leaving: list[tuple[Link, Deadline, bool]] = []

    def end(self, link: Link) -> None:
        """Ask a worker, and what it has started, to end; see to it that they do."""
        family = Family(link.pid)
        if not family.is_known:
            link.kill()
        family.terminate()
        self._asked.append((family, Deadline(TERM_PATIENCE, clock=self._clock)))

    def see_off(self, link: Link) -> None:
        """Await the end of a worker whose channel has ended."""
        self._leaving.append((link, Deadline(EXIT_PATIENCE, clock=self._clock), False))

    def seconds_to_next(self) -> float | None:
        """Return when to call `tend` again; `None` if nobody is on the way out."""
        if self._leaving:
            return LOOK_AGAIN
        left = [deadline.remaining() for _, deadline in self._asked]
        return min((seconds for seconds in left if seconds is not None), default=None)

    def tend(self) -> list[tuple[Link, int | None]]:
        """Do what is due; return the workers that have ended, with their exit codes."""
        asked, self._asked = self._asked, []
        for family, deadline in asked:
            if deadline.has_passed():
                family.kill()
            else:
                self._asked.append((family, deadline))
        leaving, self._leaving = self._leaving, []
        ended = []
        for link, deadline, was_killed in leaving:
            code = link.exit_code()
            if code is not None or (was_killed and deadline.has_passed()):
                ended.append((link, code))
            elif deadline.has_passed():
                link.kill()
                again = Deadline(EXIT_PATIENCE, clock=self._clock)
                self._leaving.append((link, again, True))
            else:
                self._leaving.append((link, deadline, was_killed))
        return ended

    def close(self) -> list[Link]:
        """Have no more patience; return the workers that were awaited."""
        for family, _ in self._asked:
            family.kill()
        awaited = [link for link, _, _ in self._leaving]
        self._asked.clear()
        self._leaving.clear()
        return awaited
