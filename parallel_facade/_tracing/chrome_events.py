"""A timeline in the trace-event format, as Perfetto and ``chrome://tracing`` open it.

The format: "Trace Event Format", the Chromium project, 2016. An event of phase X is an interval of
one thread, in microseconds; an event of phase i is a moment; an event of phase M names a process or
a thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from parallel_facade._dispatch.call_trace import CallTrace
from parallel_facade._tracing.analysis import (
    SEND,
    ChunkSpan,
    labelled_intervals,
    labels_of,
    spans_of,
)
from parallel_facade._worker.timings import Loss, TimedStep, WorkerLane

Event = dict[str, Any]


def events_of(calls: list[CallTrace], began: float) -> dict[str, Any]:
    """Return the timeline as an object for `json.dump`.

    Args:
        calls: The calls of the timeline.
        began: When the timeline begins.
    """
    callers = dict.fromkeys(step.thread for call in calls for step in call.steps)
    events: list[Event] = []
    for number, thread in enumerate(callers, start=1):
        name = "the caller" if number == 1 else f"caller {number}"
        events += _names(0, os.getpid(), thread, "the caller", name)
    for call in calls:
        events += (_step_event(step, call, began) for step in call.steps)
        events += (_loss_event(loss, call, began) for loss in call.losses)
    spans = spans_of(calls)
    for place, (lane, label) in enumerate(labels_of(spans).items(), start=1):
        events += _names(place, lane.pid, lane.thread, label, lane.name)
        events += _lane_events(lane, spans[lane], began)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _names(place: int, pid: int, thread: int, process: str, name: str) -> Iterator[Event]:
    if pid != os.getpid() or place == 0:
        yield _meta("process_name", pid, thread, {"name": process})
        yield _meta("process_sort_index", pid, thread, {"sort_index": place})
    yield _meta("thread_name", pid, thread, {"name": name})


def _meta(what: str, pid: int, thread: int, facts: dict[str, Any]) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": thread, "args": facts}


def _labelled_event(  # noqa: PLR0917 - the parts of an event
    name: str, category: str, began: float, ended: float, pid: int, thread: int, **facts: Any
) -> Event:
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "ts": round(began * 1e6, 3),
        "dur": round(max(0.0, ended - began) * 1e6, 3),
        "pid": pid,
        "tid": thread,
        "args": facts,
    }


def _step_event(step: TimedStep, call: CallTrace, zero: float) -> Event:
    return _labelled_event(
        step.what,
        "caller",
        step.began - zero,
        step.ended - zero,
        os.getpid(),
        step.thread,
        call=call.name,
        first=step.first,
        items=step.items,
        bytes=step.size,
    )


def _loss_event(loss: Loss, call: CallTrace, zero: float) -> Event:
    return {
        "ph": "i",
        "name": f"lost: {_items(loss.first, loss.items, call.name)}",
        "cat": "lost",
        "s": "p",
        "ts": round((loss.at - zero) * 1e6, 3),
        "pid": os.getpid(),
        "tid": call.steps[0].thread if call.steps else 0,
        "args": {"call": call.name, "first": loss.first, "items": loss.items, "why": loss.why},
    }


def _lane_events(lane: WorkerLane, spans: list[ChunkSpan], zero: float) -> Iterator[Event]:
    for span in spans:
        times, name = span.times, span.call.name
        yield _labelled_event(
            _items(times.first, times.items, name),
            "chunk",
            times.received - zero,
            times.encoded - zero,
            lane.pid,
            lane.thread,
            call=name,
            first=times.first,
            items=times.items,
            waited=round(times.received - span.submitted, 6),
            cpu=times.cpu,
        )
        for what, began, ended in labelled_intervals([span]):
            if what != SEND:
                yield _labelled_event(what, what, began - zero, ended - zero, lane.pid, lane.thread)
        for item, began, ended in times.noted:
            yield _labelled_event(
                f"item {item}", "item", began - zero, ended - zero, lane.pid, lane.thread
            )


def _items(first: int, count: int, name: str) -> str:
    if count == 1:
        return f"{name}: item {first}"
    return f"{name}: items {first} to {first + count - 1}"
