"""Runs the items of a chunk through the callable, and turns exceptions into outcomes.

    Call ──┐
    Chunk ─► run_recorded ──► OutcomeRecorder ──► parts of a report
           └ run_chunk ─────► ChunkReport, in the caller's process

Guarantees:
    - In a worker, whatever an item raises is the outcome of that item, `SystemExit` included; the
      other items run.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import FrameType
from typing import Any, Final, NamedTuple

from parallel_facade._common.interrupt_safety import came_from_handler
from parallel_facade._common.worker_role import WorkerRole, is_worker_process
from parallel_facade._worker.outcome_recorder import BLOCK, GO_ON, OutcomeRecorder
from parallel_facade._worker.outcomes import ChunkReport, Failure, captured
from parallel_facade._worker.seeds import kept_state, seed_item
from parallel_facade._worker.timings import Stopwatch

_log = logging.getLogger("parallel_facade")


class Call(NamedTuple):
    """A callable and how to apply it, the same for every chunk of a call.

    Attributes:
        func: The user's callable.
        form: How an item becomes arguments; a key of `FORMS`.
        stops_at_failure: Whether the items behind a failure are skipped.
        seed: Seeds one random stream per item; `None` leaves random state alone.
        take_times: Takes the times from a `Stopwatch`; `None` if the call has no timeline.
    """

    func: Callable[..., Any]
    form: str
    stops_at_failure: bool
    seed: int | None
    take_times: Callable[[bytes], object] | None = None


def name_of(func: Callable[..., Any]) -> str:
    """Return the qualified name of *func*, or of its type.

    Not its repr(): the repr() of a bound method holds the repr() of its object, which may be long,
    slow or broken.
    """
    name: Any = None
    with suppress(Exception):  # a proxy may raise for any attribute
        name = func.__qualname__
    return name if isinstance(name, str) else type(func).__qualname__


class Chunk(NamedTuple):
    """Consecutive items sent together.

    Attributes:
        first: The index of the first item.
        items: The items; the call's form says what each item is.
        begin_size: How many of them begin together. Items can be taken back before they begin.
    """

    first: int
    items: list[Any]
    begin_size: int = 1

    def part(self, first: int, end: int) -> Chunk:
        """Return its items from place *first* to before place *end*."""
        if first == 0 and end >= len(self.items):
            return self
        return self._replace(first=self.first + first, items=self.items[first:end])


def _apply_one(func: Callable[..., Any]) -> Callable[[Any], Any]:
    return func


def _apply_many(func: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda item: func(*item)


def _apply_call(func: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda item: func(*item[0], **item[1])


FORMS: Final = {"one": _apply_one, "many": _apply_many, "call": _apply_call}
"""By form, an item is the argument; a tuple of arguments; a pair of arguments and keywords."""

THE_CALLABLE: Final = "the callable"
THE_ARGUMENTS: Final = "the arguments"
THE_STATE: Final = "the caller's state"
THE_INITIALIZER: Final = "the initializer"


def run_chunk(call: Call, chunk: Chunk, *, in_caller: bool = False) -> ChunkReport:
    """Apply *call* to the items of *chunk* and return the outcomes.

    Args:
        call: The callable to apply.
        chunk: The items to apply it to.
        in_caller: Whether this is the caller's own thread. There, an exception that ends a program
            ends it, as in a plain loop. In a worker, it would only end the worker.
    """
    values: list[Any] = []
    failures: dict[int, Failure] = {}
    stopwatch = Stopwatch(call.take_times)
    stopwatch.mark()
    began = time.perf_counter()
    with _applying(call, chunk.first, stopwatch) as apply:
        for position, item in enumerate(chunk.items):
            try:
                values.append(apply(item))
            except BaseException as exc:
                if in_caller and _ends_the_program(exc, call, chunk.first + position):
                    raise
                failures[position] = captured(exc)
                values.append(None)
                if call.stops_at_failure:
                    break
    stopwatch.reported(chunk.first, len(values))
    return ChunkReport(values, failures, seconds=time.perf_counter() - began)


def _ends_the_program(error: BaseException, call: Call, index: int) -> bool:
    if isinstance(error, Exception):
        return False
    is_kept = isinstance(error, SystemExit) and not call.stops_at_failure
    if is_kept and not came_from_handler(error):
        return False
    log_exit(index, error)
    return True


def log_exit(index: int, error: BaseException) -> None:
    """Log that item *index* ends the program, if *error* does that without a word."""
    if isinstance(error, SystemExit):
        _log.warning("item %d has raised SystemExit(%r), which ends the program", index, error.code)


def run_recorded(  # noqa: PLR0917 - what a worker knows about the chunk
    call: Call,
    chunk: Chunk,
    recorder: OutcomeRecorder,
    at_most: float,
    stopwatch: Stopwatch,
    on_item: Callable[[], object] | None = None,
) -> tuple[int, float]:
    """Apply *call* to the items of *chunk* and put the outcomes into *recorder*.

    A value that goes into a slot needs no function call: most items of large maps are tiny.

    Args:
        call: The callable to apply.
        chunk: The items to apply it to.
        recorder: Takes the outcomes, and knows when the rest of the items is taken back.
        at_most: Begin no more items once this many were run.
        stopwatch: Records the times.
        on_item: Called before each item; `None` for nothing to call.

    Returns:
        How many items were run, and how many seconds that took.
    """
    global _recorder
    _recorder = recorder
    began = time.perf_counter()
    with _applying(call, chunk.first, stopwatch) as applied:
        apply = applied if on_item is None else _announced(applied, on_item)
        count = _run_items(call, apply, chunk, recorder, at_most)
    return count, time.perf_counter() - began


def _run_items(
    call: Call, apply: Callable[[Any], Any], chunk: Chunk, recorder: OutcomeRecorder, at_most: float
) -> int:
    items, begin_size = chunk.items, chunk.begin_size
    stop = recorder.stop if begin_size == 1 else GO_ON
    count = opened = 0
    recorder.open(min(BLOCK, len(items)))
    while count < len(items):
        if count % begin_size == 0 and (not recorder.may_begin(count) or count >= at_most):
            break
        if count - opened == BLOCK:
            recorder.close(BLOCK)
            recorder.flush()
            opened = count
            recorder.open(min(BLOCK, len(items) - count))
        end = _end_of_batch(count, len(items), begin_size, at_most)
        places = count - opened, count
        count += _run_batch(call, apply, items[count:end], places, recorder=recorder, stop=stop)
        if count < end or (call.stops_at_failure and recorder.has_failed):
            break
    recorder.close(count - opened)
    return count


def _end_of_batch(count: int, total: int, begin_size: int, at_most: float) -> int:
    """Return the end of the items to run with no check except the stop signal."""
    end = min(total, count - count % BLOCK + BLOCK)
    if begin_size == 1:
        return int(min(end, max(at_most, count + 1)))
    return min(end, count - count % begin_size + begin_size)


_is_copy = False
"""True in a process that a task forked; only the original worker reports outcomes."""

_recorder: OutcomeRecorder | None = None
"""The recorder for the outcomes of the chunk that runs now."""


def _note_fork() -> None:
    global _is_copy
    _is_copy = is_worker_process()
    if _is_copy and _recorder is not None:
        # So that the loop need not check `_is_copy` for each value that goes into a slot.
        _recorder.leave_slots()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def _end_copy(error: BaseException | None) -> None:
    """Exit this forked process, because its copy of the task has ended."""
    code = error.code if isinstance(error, SystemExit) else error
    os._exit(code if isinstance(code, int) else int(code is not None))


def _run_batch(
    call: Call,
    apply: Callable[[Any], Any],
    items: list[Any],
    places: tuple[int, int],
    *,
    recorder: OutcomeRecorder,
    stop: Sequence[int],
) -> int:
    """Run *items*; return how many were run.

    The two *places* are those of the first of them: in *recorder*, and in the chunk.
    """
    kind, slots = recorder.slots
    place = first = places[0]
    for place, item in enumerate(items, first):
        if stop[0] and not recorder.may_begin(place - first + places[1]):
            return place - first
        try:
            value = apply(item)
        except BaseException as exc:
            if _is_copy:
                _end_copy(exc)
            kind, slots = recorder.fail(place, exc)
            if call.stops_at_failure:
                break
            continue
        if type(value) is kind:
            try:
                slots[place] = value
                continue
            except ValueError:  # an integer of more than 64 bits, or this process is a copy
                pass
        if _is_copy:
            _end_copy(None)
        kind, slots = recorder.add(place, value)
    return place - first + 1


def item_now() -> int | None:
    """Return the index of the item that this thread runs; `None` for no item, or a single call.

    It is read from the loop that runs the items; to note it there would be too slow for tiny items.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not _run_batch.__code__:
        frame = frame.f_back
    if frame is None or frame.f_locals["call"].form == "call":
        return None
    assert frame.f_back is not None, "it is called by _run_items"
    around = frame.f_back.f_locals
    return int(around["chunk"].first + around["opened"] + frame.f_locals["place"])


