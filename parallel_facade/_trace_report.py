"""What a timeline comes to: shares of the workers' time, and a sentence that says what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Final, NamedTuple

from parallel_facade._call_trace import CallTrace
from parallel_facade._config import usable_cpus
from parallel_facade._lanes import (
    IDLE,
    MEANINGS,
    REBUILD,
    RETURN,
    RUN,
    SEND,
    SERIALIZE,
    START,
    TAKE,
    Gaps,
    shares_of_time,
    visits_of,
)
from parallel_facade._timeline import PACK, PACK_CALLABLE, UNPACK, ItemTimes

GOOD_SHARE: Final = 0.8
"""From here on the function itself is what takes the time."""
LARGE_BYTES: Final = 100_000
"""Of an item or a result: with more, bytes are what costs; with less, it is the number of items."""
BUSY: Final = 0.7
"""Of a CPU: a thread that computes for less waits for something else."""
ONE_AT_A_TIME: Final = 1.2
"""CPUs: what threads use of more is in code that lets others run."""
SMALL_ITEM_SECONDS: Final = 1e-4
"""With less, what is around an item counts as much as the item."""
BAR: Final = 12
WIDTH: Final = 79
"""Columns of a report: a terminal has 80."""


class TraceReport(NamedTuple):
    """Where the time of the calls of a `trace` went.

    Attributes:
        calls: How many calls there were.
        items: Items that were run.
        seconds: How long there was a call.
        workers: How many workers were, or could have been, in use.
        shares: Share of the workers' time, from 0 to 1, by what went on: ``"run"``,
            ``"serialize"``, ``"send"``, ``"rebuild"``, ``"return"``, ``"take"``, ``"start"`` and
            ``"idle"``.
        callable_bytes: Size of the callables that were sent.
        argument_bytes: Size of the arguments that were sent.
        result_bytes: Size of the results that came back.
        run_seconds: How long the items ran, all together.
        lost: Items that were lost with a worker, or stopped, once for each attempt; what they took
            is in nothing else here.
        advice: What limits it, and what to do about that.

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
            f"{_counted(self.calls, 'call')}, {_counted(self.items, 'item')}, "
            f"{_time(self.seconds)} on {_counted(self.workers, 'worker')}"
        )
        lines = [
            f"  {what:<9} {_percent(share):>5}  {'#' * round(share * BAR):<{BAR}}  {MEANINGS[what]}"
            for what, share in self.shares.items()
            if share >= 0.005
        ]
        return "\n".join([head, "", *lines, "", *textwrap.wrap(self.advice, WIDTH)])


# Users see it in tracebacks and in help() under the name they import it by.
TraceReport.__module__ = "parallel_facade"


def report_of(calls: list[CallTrace]) -> TraceReport:
    """Return what *calls* come to."""
    if not calls:
        return TraceReport(
            0, 0, 0.0, 0, dict.fromkeys(MEANINGS, 0.0), 0, 0, 0, 0.0, 0, "no call was made"
        )
    facts = _Facts(calls)
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
        advice=_advice(facts) + _about_losses(facts),
    )


class _Facts:
    """What is known of *calls*, of which there is one at least."""

    def __init__(self, calls: list[CallTrace]) -> None:
        gaps = Gaps(calls)
        self.calls = calls
        self.seconds = gaps.seconds
        self.workers = max(call.workers for call in calls)
        self.lanes = visits_of(calls)
        self.shares = shares_of_time(gaps, self.lanes, self.workers)
        self.sizes: dict[str, int] = dict.fromkeys((PACK_CALLABLE, PACK, UNPACK), 0)
        for call in calls:
            for step in call.steps:
                self.sizes[step.what] += step.size
        self.visits = [visit for visits in self.lanes.values() for visit in visits]
        times = [visit.times for visit in self.visits]
        self.items = sum(one.items for one in times)
        self.run_seconds = sum(one.applied for one in times)
        self.cpu_seconds = sum(one.cpu for one in times)
        self.lost = sum(loss.items for call in calls for loss in call.losses)

    def per_item(self, what: str) -> float:
        """Return the bytes of an item."""
        return self.sizes[what] / max(1, self.items)

    @property
    def seconds_of_item(self) -> float:
        """How long an item ran."""
        return self.run_seconds / max(1, self.items)

    @property
    def are_items_small(self) -> bool:
        """Whether it is their number that costs, and not their size."""
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
        """Return the item that ran for longest, of those that were noted."""
        noted: Iterable[ItemTimes] = (one for visit in self.visits for one in visit.times.noted)
        return max(noted, key=lambda one: one.ended - one.began, default=None)


def _advice(facts: _Facts) -> str:
    if not facts.visits:
        return "No worker has told of a chunk."
    if facts.shares[RUN] >= GOOD_SHARE:
        return _advice_for_run(facts)
    costs = {what: share for what, share in facts.shares.items() if what != RUN}
    worst = max(costs, key=lambda what: costs[what])
    waits_for_caller = worst == IDLE and costs[IDLE] >= GOOD_SHARE
    if worst != START and facts.are_items_small and not waits_for_caller:
        spent = f"{_percent(sum(costs.values()))} of the workers' time is spent around the function"
        return f"{spent}: {_about_small_items(facts)}"
    how_much = f"{_percent(costs[worst])} of the workers' time goes by while "
    return how_much + _ADVICE[worst](facts)


