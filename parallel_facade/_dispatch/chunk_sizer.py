"""Chooses how many items travel together, from the measured time and bytes of items.

    first chunks: a fair share each, or one begin size ─► reports say seconds ─┐
                      chunks of TARGET_SECONDS, shrinking towards the end ◄─────┘

The items of a map begin in groups of the begin size: one item, or the requested *chunksize*. A
chunk holds as many groups as make the message worth its cost.

Where idle workers take over what others have not begun, the first chunks are the workers' fair
shares of all items: a map of few quick items is then one message for each worker.
"""

from __future__ import annotations

import math
from typing import Final

from parallel_facade.backends.base import TARGET_SECONDS

LEAST_PART: Final = 0.1
"""Work in one of the last chunks, as a fraction of the work in others: in smaller chunks, messages
cost more than idle workers at the end."""

SHORT_FACTOR: Final = 2.5
"""The most work in a chunk that may wait behind another in the same worker, as a multiple of the
usual work: only for these chunks is a worker's wait for the next chunk worth saving."""

MOST_ITEMS: Final = 1 << 14
"""Items in one chunk. A worker's log has room for this many outcomes; at this size, a message costs
less than a thousandth of the cost per item of the cheapest function."""

TARGET_BYTES: Final = 1 << 20
"""Bytes in one chunk: a large item alone is worth a message."""

GROWTH: Final = 16
"""How many times larger than the largest measured chunk a chunk may be: the first items may be
quicker than the others."""

GROWTH_TO_TAKE_BACK: Final = 256
"""The same, if other workers can take over unstarted items. Each step costs a round trip, and most
maps of tiny items end after a few."""

QUICK_SECONDS: Final = 0.01
"""The most work in a packed chunk that is sent as it is although it is now too large: packing it
again takes as long as the workers may idle at the end, or longer."""


class ChunkSizer:
    """Chooses the number of items for each chunk of one map.

    Args:
        begin_size: Items that begin together; each chunk is a multiple of it.
        workers: Workers that the items are divided among.
        most: The most items in a chunk that exceeds *begin_size*; `None` for `MOST_ITEMS`.
        can_take_back: Whether another worker can take over items that a worker has not begun.
        seconds: Work in a chunk.
        total: How many items are divided into fair shares; `None` to begin with one begin size.
    """

    def __init__(
        self,
        begin_size: int,
        workers: int,
        most: int | None = None,
        *,
        can_take_back: bool = False,
        seconds: float = TARGET_SECONDS,
        total: int | None = None,
    ) -> None:
        self.begin_size = begin_size
        self.workers = workers
        self._target = seconds
        self._total = total
        self._growth = GROWTH_TO_TAKE_BACK if can_take_back else GROWTH
        self._most_items = min(MOST_ITEMS, most or MOST_ITEMS)
        self._seconds = 0.0
        self._items = 0.0
        self._largest_run = 0
        self._largest_packed = 0
        self._bytes_per_item = 0.0

    def note_run(self, items: int, seconds: float) -> None:
        """Take into account that *items* items took *seconds*; the latest count most."""
        if items > 0:
            self._seconds = self._seconds / 2 + seconds
            self._items = self._items / 2 + items
            self._largest_run = max(self._largest_run, items)

    def note_packed(self, items: int, size: int) -> None:
        """Take into account that *items* items take *size* bytes."""
        self._bytes_per_item = size / items
        self._largest_packed = max(self._largest_packed, items)

    def size(self, left: float) -> int:
        """Return how many of the *left* items go into the next chunk."""
        if not self._items:
            return self._fair_share() if self.divides_evenly else self.begin_size
        seconds = max(self._seconds / self._items, 1e-9)
        # Each worker gets half of its share of the remaining items, and so on: all end together.
        shared = max(left / (2 * self.workers), LEAST_PART * self._target / seconds)
        grown = self._largest_run * self._growth
        return self._whole_begins(min(self._target / seconds, shared, grown, self._most()))

    def size_to_check(self, total: int) -> int:
        """Return how many of *total* items to pack together when checking that they can travel."""
        if self.divides_evenly:
            return self._fair_share()
        shared = total / (4 * self.workers)
        grown = max(1, self._largest_packed * GROWTH)
        return self._whole_begins(min(shared, grown, self._most()))

    def share(self, total: int) -> int:
        """Return how many of *total* items go together if all chunks are made before any runs."""
        if self.divides_evenly:
            return self._fair_share()
        return shares(total, self.begin_size, self.workers)

    def is_short(self, items: int) -> bool:
        """Return whether *items* items take little measured time; they may wait for others."""
        return self._is_done_in(SHORT_FACTOR * self._target, items)

    def may_stay_packed(self, items: int) -> bool:
        """Return whether a packed chunk may keep its *items* items, more than `size` allows."""
        return items <= self._largest_run * self._growth and self._is_done_in(QUICK_SECONDS, items)

    @property
    def divides_evenly(self) -> bool:
        """Whether the first chunks are fair shares."""
        return self._total is not None

    def _fair_share(self) -> int:
        groups = -(-(self._total or 0) // self.begin_size)
        share = -(-groups // self.workers) * self.begin_size
        return self._whole_begins(min(share, self._most()))

    def _is_done_in(self, seconds: float, items: int) -> bool:
        return bool(self._items) and items * self._seconds / self._items < seconds

    def _most(self) -> float:
        return min(self._most_items, TARGET_BYTES / max(self._bytes_per_item, 1.0))

    def _whole_begins(self, items: float) -> int:
        return max(1, math.floor(items) // self.begin_size) * self.begin_size


def shares(total: int, begin_size: int, workers: int) -> int:
    """Return the items per chunk if all chunks are made before any time is known.

    >>> shares(total=1_000, begin_size=1, workers=2)
    7
    >>> shares(total=1_000, begin_size=10, workers=2)
    10
    """
    return max(1, total // (workers * CHUNKS_PER_WORKER) // begin_size) * begin_size


CHUNKS_PER_WORKER: Final = 64
"""For `shares`. Smaller: the others idle while a worker runs a slow last chunk. Larger: more
messages per item. At 64, the last chunk is under 2 % of a worker's share."""
