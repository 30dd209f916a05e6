"""Drives one map from its iterables to its outcomes.

    items ─chunk─► window ─submit─► Backend ─► worker
                      ▲ bounded                  │
    outcomes ◄─order─ collect ◄── Mailbox ◄──────┘

Guarantees:
    - An item is pulled only when there is room for it, by the thread that asks for results.
    - Every item ends in one outcome. It runs again only as *retries* says.
    - With several failures the one with the lowest index is raised, whichever came first.
    - After `close` nothing of the call waits to run, and its callable is dropped when the last
      running task has ended.

Assumes:
    - A back-end resolves each future exactly once, from any thread.
    - One consumer at a time calls `step`, `take` and `close`.
"""

from __future__ import annotations

import copy
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from typing import Any, Final, NamedTuple

from parallel_facade._carriers import Carrier, carrier_for
from parallel_facade._deadlines import Deadline
from parallel_facade._errors import (
    ParallelFacadeError,
    PoolClosedError,
    SerializationError,
    TaskTimeoutError,
    WorkerCrashedError,
    described,
)
from parallel_facade._interrupts import raise_if_handlers
from parallel_facade._mailbox import Mailbox
from parallel_facade._notes import note_attempts, note_item
from parallel_facade._options import Options
from parallel_facade._outcomes import Failure, Report
from parallel_facade._progress import open_reporter
from parallel_facade._worker import THE_ARGUMENTS, Call, Chunk
from parallel_facade.backends import Backend, Stage, WorkerLost

CHUNKS_IN_FLIGHT: Final = 2
"""Chunks per worker: one runs, one waits so that no worker idles. More only delays cancelling."""

CHECKED_AHEAD_BYTES: Final = 64 << 20
"""Payloads that an eager map makes before it runs anything, to refuse what cannot travel. More
would hold the data a second time; behind this point items are refused when their turn comes."""


class Success(NamedTuple):
    """A task returned *value*."""

    value: Any


Outcome = Success | Failure
"""What one item came to."""


class _Packed(NamedTuple):
    """A chunk ready to be submitted."""

    chunk: Chunk
    cargo: Any


