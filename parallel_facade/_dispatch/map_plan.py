"""What one map is to do: its input, and how it is divided."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from parallel_facade._dispatch.call_options import Options
from parallel_facade._dispatch.chunk_sizer import ChunkSizer
from parallel_facade.backends.base import Backend


class MapPlan(NamedTuple):
    """The input of a map, and the order of its outcomes.

    Attributes:
        items: The items.
        total: How many items there are; `None` if that is not known.
        begin_size: Items that begin together.
        buffersize: The most items pulled and not yet taken; 0 for as many as the workers need;
            `None` for no bound.
        ordered: Give outcomes in the order of the items instead of the order of arrival.
        submits_all: Submit all chunks at once, without a window.
        is_passive: Pulling an item runs none of the user's code, which might change earlier items.
        max_items: The most items in one chunk; `None` to choose by measurement.
        is_plain: The items are numbers, text or bytes: none can be a part of the callable.
        sample: The first item, if it may be packed to see how large it is.
        takes_shares: The first chunks may be the workers' fair shares.
    """

    items: Iterator[Any]
    total: int | None = None
    begin_size: int = 1
    buffersize: int | None = None
    ordered: bool = True
    submits_all: bool = False
    is_passive: bool = True
    max_items: int | None = None
    is_plain: bool = False
    sample: list[Any] = []  # noqa: RUF012 - it is only read
    takes_shares: bool = False


def workers_for(backend: Backend, options: Options) -> int:
    """Return how many of the current workers a call may use."""
    capacity = max(1, backend.capacity())
    return capacity if options.settings.workers is None else min(options.settings.workers, capacity)


def window_for(backend: Backend, options: Options, workers: int) -> int:
    """Return how many chunks may be in flight."""
    if backend.capabilities.runs_in_caller:
        return 1
    # If the call uses fewer workers than there are, no more chunks than that may run at a time.
    # And a timed chunk must not wait in an engine's queue, where its time may already run.
    is_timed = options.settings.task_timeout is not None and not backend.capabilities.tells_what_ran
    if workers < backend.capacity() or is_timed:
        return workers
    return workers * backend.chunks_in_flight


def can_take_back(backend: Backend, options: Options) -> bool:
    """Return whether unstarted items of a running chunk can go to another worker."""
    return backend.capabilities.can_take_back and options.settings.task_timeout is None


def sizer_for(backend: Backend, options: Options, plan: MapPlan, workers: int) -> ChunkSizer:
    """Return what chooses the number of items in each chunk."""
    # A timed item travels alone. So does an item of a lazy map that runs in the caller: that is a
    # loop, which does nothing ahead of its turn.
    is_loop = backend.capabilities.runs_in_caller and plan.buffersize is not None
    most = 1 if options.settings.task_timeout is not None or is_loop else plan.max_items
    if options.settings.chunksize is not None and not backend.capabilities.tells_what_ran:
        most = options.settings.chunksize  # it bounds how many items one crash can lose
    can_divide = can_take_back(backend, options)
    is_even = can_divide and plan.buffersize is None and most is None and plan.takes_shares
    return ChunkSizer(
        plan.begin_size,
        workers,
        most,
        can_take_back=can_divide,
        seconds=backend.seconds_in_chunk,
        total=plan.total if is_even else None,
    )
