"""Gives the chunks of a map: from its input, and from items that have to run again.

    ItemPuller ─► chunk ─pack─► packed ─► next
                    ▲             │ larger than it should be by now
    RerunQueue ─────┴─────────────┘

Guarantees:
    - Items that have to run again go before items that have not been pulled.
    - An item that cannot travel is refused alone; its chunk goes on without it.

Assumes:
    - One consumer at a time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from parallel_facade._common.deadlines import Clock
from parallel_facade._common.errors import SerializationError
from parallel_facade._dispatch.chunk_sizer import ChunkSizer
from parallel_facade._dispatch.codecs import Codec
from parallel_facade._dispatch.item_puller import ItemPuller
from parallel_facade._dispatch.map_plan import MapPlan
from parallel_facade._dispatch.rerun_queue import Packed, RerunQueue
from parallel_facade._worker.outcomes import Failure
from parallel_facade._worker.run_chunk import Chunk

CHECKED_AHEAD_BYTES: Final = 64 << 20
"""Payloads that an eager map packs before it runs anything, to refuse items that cannot travel.
More would hold the data a second time; later items are refused when their turn comes."""

LARGE_ITEM_BYTES: Final = 1 << 14
"""Bytes of an item that take longer to pack than a message takes."""

SLICES: Final = 8
"""The outcomes in the window are taken in at least this many slices."""


class ChunkSource:
    """Gives the next chunk to submit.

    Args:
        plan: The input.
        codec: Packs chunks.
        sizer: Chooses their size.
        window: How many chunks may be in flight.
        refuse: Called with a chunk of one item that cannot travel, and the failure.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self,
        plan: MapPlan,
        codec: Codec,
        sizer: ChunkSizer,
        *,
        window: int,
        refuse: Callable[[Chunk, Failure], object],
        clock: Clock = time.monotonic,
    ) -> None:
        self._plan = plan
        self._codec = codec
        self._sizer = sizer
        self.window = window
        """As the argument; may change."""
        self._refuse = refuse
        self._handed_out = 0  # items in chunks that were given, minus those to run again
        self._reruns = RerunQueue(clock)
        self._packed: deque[Packed] = deque()
        self.puller = ItemPuller(plan, clock)
        """Pulls the input, and knows how many outcomes were taken."""

    # ── giving ────────────────────────────────────────────────────────────────────────────────

    def check_ahead(self) -> None:
        """Pack the next items, up to `CHECKED_AHEAD_BYTES`, to refuse those that cannot travel."""
        size = 0
        self._measure_first()
        while size < CHECKED_AHEAD_BYTES:
            count = self._sizer.size_to_check(self._plan.total or 1)
            if (packed := self._pack_next(count)) is None:
                return
            self._packed.append(packed)
            size += self._codec.size_of(packed.payload)

    def _measure_first(self) -> None:
        """Measure the bytes of the first item: they bound how many items a fair share may have.

        A large item is not packed twice: it makes a chunk.
        """
        is_single = self._sizer.share(self._plan.total or 1) == 1
        if not self._sizer.divides_evenly or is_single or not self._plan.sample:
            return
        with suppress(SerializationError):  # it is refused when its turn comes
            payload = self._codec.pack_chunk(Chunk(0, self._plan.sample))
            size = self._codec.size_of(payload)
            self._sizer.note_packed(1, size)
            if size >= LARGE_ITEM_BYTES and self._plan.begin_size == 1:
                chunk = self.puller.pull(1, self.window)
                assert chunk is not None, "the sample is its item"
                self._packed.append(Packed(chunk, payload))

    def divide_evenly(self) -> None:
        """Make all chunks now, before any time is known."""
        self._measure_first()
        count = self._sizer.share(self._plan.total or 1)
        while (packed := self._pack_next(count)) is not None:
            self._packed.append(packed)

    def next(self, *, as_packed: bool = False) -> Packed | None:
        """Return the next chunk; `None` if there is none, or no room for it.

        Args:
            as_packed: Return a chunk that was packed ahead as it is, however large.
        """
        size = self._sizer.size(self._left())
        packed: Packed | None = None
        if self._packed and not self._reruns.has_due():
            packed = self._packed.popleft()
            count = len(packed.chunk.items)
            if not (as_packed or count <= size or self._sizer.may_stay_packed(count)):
                self._reruns.add_first([packed])
                packed = None
        if packed is None and (packed := self._pack_next(size)) is None:
            return None
        self._handed_out += len(packed.chunk.items)
        return packed

    def _left(self) -> float:
        total = self._plan.total
        return float("inf") if total is None else total - self._handed_out

    def _pack_next(self, size: int) -> Packed | None:
        while True:
            found = self._reruns.next(size)
            if found is None:
                if (chunk := self.puller.pull(size, self.window)) is None:
                    return None
                found = Packed(chunk)
            if (packed := found if found.payload is not None else self._pack(found)) is not None:
                return packed

    def _pack(self, found: Packed) -> Packed | None:
        """Return *found* packed; `None` if an item cannot travel: only that item then fails."""
        chunk = found.chunk
        try:
            packed = Packed(chunk, self._codec.pack_chunk(chunk))
        except SerializationError as exc:
            if len(chunk.items) == 1:
                self._refuse(chunk, Failure(exc))
            else:
                self._reruns.add_first(found.singles(len(chunk.items)))
            return None
        self._sizer.note_packed(len(chunk.items), self._codec.size_of(packed.payload))
        return packed

    # ── taking back ───────────────────────────────────────────────────────────────────────────

    def run_again(self, parts: list[Packed], delay: float = 0.0) -> None:
        """Give *parts* of earlier chunks again: before all others, or after *delay* seconds."""
        self._handed_out -= sum(len(part.chunk.items) for part in parts)
        if delay:
            self._reruns.add_later(parts, delay)
        else:
            self._reruns.add_first(parts)

    def drop_from(self, index: int) -> None:
        """Drop all chunks that begin at item *index* or later, and pull nothing more."""
        self.puller.is_exhausted = True
        self._packed = deque(packed for packed in self._packed if packed.chunk.first < index)
        self._reruns.drop_from(index)

    def drop_all(self) -> None:
        """Drop all chunks, and pull nothing more."""
        # By one step each: another thread may close the map while its consumer takes a chunk.
        self.puller.is_exhausted = True
        self._packed.clear()
        self._reruns.clear()

    # ── state ─────────────────────────────────────────────────────────────────────────────────

    @property
    def is_over(self) -> bool:
        """Whether there are no more chunks, now or later."""
        return self.puller.is_exhausted and not (self._packed or self._reruns)

    @property
    def waits(self) -> bool:
        """Whether a part waits for its delay."""
        return self.seconds_to_next() is not None

    def seconds_to_next(self) -> float | None:
        """Return the seconds until the next delayed part is due; `None` if there is none."""
        return self._reruns.seconds_to_next()

    @property
    def slice_size(self) -> int | None:
        """Most outcomes that a lazy consumer takes at once, so that pulling goes on meanwhile."""
        if (buffersize := self._plan.buffersize) is None:
            return None
        bound = buffersize or self._sizer.size(self._left()) * self.window
        return max(1, bound // SLICES)