class Map:
    """One map over one back-end.

    Args:
        backend: Runs the chunks.
        call: What to apply.
        items: What to apply it to.
        options: How.
        total: How many items there are; `None` if that is not known.
        chunksize: Items per chunk.
        buffersize: Items pulled and not yet taken, at most; `None` for no bound.
        ordered: Give outcomes in the order of the items, not as they come.
        submits_all: Hand everything to the back-end at once, without a window.
    """

    def __init__(
        self,
        backend: Backend,
        call: Call,
        items: Iterator[Any],
        options: Options,
        *,
        total: int | None,
        chunksize: int,
        buffersize: int | None,
        ordered: bool,
        submits_all: bool = False,
    ) -> None:
        self._backend = backend
        self._carrier: Carrier = carrier_for(backend, options.serializer)
        self._items = items
        self._options = options
        self.total = total
        self._chunksize = chunksize
        self._buffersize = buffersize
        self._ordered = ordered
        self._deadline = Deadline(options.timeout)
        self._window = _window(backend, options.workers)
        self._runs_in_caller = backend.capabilities.runs_in_caller
        self._submits_all = submits_all
        self._pulled = 0
        self.taken: int = 0
        self._waiting: deque[Chunk] = deque()  # to be packed, before more is pulled
        self._packed: deque[_Packed] = deque()
        self._in_flight: dict[Future[Any], _Packed] = {}
        self._later: deque[tuple[Deadline, Chunk]] = deque()  # to be packed when it is time
        self._attempts: dict[int, list[str]] = {}  # what went wrong with items that are retried
        self._outcomes: dict[int, Outcome] = {}
        self._arrival_order: deque[int] = deque()
        self._first_failure: int | None = None
        self._exhausted = False
        self._input_error: Exception | None = None
        self.is_too_late: bool = False
        self._mailbox = Mailbox()
        self._pid = os.getpid()
        self._reporter = open_reporter(options.progress, total)
        self._handle = backend.put(self._carrier.pack_call(call))

    # ── the consumer's steps ──────────────────────────────────────────────────────────────────

    def check_ahead(self) -> None:
        """Pack what an eager map will send, before anything runs."""
        if not self._backend.capabilities.needs_serialization:
            return
        size = 0
        while size < CHECKED_AHEAD_BYTES and (packed := self._pack_next()) is not None:
            self._packed.append(packed)
            size += len(packed.cargo)
        if self._first_failure is not None:
            refused = self._outcomes[self._first_failure]
            assert isinstance(refused, Failure), "it is an item that cannot travel"
            raise refused.to_raise()

    def fill(self) -> None:
        """Submit chunks while there is room."""
        if self._pid != os.getpid():
            raise PoolClosedError(
                f"the results belong to process {self._pid}, from which this process was forked"
            )
        while self._submits_all or len(self._in_flight) < self._window:
            if self._deadline.has_passed():
                raise self._too_late()
            if self._runs_in_caller and self.has_next and not self._submits_all:
                return
            if (packed := self._next()) is None:
                return
            self._submit(packed)

    def take(self) -> Outcome | None:
        """Return the next outcome; `None` if it has not come."""
        if (index := self._next_index()) is None:
            return None
        if not self._ordered:
            self._arrival_order.popleft()
        self.taken += 1
        return self._outcomes.pop(index)

    def _next_index(self) -> int | None:
        """Return the index of the outcome to take next, if it has come."""
        if self._ordered:
            return self.taken if self.taken in self._outcomes else None
        return self._arrival_order[0] if self._arrival_order else None

    @property
    def has_next(self) -> bool:
        """Whether `take` has something to give."""
        return self._next_index() is not None

    @property
    def must_wait(self) -> bool:
        """Whether only the end of a running chunk, or time, can bring the next outcome."""
        return bool(self._in_flight or self._later) and not self.has_next

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to take or to wait for."""
        nothing_to_send = self._exhausted and not (self._packed or self._waiting or self._later)
        return nothing_to_send and not self._in_flight and not self._outcomes

    def values_not_taken(self) -> dict[int, Any]:
        """Return what items have come to that have ended and were not taken, by index."""
        while (future := self._mailbox.take(0)) is not None:
            with suppress(Exception):  # the call has its error
                self._collect(future)
        outcomes = dict(self._outcomes)
        for future, packed in self._in_flight.items():
            if parts := self._backend.outcomes_so_far(future):
                report = self._carrier.unpack(parts)
                for position, value in enumerate(report.values):
                    if position not in report.failures:
                        outcomes[packed.chunk.first + position] = Success(value)
        return {
            index: outcome.value if isinstance(outcome, Success) else outcome.error
            for index, outcome in sorted(outcomes.items())
            if isinstance(outcome, Success) or self._keeps(outcome)
        }

    def finish(self) -> None:
        """Raise what the input raised, if anything; to be called when the map is over."""
        if self._input_error is not None:
            raise self._input_error

    def wait(self) -> None:
        """Wait for a chunk to end, and collect it and all others that have."""
        assert self._in_flight or self._later, "there is something to wait for"
        self._receive(self._mailbox.take(self._seconds_to_wait()))

    async def wait_async(self) -> None:
        """Do as `wait` does, without blocking the event loop."""
        await self._mailbox.arrival(self._seconds_to_wait())
        self._receive(self._mailbox.take(0))

    def close(self, *, stop_running: bool) -> None:
        """Cancel what has not run; closing twice is fine, and ends what an interrupt cut short.

        Args:
            stop_running: Also end the tasks that run, where the back-end can.
        """
        self._exhausted = True
        self._packed.clear()
        self._waiting.clear()
        self._later.clear()
        if self._reporter is not None:
            self._reporter.close()
        if self._pid != os.getpid():
            # In a forked child the futures are the parent's, and their locks may be held for ever.
            self._in_flight.clear()
            self._handle = None
            return
        # A copy: another thread may be about to add one, and gives that up itself.
        running = [future for future in list(self._in_flight) if not future.cancel()]
        if stop_running:
            for future in running:
                self._backend.stop(future)
        if (handle := self._handle) is not None:
            _when_all_done(running, lambda: self._backend.drop(handle))
            self._handle = None
        self._in_flight.clear()

    # ── sending ───────────────────────────────────────────────────────────────────────────────

    def _next(self) -> _Packed | None:
        if self._packed and not self._waiting:
            return self._packed.popleft()
        return self._pack_next()

    def _pack_next(self) -> _Packed | None:
        while self._later and self._later[0][0].has_passed():
            self._waiting.append(self._later.popleft()[1])
        while (chunk := self._waiting.popleft() if self._waiting else self._pull()) is not None:
            if (packed := self._pack(chunk)) is not None:
                return packed
        return None

    def _pull(self) -> Chunk | None:
        if self._exhausted or (room := self._room()) == 0:
            return None
        size = min(self._chunksize, room)
        items: list[Any] = []
        try:
            items.extend(islice(self._items, size))
        except Exception as exc:
            # What was pulled before is run, and its results are given first, as a loop would do.
            self._input_error = exc
        first, self._pulled = self._pulled, self._pulled + len(items)
        # The input may have closed the map.
        self._exhausted = self._exhausted or len(items) < size
        return Chunk(first, items) if items else None

    def _room(self) -> int:
        """Return how many items may be pulled now."""
        if self._buffersize is None:
            return self._chunksize
        return max(0, self._buffersize - (self._pulled - self.taken))

    def _pack(self, chunk: Chunk) -> _Packed | None:
        """Return *chunk* packed; `None` if an item cannot travel, which is that item's failure."""
        try:
            return _Packed(chunk, self._carrier.pack_chunk(chunk))
        except SerializationError as exc:
            if len(chunk.items) == 1:
                self._end(chunk, 0, Failure(exc))
            else:
                self._again(_singles(chunk))
            return None

    def _submit(self, packed: _Packed) -> None:
        if (handle := self._handle) is None:  # closed by the input, or by another thread
            return
        try:
            future = self._backend.submit(handle, packed.cargo, self._options.task_timeout)
        except PoolClosedError:
            raise
        except Exception as exc:
            raise_if_handlers(exc)
            if not self._backend.is_usable:
                raise self._backend.translate(exc) from exc.__cause__
            self._lose(packed.chunk, exc)
            return
        self._in_flight[future] = packed
        if self._handle is None:  # closed meanwhile, by somebody who has not seen this one
            future.cancel()
        future.add_done_callback(self._mailbox.put)
        if self._runs_in_caller:
            self.wait()

    def _again(self, chunks: list[Chunk]) -> None:
        """Run *chunks* before anything that has not been submitted."""
        self._waiting.extendleft(chunk for chunk in reversed(chunks) if self._matters(chunk))

    def _retry(self, chunks: list[Chunk]) -> None:
        """Run *chunks*, each an item that has failed, after the delay."""
        if not (delay := self._options.retry_delay):
            self._again(chunks)
            return
        self._later.extend((Deadline(delay), chunk) for chunk in chunks if self._matters(chunk))

    def _matters(self, chunk: Chunk) -> bool:
        """Return whether *chunk* comes before everything that has failed."""
        return self._first_failure is None or chunk.first < self._first_failure

    def _seconds_to_wait(self) -> float | None:
        seconds = [self._deadline.remaining()]
        if self._later:
            seconds.append(self._later[0][0].remaining())
        return min((one for one in seconds if one is not None), default=None)

    # ── receiving ─────────────────────────────────────────────────────────────────────────────

    def _receive(self, future: Future[Any] | None) -> None:
        """Collect *future* and all others that have come."""
        if future is None and self._deadline.has_passed():
            raise self._too_late()
        while future is not None:
            self._collect(future)
            future = self._mailbox.take(0)

    def _collect(self, future: Future[Any]) -> None:
        packed = self._in_flight.pop(future, None)
        if packed is None:
            return
        if future.cancelled():
            # Not by us: what we cancel leaves _in_flight at once.
            self._lose(packed.chunk, PoolClosedError("the pool was closed before the task ran"))
            return
        if (error := future.exception()) is not None:
            if not self._backend.is_usable:
                raise self._backend.translate(error)
            self._lose(packed.chunk, error)
            return
        report = self._carrier.unpack(future.result())
        if report.unread:
            self._settle_unread(packed.chunk, report)
        else:
            self._settle(packed.chunk, report)

    def _settle(self, chunk: Chunk, report: Report) -> None:
        if not report.failures and self._reporter is None and self._ordered:
            # The usual case, without a look at each item.
            self._outcomes.update(enumerate(map(Success, report.values), chunk.first))
            return
        again = []
        for position, value in enumerate(report.values):
            failure = report.failures.get(position)
            if failure is None:
                self._end(chunk, position, Success(value))
            elif isinstance(failure.error, self._options.retry_on) and self._may_retry(
                chunk.first + position, failure.error
            ):
                again.append(_single(chunk, position))
            else:
                self._end(chunk, position, failure)
        self._retry(again)

    def _settle_unread(self, chunk: Chunk, report: Report) -> None:
        """Nothing of the chunk was run: find out which item it is that cannot be rebuilt."""
        if report.unread == THE_ARGUMENTS and len(chunk.items) > 1:
            self._again(_singles(chunk))
            return
        for position in range(len(chunk.items)):
            self._end(chunk, position, report.failures[0])

    def _lose(self, chunk: Chunk, error: BaseException) -> None:
        """The chunk's worker was lost, or stopped for its timeout."""
        lost = error if isinstance(error, WorkerLost) else WorkerLost(error)
        told = self._backend.translate(lost.error)
        if lost.parts:
            report = self._carrier.unpack(list(lost.parts))
            self._settle(chunk, report)
            chunk = _rest(chunk, len(report.values))
        if not chunk.items:
            return
        if lost.stage is Stage.ITEMS:
            if (rest := _rest(chunk, 1)).items:
                self._again([rest])
            self._lose_items(chunk, 1, told)
        elif lost.stage is Stage.ARGUMENTS and len(chunk.items) > 1:
            # It died while it rebuilt the arguments: find out which.
            self._again(_singles(chunk))
        else:
            self._lose_items(chunk, len(chunk.items), told)

    def _lose_items(self, chunk: Chunk, count: int, error: BaseException) -> None:
        """Run the first *count* items again, where they may, or fail them with *error*."""
        again = []
        for position in range(count):
            # One error each: the notes on it are about one item.
            own = copy.deepcopy(error) if isinstance(error, ParallelFacadeError) else error
            if isinstance(own, WorkerCrashedError | TaskTimeoutError):
                own.index = chunk.first + position
            if count > 1:
                own.add_note(f"the worker held items {chunk.first} to {chunk.first + count - 1}")
            if self._may_retry(chunk.first + position, own):
                again.append(_single(chunk, position))
            else:
                self._end(chunk, position, Failure(own))
        self._retry(again)

    def _may_retry(self, index: int, error: BaseException) -> bool:
        """Return whether item *index*, which failed with *error*, has an attempt left; use it."""
        used = len(self._attempts.get(index, ()))
        if used >= self._options.retries:
            return False
        self._attempts.setdefault(index, []).append(described(error))
        return True

    def _end(self, chunk: Chunk, position: int, outcome: Outcome) -> None:
        index = chunk.first + position
        failed = isinstance(outcome, Failure)
        attempts = self._attempts.pop(index, [])
        if isinstance(outcome, Failure):
            note_item(outcome.error, index, chunk.items[position])
            note_attempts(outcome.error, attempts)
            if not self._keeps(outcome):
                self._fail_at(index)
        self._outcomes[index] = outcome
        if not self._ordered:
            self._arrival_order.append(index)
        if self._reporter is not None:
            self._reporter.add(1, int(failed))

    def _keeps(self, failure: Failure) -> bool:
        """Return whether *failure* stays in its place instead of ending the call."""
        # What is no Exception ends a program, on the serial back-end at once: so everywhere.
        return self._options.return_exceptions and isinstance(failure.error, Exception)

    def _fail_at(self, index: int) -> None:
        """Leave everything behind item *index* alone; what comes before it goes on.

        An earlier item may still fail, and then its error is the one to raise.
        """
        if self._first_failure is not None and self._first_failure < index:
            return
        self._first_failure = index
        self._exhausted = True
        self._packed = deque(packed for packed in self._packed if packed.chunk.first < index)
        self._waiting = deque(chunk for chunk in self._waiting if chunk.first < index)
        self._later = deque(one for one in self._later if one[1].first < index)
        for future, packed in list(self._in_flight.items()):
            if packed.chunk.first > index and future.cancel():
                self._in_flight.pop(future, None)

    def _too_late(self) -> TaskTimeoutError:
        self.is_too_late = True
        ended = self.taken + len(self._outcomes)
        of_total = "" if self.total is None else f" of {self.total}"
        return TaskTimeoutError(
            f"the call did not end within {self._deadline.seconds:g} seconds; "
            f"{ended}{of_total} items had ended"
        )


def _window(backend: Backend, workers: int) -> int:
    """Return how many chunks may be in flight."""
    if backend.capabilities.runs_in_caller:
        return 1
    capacity = backend.capacity()
    # Fewer workers than there are: then no more chunks at a time than workers were asked for.
    return capacity * CHUNKS_IN_FLIGHT if workers >= capacity else workers


def _single(chunk: Chunk, position: int) -> Chunk:
    return Chunk(chunk.first + position, [chunk.items[position]])


def _singles(chunk: Chunk) -> list[Chunk]:
    return [_single(chunk, position) for position in range(len(chunk.items))]


def _rest(chunk: Chunk, position: int) -> Chunk:
    return Chunk(chunk.first + position, chunk.items[position:])


def _when_all_done(futures: list[Future[Any]], action: Any) -> None:
    """Call *action* once all *futures* are done."""
    if not futures:
        action()
        return
    left = len(futures)
    lock = threading.Lock()  # guards left: back-ends resolve futures in any thread

    def count(_: Future[Any]) -> None:
        nonlocal left
        with lock:
            left -= 1
            was_last = left == 0
        if was_last:
            action()

    for future in futures:
        future.add_done_callback(count)
