"""The report on a timeline: shares of the workers' time, and advice."""

from __future__ import annotations

import textwrap
from typing import Final, NamedTuple

from parallel_facade._dispatch.call_trace import CallTrace
from parallel_facade._tracing.advice import advice_on
from parallel_facade._tracing.analysis import MEANINGS, TraceFacts
from parallel_facade._tracing.formatting import as_percent, as_time, counted
from parallel_facade._worker.timings import PACK, PACK_CALLABLE, UNPACK

BAR: Final = 12
WIDTH: Final = 79
"""Columns of a report: a terminal has 80."""


class TraceReport(NamedTuple):
    """Where the time of the calls of a `trace` went.

    Attributes:
        calls: Number of calls.
        items: Number of items that were run.
        seconds: Seconds in which at least one call was running.
        workers: Number of workers that were, or could have been, in use.
        shares: Share of the workers' time, from 0 to 1, by activity: ``"run"``,
            ``"serialize"``, ``"send"``, ``"rebuild"``, ``"return"``, ``"take"``, ``"start"`` and
            ``"idle"``.
        callable_bytes: Bytes of the callables that were sent.
        argument_bytes: Bytes of the arguments that were sent.
        result_bytes: Bytes of the results that were received.
        run_seconds: Seconds that all items ran, added up.
        lost: Number of items that were lost with a worker, or stopped, counted once for each
            attempt; no other field includes them.
        advice: What limits the calls, and what to do about it.

    >>> from parallel_facade import pmap, trace
    >>> with trace() as timeline:
    ...     _ = pmap(abs, [-1, -2], backend="serial")
    >>> timeline.report().items
    2
    """

    calls: int
    items: int
    seconds: float
    workers: int
    shares: dict[str, float]
    callable_bytes: int
    argument_bytes: int
    result_bytes: int
    run_seconds: float
    lost: int
    advice: str

    def __str__(self) -> str:
        if not self.calls:
            return self.advice
        head = (
            f"{counted(self.calls, 'call')}, {counted(self.items, 'item')}, "
            f"{as_time(self.seconds)} on {counted(self.workers, 'worker')}"
        )
        lines = [_line(what, share) for what, share in self.shares.items() if share >= 0.005]
        return "\n".join([head, "", *lines, "", *textwrap.wrap(self.advice, WIDTH)])


# Tracebacks and help() show the name under which users import it.
TraceReport.__module__ = "parallel_facade"


def report_of(calls: list[CallTrace]) -> TraceReport:
    """Return the report on *calls*."""
    if not calls:
        return TraceReport(
            0, 0, 0.0, 0, dict.fromkeys(MEANINGS, 0.0), 0, 0, 0, 0.0, 0, "no call was made"
        )
    facts = TraceFacts(calls)
    return TraceReport(
        calls=len(calls),
        items=facts.items,
        seconds=facts.seconds,
        workers=facts.workers,
        shares=facts.shares,
        callable_bytes=facts.sizes[PACK_CALLABLE],
        argument_bytes=facts.sizes[PACK],
        result_bytes=facts.sizes[UNPACK],
        run_seconds=facts.run_seconds,
        lost=facts.lost,
        advice=advice_on(facts),
    )


def _line(what: str, share: float) -> str:
    bar = "#" * round(share * BAR)
    return f"  {what:<9} {as_percent(share):>5}  {bar:<{BAR}}  {MEANINGS[what]}"
