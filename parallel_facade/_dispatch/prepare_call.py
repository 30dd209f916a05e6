"""Checks the arguments of a call, and turns them into a map run or a background call."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, Final, NamedTuple

from parallel_facade._common.callback_thread import CallbackThread
from parallel_facade._common.errors import ConfigurationError
from parallel_facade._common.plain_data import ATOMIC_TYPES
from parallel_facade._common.worker_role import has_private_state, is_worker
from parallel_facade._dispatch.background_call import BackgroundCall
from parallel_facade._dispatch.call_hooks import faults_in_force
from parallel_facade._dispatch.call_options import (
    Options,
    check_callable,
    check_capabilities,
    check_iterable,
    check_iterables,
    check_positive,
    check_switch,
)
from parallel_facade._dispatch.map_plan import MapPlan
from parallel_facade._dispatch.map_run import MapRun
from parallel_facade._worker.run_chunk import Call
from parallel_facade.backends.base import Backend

WHAT_WORKERS_NEED: Final = 0
"""Default bound of `imap`: one chunk runs, and one waits so that no worker idles."""


PASSIVE: Final = frozenset(
    {list, tuple, range, str, bytes, set, frozenset, dict, collections.deque}
)
"""Types of inputs that run none of the user's code when they are read."""


PLAIN: Final = frozenset({range, str, bytes})
"""Types of inputs that give numbers, text or bytes."""


class Target(NamedTuple):
    """Where a call goes.

    Attributes:
        backend: The back-end that runs it.
        name: The name of the back-end in messages.
        max_tasks: Tasks after which a worker is replaced; `None` for never.
        max_memory: Bytes above which a worker is replaced; `None` for never.
    """

    backend: Backend
    name: str
    max_tasks: int | None
    max_memory: int | None


def eager_map(
    target: Target,
    func: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    options: Options,
    *,
    strict: bool,
    submits_all: bool = False,
) -> MapRun:
    """Return a map over inputs that are read now."""
    call, items, _ = _zipped(func, iterables, options, strict=strict)
    _check_options(target, options)
    listed = list(items)
    return MapRun(
        target.backend,
        call,
        MapPlan(
            iter(listed),
            len(listed),
            _begin_size(target, options),
            submits_all=submits_all,
            max_items=target.max_tasks,
            is_plain=PLAIN.issuperset(map(type, iterables)) or _are_atomic(listed),
            sample=listed[:1],
            takes_shares=target.max_memory is None and not _has_twins(listed),
        ),
        options,
    )


MOST_COMPARED: Final = 4096
"""Items of a map that are looked at for twins: one of more items has large chunks in any case."""


def _are_atomic(items: list[Any]) -> bool:
    """Return whether there are few *items*, and they are numbers, text or bytes."""
    return len(items) <= MOST_COMPARED and ATOMIC_TYPES.issuperset(map(type, items))


def _has_twins(items: list[Any]) -> bool:
    """Return whether two of *items* are one object, whose changes by tasks both would see.

    Sent together, they are one object in the worker as well.
    """
    if len(items) > MOST_COMPARED or _are_atomic(items):
        return False
    return len(set(map(id, items))) < len(items)


def lazy_map(
    target: Target,
    func: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    options: Options,
    *,
    ordered: bool,
    buffersize: int | None,
    strict: bool,
) -> MapRun:
    """Return a map over inputs that are read as results are taken."""
    room = check_positive("buffersize", buffersize)
    call, items, total = _zipped(func, iterables, options, strict=strict)
    _check_options(target, options)
    return MapRun(
        target.backend,
        call,
        MapPlan(
            items,
            total,
            _begin_size(target, options),
            buffersize=room or WHAT_WORKERS_NEED,
            ordered=check_switch("ordered", ordered),
            is_passive=PASSIVE.issuperset(map(type, iterables)),
            max_items=target.max_tasks,
            is_plain=PLAIN.issuperset(map(type, iterables)),
        ),
        options,
    )


def start_background_call(
    target: Target,
    func: Callable[..., Any],
    args: Iterable[Any],
    kwds: Mapping[str, Any] | None,
    options: Options,
    *,
    callback_thread: CallbackThread,
    decisions: CallbackThread,
) -> BackgroundCall:
    """Return one call, ready to be started."""
    check_callable(func)
    if (faults := faults_in_force()) is not None:
        func = faults.into_call(func)
    check_iterable(args, "args")
    if not isinstance(kwds, Mapping | None):
        raise TypeError(f"kwds must be a mapping, got {kwds!r} of type {type(kwds).__qualname__}")
    _check_options(target, options)
    return BackgroundCall(
        target.backend,
        Call(func, "call", stops_at_failure=True, seed=options.settings.seed),
        (tuple(args), dict(kwds or {})),
        options,
        callback_thread=callback_thread,
        decisions=decisions,
    )


def _begin_size(target: Target, options: Options) -> int:
    """Return how many items begin together."""
    is_timed = options.settings.task_timeout is not None
    if is_timed and not target.backend.capabilities.tells_what_ran:
        return 1  # there, only a whole chunk is timed
    return options.settings.chunksize or 1


def callbacks(
    callback: Callable[[Any], object] | None, error_callback: Callable[..., object] | None
) -> Callable[[Any], None] | None:
    """Return a function to call with a result that has ended; `None` if there is no callback."""
    for name, function in (("callback", callback), ("error_callback", error_callback)):
        if function is not None:
            check_callable(function, name)
    if callback is None and error_callback is None:
        return None
    return functools.partial(_call_back, callback, error_callback)


def _call_back(
    callback: Callable[[Any], object] | None,
    error_callback: Callable[[BaseException], object] | None,
    result: Any,
) -> None:
    if result.cancelled():
        return
    if result._has_failed():
        # Without a callback, leave the error: a failure that nobody asks for is logged.
        if error_callback is not None:
            error_callback(result.exception())
    elif callback is not None:
        callback(result.result())


def _check_options(target: Target, options: Options) -> None:
    if not is_worker():
        check_capabilities(
            target.name,
            target.backend.capabilities,
            task_timeout=options.settings.task_timeout,
            seed=options.settings.seed,
        )
    # In a worker, the outer call's task_timeout applies. An inner task_timeout cannot be kept;
    # refusing it would forbid nesting a call that works alone.
    elif options.settings.seed is not None and not has_private_state():
        raise ConfigurationError(
            f"seed={options.settings.seed!r} is not possible in a worker that may share its random "
            "state with others\n\nHint: give seed to the outer call, on a back-end that takes it."
        )


def _size_of(iterable: Iterable[Any]) -> int | None:
    if not isinstance(iterable, Sized):
        return None
    try:
        return len(iterable)
    except TypeError:  # raised by a wrapper of a generator: a tqdm bar or our own `imap`
        return None
    except OverflowError:  # range(10**20) has more items than a length can say
        return None


def _zipped(
    func: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    options: Options,
    *,
    strict: bool,
) -> tuple[Call, Iterator[Any], int | None]:
    """Return the call, its items, and how many there are; `None` if that is not known."""
    check_callable(func)
    check_iterables(iterables)
    check_switch("strict", strict)
    call = Call(
        func,
        "one" if len(iterables) == 1 else "many",
        stops_at_failure=not options.return_exceptions and not options.retry_on,
        seed=options.settings.seed,
    )
    sizes = [size for size in map(_size_of, iterables) if size is not None]
    total = min(sizes) if len(sizes) == len(iterables) else None
    items = iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=strict)
    if (faults := faults_in_force()) is not None:
        call, items = faults.into_map(call, items)
    return call, items, total
