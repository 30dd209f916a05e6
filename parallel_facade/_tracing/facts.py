"""Facts about the calls of a timeline: shares, sizes and counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from parallel_facade._dispatch.call_trace import CallTrace
from parallel_facade._tracing.analysis import Gaps, shares_of_time, spans_of
from parallel_facade._worker.timings import PACK, PACK_CALLABLE, UNPACK, ItemTimes

LARGE_BYTES: Final = 100_000
"""Of an item or a result. Above this, the bytes cost the time; below, the number of items does."""
SMALL_ITEM_SECONDS: Final = 1e-4
"""Below this, the work around an item counts as much as the item."""


class TraceFacts:
    """Facts about *calls*; there is at least one call."""

    def __init__(self, calls: list[CallTrace]) -> None:
        gaps = Gaps(calls)
        self.calls = calls
        self.seconds = gaps.seconds
        self.workers = max(call.workers for call in calls)
        self.lanes = spans_of(calls)
        self.shares = shares_of_time(gaps, self.lanes, self.workers)
        self.sizes: dict[str, int] = dict.fromkeys((PACK_CALLABLE, PACK, UNPACK), 0)
        for call in calls:
            for step in call.steps:
                self.sizes[step.what] += step.size
        self.spans = [span for spans in self.lanes.values() for span in spans]
        times = [span.times for span in self.spans]
        self.items = sum(one.items for one in times)
        self.run_seconds = sum(one.applied for one in times)
        self.cpu_seconds = sum(one.cpu for one in times)
        self.lost = sum(loss.items for call in calls for loss in call.losses)

    def per_item(self, what: str) -> float:
        """Return the bytes of step *what* for each item."""
        return self.sizes[what] / max(1, self.items)

    @property
    def seconds_of_item(self) -> float:
        """How many seconds an item ran, on average."""
        return self.run_seconds / max(1, self.items)

    @property
    def are_items_small(self) -> bool:
        """Whether the number of items costs the time, and not their size."""
        callables = self.sizes[PACK_CALLABLE] / len(self.calls)
        size = max(self.per_item(PACK), self.per_item(UNPACK), callables)
        return self.seconds_of_item < SMALL_ITEM_SECONDS and size < LARGE_BYTES

    @property
    def are_threads(self) -> bool:
        """Whether all workers are threads of one process."""
        return (
            all(not lane.ready_since for lane in self.lanes)
            and len({one.pid for one in self.lanes}) == 1
        )

    def longest(self) -> ItemTimes | None:
        """Return the noted item that ran longest; `None` if no item was noted."""
        noted: Iterable[ItemTimes] = (one for span in self.spans for one in span.times.noted)
        return max(noted, key=lambda one: one.ended - one.began, default=None)
