"""A sentence on what limits the calls of a timeline, and what to do about it."""

from __future__ import annotations

from typing import Final

from parallel_facade._configuration.cpu_count import is_gil_on
from parallel_facade._configuration.settings import usable_cpus
from parallel_facade._tracing.analysis import (
    IDLE,
    LARGE_BYTES,
    REBUILD,
    RETURN,
    RUN,
    SEND,
    SERIALIZE,
    START,
    TAKE,
    TraceFacts,
)
from parallel_facade._tracing.formatting import as_bytes, as_percent, as_time, counted
from parallel_facade._worker.timings import PACK, PACK_CALLABLE, UNPACK

GOOD_SHARE: Final = 0.8
"""From this share on, the function itself takes the time."""
BUSY: Final = 0.7
"""Share of a CPU: a thread that computes for less waits for something else."""
ONE_AT_A_TIME: Final = 1.2
"""Number of CPUs: threads that use more run code that lets other threads run."""


def advice_on(facts: TraceFacts) -> str:
    """Return advice about the limit of the calls, and about losses with unknown times."""
    return _on_limit(facts) + _about_losses(facts)


def _on_limit(facts: TraceFacts) -> str:
    if not facts.spans:
        return "No worker has reported a chunk."
    if facts.shares[RUN] >= GOOD_SHARE:
        return _advice_for_run(facts)
    costs = {what: share for what, share in facts.shares.items() if what != RUN}
    worst = max(costs, key=lambda what: costs[what])
    waits_for_caller = worst == IDLE and costs[IDLE] >= GOOD_SHARE
    if worst != START and facts.are_items_small and not waits_for_caller:
        spent = as_percent(sum(costs.values()))
        around = f"{spent} of the workers' time is spent around the function"
        return f"{around}: {_about_small_items(facts)}"
    how_much = f"{as_percent(costs[worst])} of the workers' time passes while "
    return how_much + _ADVICE[worst](facts) + _about_threads(worst, facts)


def _advice_for_run(facts: TraceFacts) -> str:
    cpus = usable_cpus()
    busy = facts.cpu_seconds / facts.seconds if facts.seconds else 0.0
    share = f"The function itself runs for {as_percent(facts.shares[RUN])} of the workers' time"
    if facts.are_threads:
        if facts.workers == 1 and busy >= BUSY:
            more = (
                "Processes run at the same time: backend='process'."
                if is_gil_on()
                else "More threads run at the same time: set workers."
            )
            return f"{share}, in one thread. {more}"
        if is_gil_on() and len(facts.lanes) > 1 and BUSY <= busy <= ONE_AT_A_TIME:
            return (
                f"{facts.workers} threads compute as much as {busy:.1f} CPUs: only one at a time "
                "runs Python code. Processes run at the same time: backend='process'."
            )
    elif facts.workers >= cpus and busy >= BUSY * cpus:
        return (
            f"{share}: {counted(facts.workers, 'worker')} on {counted(cpus, 'CPU')}, which "
            "compute all the time. More workers would not help; only a faster function would."
        )
    return f"{share}: only a faster function or more workers would help."


def _on_serialize(facts: TraceFacts) -> str:
    steps = [step for call in facts.calls for step in call.steps]
    callables = sum(step.ended - step.began for step in steps if step.what == PACK_CALLABLE)
    arguments = sum(step.ended - step.began for step in steps if step.what == PACK)
    if callables > arguments:
        return f"the caller serializes the callable: {_about_callable(facts)}"
    return f"the caller serializes the arguments: {_about_arguments(facts)}"


def _on_send(facts: TraceFacts) -> str:
    if facts.sizes[PACK_CALLABLE] * len(facts.lanes) > facts.sizes[PACK]:
        return f"they wait for data that is being sent: {_about_callable(facts)}"
    return f"they wait for data that is being sent: {_about_arguments(facts)}"


def _on_rebuild(facts: TraceFacts) -> str:
    times = [span.times for span in facts.spans]
    callables = sum(one.callable_ready - one.received for one in times)
    arguments = sum(one.arguments_ready - one.callable_ready for one in times)
    if callables > arguments:
        return f"they rebuild the callable: {_about_callable(facts)}"
    return f"they rebuild the arguments: {_about_arguments(facts)}"


def _on_return(facts: TraceFacts) -> str:
    return f"they serialize the results: {_about_results(facts)}"


def _on_take(facts: TraceFacts) -> str:
    return f"the caller rebuilds the results: {_about_results(facts)}"


def _on_start(facts: TraceFacts) -> str:  # noqa: ARG001 - same signature as the others
    return (
        "workers start. Later calls use the same workers; to start them earlier, make a Pool "
        "at the start of the program."
    )


def _on_idle(facts: TraceFacts) -> str:
    if facts.items < facts.workers:
        return (
            f"they have nothing to do: {counted(facts.items, 'item')} for {facts.workers} "
            "workers. Divide the work into more items."
        )
    longest = facts.longest()
    last = max(span.times.encoded for span in facts.spans)
    if longest is not None and longest.ended - longest.began > facts.seconds / 2:
        return (
            f"they have nothing to do: item {longest.item} ran for "
            f"{as_time(longest.ended - longest.began)} of {as_time(facts.seconds)}. Start with "
            "the items that take longest, or divide them."
        )
    if _ended(facts) - last > facts.seconds / 4:
        return "they have nothing to do: the caller still took results after all items had run."
    return (
        "they have nothing to do: the caller provides items, or takes results, more slowly "
        "than workers run them. Look at what it does between two results."
    )


def _ended(facts: TraceFacts) -> float:
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


def _about_callable(facts: TraceFacts) -> str:
    return (
        f"{as_bytes(facts.sizes[PACK_CALLABLE])} in {counted(len(facts.calls), 'call')}. Make "
        "fewer calls with more items each; or have workers load it: Pool(initializer=...)."
    )


def _about_arguments(facts: TraceFacts) -> str:
    return _about_size(
        facts,
        PACK,
        "Put data that many items share into the callable, which is sent once: "
        "functools.partial(f, data). Or send file names, and read the files in the function.",
    )


def _about_results(facts: TraceFacts) -> str:
    return _about_size(
        facts,
        UNPACK,
        "Return only the parts that you need, or write them to a file and return its name.",
    )


def _about_size(facts: TraceFacts, what: str, remedy: str) -> str:
    size = facts.per_item(what)
    if size < LARGE_BYTES:
        return _about_small_items(facts)
    return f"{as_bytes(size)} for each item. {remedy}"


def _about_small_items(facts: TraceFacts) -> str:
    return (
        f"an item runs for {as_time(facts.seconds_of_item)} only. Do more in each call of the "
        "function; or run it where nothing is sent: backend='serial'."
    )


def _about_threads(cost: str, facts: TraceFacts) -> str:
    """Return a hint that threads avoid *cost*, if they can run Python code at the same time."""
    if is_gil_on() or facts.are_threads or cost not in {SERIALIZE, SEND, REBUILD, RETURN, TAKE}:
        return ""
    return " Or use threads, to which nothing is sent: in this Python they run at the same time."


def _about_losses(facts: TraceFacts) -> str:
    if not facts.lost:
        return ""
    were = "was" if facts.lost == 1 else "were"
    return (
        f" {counted(facts.lost, 'item')} {were} lost with a worker, or stopped; how long they "
        "ran is not known."
    )
