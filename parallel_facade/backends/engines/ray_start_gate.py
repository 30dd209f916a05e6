"""Which tasks may begin in which worker of a Ray cluster, agreed in one place.

    worker ── "may I begin?" ──►  Board  ◄── "call it off", "I am about to end it" ── caller

Ray stops a task by ending its worker, and takes its time for that. Meanwhile

    1. task A   ends by itself
    2. task B   is given to the same worker
    3. Ray      ends the worker, and B with it

So a worker in which a task is about to be stopped takes up no other, and ends.

Guarantees:
    - A task that was called off before it began never begins.
    - A worker that may be ended for one task begins no other.

Assumes:
    - It is an actor of Ray's: its methods run one at a time, but for where they wait.
    - A worker runs one task at a time.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple


class Note(NamedTuple):
    """What a worker tells of a task.

    Attributes:
        number: The task.
        host: The id of its host.
        is_loading: Whether the worker still rebuilds the callable.
    """

    number: int
    host: str
    is_loading: bool


class StartGate:
    """Where tasks tell that they run, and are told whether they may; an actor of Ray's."""

    def __init__(self) -> None:
        self._notes: asyncio.Queue[Note] = asyncio.Queue()
        self._begun: dict[int, str] = {}  # in which worker
        self._revoked: set[int] = set()
        self._latest: dict[str, int] = {}  # what each worker has begun last
        self._marked_for_kill: set[str] = set()  # workers that may be ended at any time

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
        """Let those of the tasks *numbers* that have not begun never begin; return them."""
        revoked = [number for number in numbers if number not in self._begun]
        self._revoked.update(revoked)
        return revoked

    async def mark_for_kill(self, number: int) -> bool:
        """Let nothing else begin where task *number* runs; return whether it may run.

        One that has not begun never begins.
        """
        if await self.revoke([number]):
            return False
        worker = self._begun[number]
        if self._latest[worker] != number:
            return False
        self._marked_for_kill.add(worker)
        return True

    async def take(self, lowest: int) -> list[Note]:
        """Return what was told and not taken, waiting for something.

        Args:
            lowest: The lowest number of a task that has not ended.
        """
        self._begun = {number: one for number, one in self._begun.items() if number >= lowest}
        notes = [await self._notes.get()]
        while not self._notes.empty():
            notes.append(self._notes.get_nowait())
        return notes
