"""Gives the chunks of a map: from its input, and from items that have to run again.

    input ─pull─► chunk ─pack─► packed ─► next
                    ▲             │ larger than it should be by now
    again, later ───┴─────────────┘

Guarantees:
    - An item is pulled only when there is room for it, by the thread that calls `next`.
    - Items that have to run again go before items that have not been pulled.
    - An item that cannot travel is refused alone; its chunk goes on without it.

Assumes:
    - One consumer at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

from parallel_facade._common.deadlines import Deadline
from parallel_facade._common.errors import SerializationError
from parallel_facade._common.interrupt_safety import came_from_handler
from parallel_facade._common.plain_data import ATOMIC_TYPES
from parallel_facade._dispatch.chunk_sizer import ChunkSizer
from parallel_facade._dispatch.codecs import Codec
from parallel_facade._worker.outcomes import Failure
from parallel_facade._worker.run_chunk import Chunk

CHECKED_AHEAD_BYTES: Final = 64 << 20
"""Payloads that an eager map packs before it runs anything, to refuse items that cannot travel.
More would hold the data a second time; later items are refused when their turn comes."""


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
        items = self.chunk.items[first : first + count]
        return Packed(self.chunk._replace(first=self.chunk.first + first, items=items))

    def singles(self, count: int) -> list[Packed]:
        """Return its first *count* items, each as a chunk."""
        return [self.part(position, 1) for position in range(count)]


class ChunkSource:
    """Gives the next chunk to submit.

    Args:
        items: The input.
        codec: Packs chunks.
        sizer: Chooses their size.
        window: How many chunks may be in flight.
        total: How many items there are; `None` if that is not known.
        buffersize: The most items pulled and not yet taken; 0 for as many as the workers need;
            `None` for no bound.
        is_passive: Pulling an item runs none of the user's code, which might change earlier items.
        refuse: Called with a chunk of one item that cannot travel, and the failure.
    """

    def __init__(
        self,
        items: Iterator[Any],
        codec: Codec,
        sizer: ChunkSizer,
        *,
        window: int,
        total: int | None,
        buffersize: int | None,
        is_passive: bool,
        refuse: Callable[[Chunk, Failure], object],
    ) -> None:
        self._items = items
        self._codec = codec
        self._sizer = sizer
        self.window = window
        """As the argument; may change."""
        self._total = total
        self._buffersize = buffersize
        self._is_passive = is_passive
        self._refuse = refuse
        self._pulled = 0
        self._handed_out = 0  # items in chunks that were given, minus those to run again
        self._again: deque[Packed] = deque()
        self._packed: deque[Packed] = deque()
        self._later: deque[tuple[Deadline, Packed]] = deque()
        self.taken = 0
        """How many outcomes the consumer has."""
        self.is_exhausted = False
        """Whether nothing more is pulled."""
        self.input_error: Exception | None = None
        """The exception that the input raised."""

    # ── giving ────────────────────────────────────────────────────────────────────────────────

    def check_ahead(self) -> None:
        """Pack the next items, up to `CHECKED_AHEAD_BYTES`, to refuse those that cannot travel."""
        size = 0
        while size < CHECKED_AHEAD_BYTES:
            count = self._sizer.size_to_check(self._total or 1)
            if (packed := self._pack_next(count)) is None:
                return
            self._packed.append(packed)
            size += self._codec.size_of(packed.payload)

    def divide_evenly(self) -> None:
        """Make all chunks now, before any time is known."""
        count = self._sizer.share(self._total or 1)
        while (packed := self._pack_next(count)) is not None:
            self._packed.append(packed)

    def next(self, *, as_packed: bool = False) -> Packed | None:
        """Return the next chunk; `None` if there is none, or no room for it.

        Args:
            as_packed: Return a chunk that was packed ahead as it is, however large.
        """
        size = self._sizer.size(self._left())
        if self._packed and not self._again and not self._due():
            packed = self._packed.popleft()
            count = len(packed.chunk.items)
            if as_packed or count <= size or self._sizer.may_stay_packed(count):
                return self._split_off(packed)
            self._again.append(packed)
        packed_next = self._pack_next(size)
        return None if packed_next is None else self._split_off(packed_next)

    def _split_off(self, packed: Packed) -> Packed:
        self._handed_out += len(packed.chunk.items)
        return packed

    def _left(self) -> float:
        return float("inf") if self._total is None else self._total - self._handed_out

    def _pack_next(self, size: int) -> Packed | None:
        while (found := self._next_again(size) or self._pull(size)) is not None:
            if (packed := found if found.payload is not None else self._pack(found)) is not None:
                return packed
        return None

    def _next_again(self, size: int) -> Packed | None:
        if self._due():
            self._again.append(self._later.popleft()[1])
        if not self._again:
            return None
        found = self._again.popleft()
        if (count := len(found.chunk.items)) > size:
            self._again.appendleft(found.part(size, count - size))
        return found.part(0, min(count, size))

    def _due(self) -> bool:
        return bool(self._later) and self._later[0][0].has_passed()

    def _pull(self, size: int) -> Packed | None:
        if self.is_exhausted or (room := self._room(size)) == 0:
            return None
        size = min(size, room)
        items: list[Any] = []
        try:
            self._pull_into(items, size)
        except Exception as exc:
            if came_from_handler(exc):
                raise
            # Items pulled before this are run, and their results come first, as in a loop.
            self.input_error = exc
            self.is_exhausted = True
        first, self._pulled = self._pulled, self._pulled + len(items)
        return Packed(Chunk(first, items, self._sizer.begin_size)) if items else None

    def _pull_into(self, items: list[Any], size: int) -> None:
        """Pull *size* items; or fewer, if an item might change when the next one is pulled.

        A generator may fill one array again and again, and yield it each time. So pulling stops
        after such an item, at the end of its group of the begin size, and the chunk is packed.
        """
        pulled: Iterator[Any] = islice(self._items, size)
        stopped = False
        if self._is_passive:
            items.extend(pulled)
        elif self._sizer.begin_size == 1:
            stopped = _extend_until_may_change(items, pulled)
        else:
            stopped = _extend_by_begin_size(items, pulled, self._sizer.begin_size)
        if len(items) < size and not stopped:
            self.is_exhausted = True

    def _room(self, size: int) -> int:
        """Return how many items may be pulled now, for a chunk of *size* items."""
        if self._buffersize is None:
            return size
        held = self._pulled - self.taken
        if self._buffersize == 0:
            return max(0, size * self.window - held)
        share = max(self._sizer.begin_size, self._buffersize // self.window)
        return min(share, max(0, self._buffersize - held))

    @property
    def slice_size(self) -> int | None:
        """Most outcomes that a lazy consumer takes at once, so that pulling goes on meanwhile."""
        if self._buffersize is None:
            return None
        bound = self._buffersize or self._sizer.size(self._left()) * self.window
        return max(1, bound // SLICES)

    def _pack(self, found: Packed) -> Packed | None:
        """Return *found* packed; `None` if an item cannot travel: only that item then fails."""
        chunk = found.chunk
        try:
            packed = Packed(chunk, self._codec.pack_chunk(chunk))
        except SerializationError as exc:
            if len(chunk.items) == 1:
                self._refuse(chunk, Failure(exc))
            else:
                self._again.extendleft(reversed(found.singles(len(chunk.items))))
            return None
        self._sizer.note_packed(len(chunk.items), self._codec.size_of(packed.payload))
        return packed

    # ── taking back ───────────────────────────────────────────────────────────────────────────

    def run_again(self, parts: list[Packed]) -> None:
        """Give *parts* of earlier chunks again, before all other items."""
        self._handed_out -= sum(len(part.chunk.items) for part in parts)
        self._again.extendleft(reversed(parts))

    def run_later(self, parts: list[Packed], delay: float) -> None:
        """Give *parts* of earlier chunks again, after *delay* seconds."""
        self._handed_out -= sum(len(part.chunk.items) for part in parts)
        self._later.extend((Deadline(delay), part) for part in parts)

    def drop_from(self, index: int) -> None:
        """Drop all chunks that begin at item *index* or later, and pull nothing more."""
        self.is_exhausted = True
        self._packed = deque(packed for packed in self._packed if packed.chunk.first < index)
        self._again = deque(packed for packed in self._again if packed.chunk.first < index)
        self._later = deque(one for one in self._later if one[1].chunk.first < index)

    def drop_all(self) -> None:
        """Drop all chunks, and pull nothing more."""
        self.is_exhausted = True
        for queue in (self._packed, self._again, self._later):
            queue.clear()

    # ── state ─────────────────────────────────────────────────────────────────────────────────

    @property
    def is_over(self) -> bool:
        """Whether there are no more chunks, now or later."""
        return self.is_exhausted and not (self._packed or self._again or self._later)

    @property
    def waits(self) -> bool:
        """Whether a part waits for its delay."""
        return bool(self._later)

    def seconds_to_next(self) -> float | None:
        """Return the seconds until the next delayed part is due; `None` if there is none."""
        return self._later[0][0].remaining() if self._later else None


def _extend_until_may_change(items: list[Any], pulled: Iterator[Any]) -> bool:
    """Pull items up to and including the first that may change; return whether there was one."""
    for item in pulled:
        items.append(item)
        if type(item) not in ATOMIC_TYPES and _may_change(item):
            return True
    return False


def _extend_by_begin_size(items: list[Any], pulled: Iterator[Any], begin_size: int) -> bool:
    """Do the same for whole groups: stop after the first group with an item that may change."""
    while True:
        before = len(items)
        items.extend(islice(pulled, begin_size))
        if len(items) < before + begin_size:
            return False
        if any(map(_may_change, items[before:])):
            return True


def _may_change(item: Any) -> bool:
    if type(item) is tuple:
        return not ATOMIC_TYPES.issuperset(map(type, item))
    return type(item) not in ATOMIC_TYPES


SLICES: Final = 8
"""The outcomes in the window are taken in at least this many slices."""
