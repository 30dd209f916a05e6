"""Parts of earlier chunks that have to run again, at once or after a delay."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from parallel_facade._common.deadlines import Clock, Deadline
from parallel_facade._worker.run_chunk import Chunk


class Packed(NamedTuple):
    """A chunk that is ready to submit, or has to be packed first if *payload* is `None`."""

    chunk: Chunk
    payload: Any = None

    def part(self, first: int, count: int) -> Packed:
        """Return *count* of its items from position *first* on.

        The whole chunk stays packed, because an item may have changed since it was pulled.
        """
        if (first, count) == (0, len(self.chunk.items)):
            return self
        return Packed(self.chunk.part(first, first + count))

    def singles(self, count: int) -> list[Packed]:
        """Return its first *count* items, each as a chunk."""
        return [self.part(position, 1) for position in range(count)]


class RerunQueue:
    """Parts that run again, before all items that were not pulled yet.

    Args:
        clock: A monotonic clock in seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now: deque[Packed] = deque()
        self._later: deque[tuple[Deadline, Packed]] = deque()

    def __bool__(self) -> bool:
        """Return whether there are any parts, also with a delay that has not passed."""
        return bool(self._now or self._later)

    def add_first(self, parts: list[Packed]) -> None:
        """Add *parts* before all others."""
        self._now.extendleft(reversed(parts))

    def add_later(self, parts: list[Packed], delay: float) -> None:
        """Add *parts* that run after *delay* seconds."""
        self._later.extend((Deadline(delay, clock=self._clock), part) for part in parts)

    def has_due(self) -> bool:
        """Return whether a part can run now."""
        return bool(self._now) or (bool(self._later) and self._later[0][0].has_passed())

    def next(self, size: int) -> Packed | None:
        """Return the next part, with *size* items at most; `None` if there is none now."""
        if self._later and self._later[0][0].has_passed():
            self._now.append(self._later.popleft()[1])
        if not self._now:
            return None
        found = self._now.popleft()
        if (count := len(found.chunk.items)) > size:
            self._now.appendleft(found.part(size, count - size))
        return found.part(0, min(count, size))

    def clear(self) -> None:
        """Drop all parts."""
        self._now.clear()
        self._later.clear()

    def drop_from(self, index: int) -> None:
        """Drop the parts that begin at item *index* or later."""
        self._now = deque(part for part in self._now if part.chunk.first < index)
        self._later = deque(one for one in self._later if one[1].chunk.first < index)

    def seconds_to_next(self) -> float | None:
        """Return the seconds until the next delayed part is due; `None` if there is none."""
        return self._later[0][0].remaining() if self._later else None
