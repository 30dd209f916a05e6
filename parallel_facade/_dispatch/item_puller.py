"""Pulls the items of a map from its input, no more than there is room for.

Guarantees:
    - An item is pulled only when there is room for it, by the thread that calls `pull`.
    - An item that may change when the next item is pulled ends its chunk, which is packed first.
    - A slow input holds nothing up: what it has given is not kept until it gives a whole chunk.

Assumes:
    - One consumer at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from time import monotonic
from typing import Any, Final

from parallel_facade._common.deadlines import Clock
from parallel_facade._common.interrupt_safety import came_from_handler
from parallel_facade._common.plain_data import ATOMIC_TYPES
from parallel_facade._dispatch.map_plan import MapPlan
from parallel_facade._worker.run_chunk import Chunk

SLOW_SECONDS: Final = 0.002
"""An input that takes longer than this for a chunk is slow: what it has given goes to the workers,
and results that are ready go to the consumer, before the next item is pulled."""


FEW_ITEMS: Final = 64
CLOCK_STEP: Final = 16
"""In a chunk of more than `FEW_ITEMS` of a quick input, the clock is read after so many items."""


class ItemPuller:
    """Pulls items as chunks.

    Args:
        plan: The input, and how many of its items may be pulled and not yet taken.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, plan: MapPlan, clock: Clock = monotonic) -> None:
        self._plan = plan
        self._clock = clock
        self.is_slow = False
        """Whether the last chunk took the input long."""
        self._pulled = 0
        self.taken = 0
        """How many outcomes the consumer has."""
        self.is_exhausted = False
        """Whether nothing more is pulled."""
        self.input_error: Exception | None = None
        """The exception that the input raised."""

    def pull(self, size: int, window: int) -> Chunk | None:
        """Return the next chunk; `None` if there are no more items, or no room for one.

        Args:
            size: The most items in it.
            window: How many chunks may be in flight.
        """
        if self.is_exhausted or (room := self._room(size, window)) == 0:
            return None
        items: list[Any] = []
        self._slow_at = self._clock() + SLOW_SECONDS
        try:
            self._pull_into(items, min(size, room))
        except Exception as exc:
            if came_from_handler(exc):
                raise
            # Items pulled before this are run, and their results come first, as in a loop.
            self.input_error = exc
            self.is_exhausted = True
        self.is_slow = self._is_late()
        first, self._pulled = self._pulled, self._pulled + len(items)
        return Chunk(first, items, self._plan.begin_size) if items else None

    def _pull_into(self, items: list[Any], size: int) -> None:
        """Pull *size* items; or fewer, if an item might change when the next one is pulled.

        A generator may fill one array again and again, and yield it each time. So pulling stops
        after such an item, at the end of its group of the begin size, and the chunk is packed.
        """
        self._size = size
        pulled: Iterator[Any] = islice(self._plan.items, size)
        stopped = False
        if self._plan.is_passive:
            items.extend(pulled)
        elif self._plan.begin_size == 1:
            stopped = self._extend_one_by_one(items, pulled)
        else:
            stopped = self._extend_by_begin_size(items, pulled, self._plan.begin_size)
        if len(items) < size and not stopped:
            self.is_exhausted = True

    def _extend_one_by_one(self, items: list[Any], pulled: Iterator[Any]) -> bool:
        """Pull items; return whether it stopped at one that may change, or that came late."""
        # Reading the clock takes as long as a quick generator takes for an item.
        step = 1 if self.is_slow or self._size <= FEW_ITEMS else CLOCK_STEP
        append, atomic = items.append, ATOMIC_TYPES
        while True:
            before = len(items)
            for item in islice(pulled, step):
                append(item)
                if type(item) not in atomic and _may_change(item):
                    return True
            if len(items) < before + step:
                return False
            if self._is_late():
                return True

    def _extend_by_begin_size(
        self, items: list[Any], pulled: Iterator[Any], begin_size: int
    ) -> bool:
        """Do the same for whole groups: stop after the first group with such an item."""
        while True:
            before = len(items)
            items.extend(islice(pulled, begin_size))
            if len(items) < before + begin_size:
                return False
            if any(map(_may_change, items[before:])) or self._is_late():
                return True

    def _is_late(self) -> bool:
        return self._clock() > self._slow_at

    def _room(self, size: int, window: int) -> int:
        """Return how many items may be pulled now, for a chunk of *size* items."""
        buffersize = self._plan.buffersize
        if buffersize is None:
            return size
        held = self._pulled - self.taken
        if buffersize == 0:
            return max(0, size * window - held)
        share = max(self._plan.begin_size, buffersize // window)
        return min(share, max(0, buffersize - held))


def _may_change(item: Any) -> bool:
    if type(item) is tuple:
        return not ATOMIC_TYPES.issuperset(map(type, item))
    return type(item) not in ATOMIC_TYPES
