"""Where the workers' time went, lane by lane, from the first to the last step of the calls.

    submitted      received         arguments_ready       ran      encoded
    ····│  send  ····│    rebuild    ····│      run     ····│ return ··│   gap: see `Gaps`

A gap is the time of a worker between two chunks. The reason for the wait follows from what happened
meanwhile: the caller packed, the caller unpacked, the chunk was on its way, or none of these.
"""

from __future__ import annotations

import os
import socket
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from parallel_facade._dispatch.call_trace import CallTrace
from parallel_facade._worker.timings import (
    PACK,
    PACK_CALLABLE,
    UNPACK,
    ChunkTimes,
    ItemTimes,
    WorkerLane,
)


class Interval(NamedTuple):
    """The time from *began* to *ended*."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return max(0.0, self.ended - self.began)


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the union of *intervals*, in order, without overlaps."""
    found: list[Interval] = []
    for one in sorted(intervals):
        if found and one.began <= found[-1].ended:
            found[-1] = Interval(found[-1].began, max(found[-1].ended, one.ended))
        else:
            found.append(one)
    return found


def overlap(interval: Interval, covered: list[Interval]) -> float:
    """Return how many seconds of *interval* lie in *covered*, a result of `merged`."""
    place = max(0, bisect_right(covered, interval.began, key=_began) - 1)
    seconds = 0.0
    for one in covered[place:]:
        if one.began >= interval.ended:
            break
        seconds += Interval(max(one.began, interval.began), min(one.ended, interval.ended)).seconds
    return seconds


def _began(interval: Interval) -> float:
    return interval.began


RUN: Final = "run"
SERIALIZE: Final = "serialize"
SEND: Final = "send"
REBUILD: Final = "rebuild"
RETURN: Final = "return"
TAKE: Final = "take"
START: Final = "start"
IDLE: Final = "idle"

MEANINGS: Final = {
    RUN: "the function runs",
    SERIALIZE: "workers wait while the caller serializes",
    SEND: "workers wait for data that is being sent",
    REBUILD: "workers rebuild the callable and the arguments",
    RETURN: "workers serialize the results",
    TAKE: "workers wait while the caller rebuilds results",
    START: "workers start",
    IDLE: "workers have nothing to do",
}


class ChunkSpan(NamedTuple):
    """A chunk in its worker.

    Attributes:
        call: The call that the chunk belongs to.
        times: What the worker did.
        submitted: When the caller submitted it to the back-end.
    """

    call: CallTrace
    times: ChunkTimes
    submitted: float


class LabelledInterval(NamedTuple):
    """An interval, and what a worker did or waited for in it."""

    what: str
    began: float
    ended: float


def spans_of(calls: Iterable[CallTrace]) -> dict[WorkerLane, list[ChunkSpan]]:
    """Return the chunk spans of each worker, in order of time."""
    found: dict[WorkerLane, list[ChunkSpan]] = defaultdict(list)
    for call in calls:
        submitted: dict[int, list[float]] = defaultdict(list)
        for first, at in call.submissions:
            submitted[first].append(at)
        for times in call.chunks:
            span = _span(call, times, submitted)
            found[span.times.lane].append(span)
    for spans in found.values():
        spans.sort(key=lambda span: span.times.received)
    return dict(sorted(found.items()))


def _span(call: CallTrace, times: ChunkTimes, submitted: dict[int, list[float]]) -> ChunkSpan:
    attempts = submitted.get(times.first, [call.began])
    earlier = [at for at in attempts if at <= times.received]
    if not earlier:
        # The worker's clock is slow: a chunk cannot arrive before it is sent.
        times = _later(times, attempts[0] - times.received)
        earlier = attempts[:1]
    return ChunkSpan(call, times, earlier[-1])


def _later(times: ChunkTimes, seconds: float) -> ChunkTimes:
    return times._replace(
        **{
            name: getattr(times, name) + seconds
            for name in ("received", "callable_ready", "arguments_ready", "ran", "encoded")
        },
        noted=[
            one._replace(began=one.began + seconds, ended=one.ended + seconds)
            for one in times.noted
        ],
    )


def labels_of(lanes: Iterable[WorkerLane]) -> dict[WorkerLane, str]:
    """Return a unique label for each worker, for people."""
    lanes = list(lanes)
    hosts = {lane.host for lane in lanes}
    lanes_of = Counter((lane.host, lane.pid) for lane in lanes)
    labels: dict[WorkerLane, str] = {}
    for lane in lanes:
        label = f"worker {lane.pid}"
        if (lane.host, lane.pid) == (socket.gethostname(), os.getpid()):
            label = lane.name
        elif lanes_of[lane.host, lane.pid] > 1:
            label += f", {lane.name}"
        label = f"{label} on {lane.host}" if len(hosts) > 1 else label
        labels[lane] = f"{label} ({lane.thread})" if label in labels.values() else label
    return labels