def _advice_for_run(facts: _Facts) -> str:
    cpus = usable_cpus()
    busy = facts.cpu_seconds / facts.seconds if facts.seconds else 0.0
    share = f"The function itself runs for {_percent(facts.shares[RUN])} of the workers' time"
    if facts.are_threads:
        if facts.workers == 1 and busy >= BUSY:
            return f"{share}, in one thread. Processes run at the same time: backend='process'."
        if len(facts.lanes) > 1 and BUSY <= busy <= ONE_AT_A_TIME:
            return (
                f"{facts.workers} threads compute as much as {busy:.1f} CPUs: only one at a time "
                "runs Python code. Processes run at the same time: backend='process'."
            )
    elif facts.workers >= cpus and busy >= BUSY * cpus:
        return (
            f"{share}: {_counted(facts.workers, 'worker')} on {_counted(cpus, 'CPU')}, which "
            "compute all the time. More workers would not be faster; what is left to gain is in "
            "the function."
        )
    return f"{share}: what is left to gain is in the function, or in more workers."


def _on_serialize(facts: _Facts) -> str:
    steps = [step for call in facts.calls for step in call.steps]
    callables = sum(step.ended - step.began for step in steps if step.what == PACK_CALLABLE)
    arguments = sum(step.ended - step.began for step in steps if step.what == PACK)
    if callables > arguments:
        return f"the caller serializes the callable: {_about_callable(facts)}"
    return f"the caller serializes the arguments: {_about_arguments(facts)}"


def _on_send(facts: _Facts) -> str:
    if facts.sizes[PACK_CALLABLE] * len(facts.lanes) > facts.sizes[PACK]:
        return f"what they need is on its way: {_about_callable(facts)}"
    return f"what they need is on its way: {_about_arguments(facts)}"


def _on_rebuild(facts: _Facts) -> str:
    times = [visit.times for visit in facts.visits]
    callables = sum(one.callable_ready - one.received for one in times)
    arguments = sum(one.arguments_ready - one.callable_ready for one in times)
    if callables > arguments:
        return f"they rebuild the callable: {_about_callable(facts)}"
    return f"they rebuild the arguments: {_about_arguments(facts)}"


def _on_return(facts: _Facts) -> str:
    return f"they serialize the results: {_about_results(facts)}"


def _on_take(facts: _Facts) -> str:
    return f"the caller rebuilds the results: {_about_results(facts)}"


def _on_start(facts: _Facts) -> str:  # noqa: ARG001 - as the others
    return (
        "workers start. Later calls find them running; to have that early, make a Pool at the "
        "start of the program."
    )


def _on_idle(facts: _Facts) -> str:
    if facts.items < facts.workers:
        return (
            f"they have nothing to do: {_counted(facts.items, 'item')} for {facts.workers} "
            "workers. Divide the work into more items."
        )
    longest = facts.longest()
    last = max(visit.times.encoded for visit in facts.visits)
    if longest is not None and longest.ended - longest.began > facts.seconds / 2:
        return (
            f"they have nothing to do: item {longest.item} ran for "
            f"{_time(longest.ended - longest.began)} of {_time(facts.seconds)}. Begin with the "
            "items that take longest, or divide them."
        )
    if _ended(facts) - last > facts.seconds / 4:
        return "they have nothing to do: the caller still took results when all had run."
    return (
        "they have nothing to do: the caller gives items, or takes results, more slowly than they "
        "are run. See what it does between two results."
    )


def _ended(facts: _Facts) -> float:
    return max(call.ended or call.began for call in facts.calls)


_ADVICE: Final = {
    SERIALIZE: _on_serialize,
    SEND: _on_send,
    REBUILD: _on_rebuild,
    RETURN: _on_return,
    TAKE: _on_take,
    START: _on_start,
    IDLE: _on_idle,
}


def _about_callable(facts: _Facts) -> str:
    return (
        f"{_bytes(facts.sizes[PACK_CALLABLE])} in {_counted(len(facts.calls), 'call')}. Make fewer "
        "calls with more items each; or have workers load it: Pool(initializer=...)."
    )


def _about_arguments(facts: _Facts) -> str:
    return _about_size(
        facts,
        PACK,
        "What many items share belongs in the callable, which is sent once: "
        "functools.partial(f, data). Or give names of files, and read them in the function.",
    )


def _about_results(facts: _Facts) -> str:
    return _about_size(
        facts,
        UNPACK,
        "Return what you need of it, or write it to a file in the function and return its name.",
    )


def _about_size(facts: _Facts, what: str, remedy: str) -> str:
    size = facts.per_item(what)
    if size < LARGE_BYTES:
        return _about_small_items(facts)
    return f"{_bytes(size)} for each item. {remedy}"


def _about_small_items(facts: _Facts) -> str:
    return (
        f"an item runs for {_time(facts.seconds_of_item)} only. Have each call of the function do "
        "more; or run it where nothing is sent: backend='serial'."
    )


def _about_losses(facts: _Facts) -> str:
    if not facts.lost:
        return ""
    were = "was" if facts.lost == 1 else "were"
    return (
        f" {_counted(facts.lost, 'item')} {were} lost with a worker, or stopped, and what that "
        "took is not known."
    )


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _time(seconds: float) -> str:
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:,.0f} s"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
