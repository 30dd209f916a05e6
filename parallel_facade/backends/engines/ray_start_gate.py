"""Decide, in one place, which tasks may begin in which worker of a Ray cluster.

    worker ── "may I begin?" ──►  StartGate  ◄── "revoke it", "I am about to kill it" ── caller

Ray stops a task by killing its worker, and that takes time. Meanwhile

    1. task A   ends by itself
    2. task B   is sent to the same worker
    3. Ray      kills the worker, and B with it

So a worker in which a task is about to be stopped accepts no other task, and exits.

Guarantees:
    - A task that was revoked before it began never begins.
    - A worker that may be killed for one task begins no other task.

Assumes:
    - The gate is an actor of Ray: its methods run one at a time, except where they wait.
    - A worker runs one task at a time.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple


class Note(NamedTuple):
    """What a worker reports about a task.

    Attributes:
        number: The task.
        host: The id of its host.
        is_loading: Whether the worker still rebuilds the callable.
    """

    number: int
    host: str
    is_loading: bool


class StartGate:
    """Answers tasks that ask whether they may begin, and notes their starts; a Ray actor."""

    def __init__(self) -> None:
        self._notes: asyncio.Queue[Note] = asyncio.Queue()
        self._begun: dict[int, str] = {}  # the worker of each task
        self._revoked: set[int] = set()
        self._latest: dict[str, int] = {}  # the last task that each worker has begun
        self._marked_for_kill: set[str] = set()  # workers that may be killed at any time

    async def begin(self, number: int, host: str, worker: str, is_loading: bool) -> bool:
        """Return whether task *number* may run on *host* in *worker*; a worker that may not ends.

        Args:
            number: The task.
            host: The id of its host.
            worker: The id of its worker.
            is_loading: Whether the worker has to rebuild the callable first.
        """
        if number in self._revoked or worker in self._marked_for_kill:
            return False
        self._begun[number] = worker
        self._latest[worker] = number
        await self._notes.put(Note(number, host, is_loading))
        return True

    async def note_loaded(self, number: int, host: str) -> None:
        """Note that the worker of task *number* has rebuilt the callable."""
        await self._notes.put(Note(number, host, False))

    async def revoke(self, numbers: list[int]) -> list[int]:
        """Make sure that unstarted tasks among *numbers* never begin; return their numbers."""
        revoked = [number for number in numbers if number not in self._begun]
        self._revoked.update(revoked)
        return revoked

    async def mark_for_kill(self, number: int) -> bool:
        """Let no other task begin where task *number* runs; return whether it may still run.

        If it has not begun, it never begins.
        """
        if await self.revoke([number]):
            return False
        worker = self._begun[number]
        if self._latest[worker] != number:
            return False
        self._marked_for_kill.add(worker)
        return True

    async def take(self, lowest: int) -> list[Note]:
        """Return the notes that were not taken yet; wait for the first note.

        Args:
            lowest: The lowest number of a task that has not ended.
        """
        self._begun = {number: one for number, one in self._begun.items() if number >= lowest}
        notes = [await self._notes.get()]
        while not self._notes.empty():
            notes.append(self._notes.get_nowait())
        return notes