class Gaps:
    """Finds what workers waited for.

    Args:
        calls: What the caller did in each call.
    """

    def __init__(self, calls: list[CallTrace]) -> None:
        steps = [
            (step.what, Interval(step.began, step.ended)) for one in calls for step in one.steps
        ]
        self._packing = merged(time for what, time in steps if what != UNPACK)
        self._unpacking = merged(time for what, time in steps if what == UNPACK)
        self._calls = merged(
            Interval(one.began, one.began if one.ended is None else one.ended) for one in calls
        )

    @property
    def seconds(self) -> float:
        """Seconds in which at least one call was running."""
        return sum(one.seconds for one in self._calls)

    @property
    def span(self) -> Interval:
        """The interval from the begin of the first call to the end of the last call."""
        return Interval(self._calls[0].began, self._calls[-1].ended)

    def waited_for(
        self, gap: Interval, submitted: float | None, ready_since: float
    ) -> dict[str, float]:
        """Return the seconds of *gap*, divided by the reason for the wait.

        Args:
            gap: When it had no chunk.
            submitted: When the chunk that ended the gap was submitted; `None` for the last gap.
            ready_since: When the worker's process had started.
        """
        start = Interval(gap.began, min(max(ready_since, gap.began), gap.ended))
        sent = gap.ended if submitted is None else min(max(submitted, start.ended), gap.ended)
        before, on_way = Interval(start.ended, sent), Interval(sent, gap.ended)
        serialize = overlap(before, self._packing)
        take = overlap(before, self._unpacking)
        idle = overlap(before, self._calls) - serialize - take
        return {
            START: overlap(start, self._calls),
            SERIALIZE: serialize,
            TAKE: take,
            SEND: overlap(on_way, self._calls),
            IDLE: max(0.0, idle),
        }


def labelled_intervals(spans: list[ChunkSpan]) -> Iterator[LabelledInterval]:
    """Yield what a worker did, in order, and how long each chunk was on its way to it."""
    free = 0.0
    for span in spans:
        times = span.times
        yield LabelledInterval(SEND, max(free, span.submitted), times.received)
        yield LabelledInterval(REBUILD, times.received, times.arguments_ready)
        yield LabelledInterval(RUN, times.arguments_ready, times.ran)
        yield LabelledInterval(RETURN, times.ran, times.encoded)
        free = times.encoded


def divided(spans: list[ChunkSpan]) -> Iterator[LabelledInterval]:
    """Yield the same, with each run split: time in the function first, then time for results."""
    applied = iter([span.times.applied for span in spans])
    for one in labelled_intervals(spans):
        if one.what == RUN:
            ended = min(one.ended, one.began + next(applied))
            yield one._replace(ended=ended)
            yield LabelledInterval(RETURN, ended, one.ended)
        else:
            yield one


def shares_of_time(
    gaps: Gaps, lanes: dict[WorkerLane, list[ChunkSpan]], workers: int
) -> dict[str, float]:
    """Return the share of each of `MEANINGS` in the time of *workers* workers."""
    seconds = dict.fromkeys(MEANINGS, 0.0)
    for lane, spans in lanes.items():
        for what, began, ended in divided(spans):
            if what != SEND:
                seconds[what] += Interval(began, ended).seconds
        # If workers replace each other, each exists for only a part of the time.
        span = gaps.span if len(lanes) <= workers else _presence(lane, spans)
        for gap, submitted in _gaps_between(span, spans):
            for what, waited in gaps.waited_for(gap, submitted, lane.ready_since).items():
                seconds[what] += waited
    for _ in range(workers - len(lanes)):  # workers that got no chunk
        for what, waited in gaps.waited_for(gaps.span, None, 0.0).items():
            seconds[what] += waited
    if len(lanes) > workers:
        seconds[IDLE] += max(0.0, workers * gaps.seconds - sum(seconds.values()))
    whole = sum(seconds.values())
    return {what: spent / whole if whole else 0.0 for what, spent in seconds.items()}


def _presence(lane: WorkerLane, spans: list[ChunkSpan]) -> Interval:
    """Return the interval in which a worker existed, as far as it is known."""
    first = spans[0]
    begin = min(max(first.submitted, lane.ready_since), first.times.received)
    return Interval(begin, spans[-1].times.encoded)


def _gaps_between(
    span: Interval, spans: list[ChunkSpan]
) -> Iterator[tuple[Interval, float | None]]:
    """Yield each gap, and the time at which the chunk that ended it was submitted."""
    times = [span.times for span in spans]
    yield Interval(span.began, times[0].received), spans[0].submitted
    for one, following in pairwise(spans):
        yield Interval(one.times.encoded, following.times.received), following.submitted
    yield Interval(times[-1].encoded, span.ended), None


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