def _announced(apply: Callable[[Any], Any], on_item: Callable[[], object]) -> Callable[[Any], Any]:
    def announced(item: Any) -> Any:
        on_item()
        return apply(item)

    return announced


def _applying(
    call: Call, first: int, stopwatch: Stopwatch
) -> AbstractContextManager[Callable[[Any], Any]]:
    """Return a context of the function to call with each item in turn, from index *first* on."""
    apply = FORMS[call.form](call.func)
    around = nullcontext(apply) if call.seed is None else _seeded(apply, call.seed, first)
    return _timed(around, stopwatch, first) if stopwatch.is_running else around


@contextmanager
def _timed(
    around: AbstractContextManager[Callable[[Any], Any]], stopwatch: Stopwatch, first: int
) -> Iterator[Callable[[Any], Any]]:
    indexes = itertools.count(first)

    def timed(item: Any) -> Any:
        began = time.time()
        try:
            return apply(item)
        finally:
            stopwatch.note(next(indexes), began, time.time())

    with around as apply:
        stopwatch.begin_items()
        try:
            yield timed
        finally:
            stopwatch.end_items()


@contextmanager
def _seeded(apply: Callable[[Any], Any], seed: int, first: int) -> Iterator[Callable[[Any], Any]]:
    indexes = itertools.count(first)

    def seeded(item: Any) -> Any:
        seed_item(seed, next(indexes))
        return apply(item)

    with kept_state():
        yield seeded


def run_as_worker(call: Call, chunk: Chunk) -> ChunkReport:
    """Run a chunk through a call, as a plain function of an executor's thread."""
    with WorkerRole():
        return run_chunk(call, chunk)
