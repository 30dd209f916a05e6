"""How many items travel together, by the time and the bytes that items were measured to take.

    first chunks: one grain each ─► reports say seconds ─► chunks of TARGET_SECONDS
                                                            └─ shrinking towards the end

An item of a map is begun together with the others of its grain: one item, or the *chunksize* that
was asked for. A chunk is some grains, as many as make the message worth its cost.
"""

from __future__ import annotations

import math
from typing import Final

from parallel_facade.backends.base import TARGET_SECONDS

LEAST_PART: Final = 0.1
"""Work in one of the last chunks, as a part of that in others: in smaller ones messages cost more
than workers idle at the end."""

SHORT_FACTOR: Final = 2.5
"""Work in a chunk that may wait behind another in the same worker, as a multiple of that in others:
what a worker waits for its next chunk is worth saving only for these."""

MOST_ITEMS: Final = 1 << 14
"""Items in one chunk. A worker's log has room for so many outcomes; by then the cost of a message
is under a thousandth of the cost per item of the cheapest function."""

TARGET_BYTES: Final = 1 << 20
"""Bytes in one chunk: large items need no company to be worth a message."""

GROWTH: Final = 16
"""A chunk is so many times larger than what was measured, at most: the first items may be quicker
than the others."""

GROWTH_TO_TAKE_BACK: Final = 256
"""The same, where others can have what a worker does not come to. Each step costs a round trip, and
most maps of tiny items are over in a few."""

QUICK_SECONDS: Final = 0.01
"""Work in a chunk that is sent as it was packed, though it is larger than it should be by now: to
pack it anew takes as long as the workers may idle at the end, or longer."""


class ChunkSizer:
    """Chooses the number of items for each chunk of one map.

    Args:
        begin_size: Items that are begun together; each chunk is a multiple of it.
        workers: Workers that the items are divided among.
        most: Items in a chunk, at most, if it is larger than the grain; `None` for `MOST_ITEMS`.
        can_take_back: Whether what a worker has not begun can be given to another.
        seconds: Work in a chunk.
    """

    def __init__(
        self,
        begin_size: int,
        workers: int,
        most: int | None = None,
        *,
        can_take_back: bool = False,
        seconds: float = TARGET_SECONDS,
    ) -> None:
        self.begin_size = begin_size
        self.workers = workers
        self._target = seconds
        self._growth = GROWTH_TO_TAKE_BACK if can_take_back else GROWTH
        self._most_items = min(MOST_ITEMS, most or MOST_ITEMS)
        self._seconds = 0.0
        self._items = 0.0
        self._largest_run = 0
        self._largest_packed = 0
        self._bytes_per_item = 0.0

    def note_run(self, items: int, seconds: float) -> None:
        """Take into account that *items* took *seconds*; the latest count most."""
        if items > 0:
            self._seconds = self._seconds / 2 + seconds
            self._items = self._items / 2 + items
            self._largest_run = max(self._largest_run, items)

    def note_packed(self, items: int, size: int) -> None:
        """Take into account that *items* are *size* bytes."""
        self._bytes_per_item = size / items
        self._largest_packed = max(self._largest_packed, items)

    def size(self, left: float) -> int:
        """Return how many items the next chunk shall have, of *left* that there are."""
        if not self._items:
            return self.begin_size
        seconds = max(self._seconds / self._items, 1e-9)
        # Each worker gets half of its share of what is left, and so on: all end together.
        shared = max(left / (2 * self.workers), LEAST_PART * self._target / seconds)
        grown = self._largest_run * self._growth
        return self._whole_begins(min(self._target / seconds, shared, grown, self._most()))

    def size_to_check(self, total: int) -> int:
        """Return how many of *total* items are packed together, to see whether they can travel."""
        shared = total / (4 * self.workers)
        grown = max(1, self._largest_packed * GROWTH)
        return self._whole_begins(min(shared, grown, self._most()))

    def share(self, total: int) -> int:
        """Return how many of *total* items go together where no time will be known in time."""
        return shares(total, self.begin_size, self.workers)

    def is_short(self, items: int) -> bool:
        """Return whether *items* take little time, as was measured; they may wait for others."""
        return self._is_done_in(SHORT_FACTOR * self._target, items)

    def may_stay_packed(self, items: int) -> bool:
        """Return whether so many *items*, more than `size` says, may go in one chunk as well."""
        return items <= self._largest_run * self._growth and self._is_done_in(QUICK_SECONDS, items)

    def _is_done_in(self, seconds: float, items: int) -> bool:
        return bool(self._items) and items * self._seconds / self._items < seconds

    def _most(self) -> float:
        return min(self._most_items, TARGET_BYTES / max(self._bytes_per_item, 1.0))

    def _whole_begins(self, items: float) -> int:
        return max(1, math.floor(items) // self.begin_size) * self.begin_size


def shares(total: int, begin_size: int, workers: int) -> int:
    """Return the items per chunk where all chunks are made before any time is known.

    >>> shares(total=1_000, begin_size=1, workers=2)
    7
    >>> shares(total=1_000, begin_size=10, workers=2)
    10
    """
    return max(1, total // (workers * CHUNKS_PER_WORKER) // begin_size) * begin_size


CHUNKS_PER_WORKER: Final = 64
"""For `shares`. Smaller: workers that draw a slow chunk last leave the others idle. Larger: more
messages per item. At 64 the last chunk is under 2 % of a worker's share."""
