"""Runs one map from its iterables to its outcomes.

    items ─ChunkSource─► window ─submit─► Backend ──────► worker
                            ▲ bounded                       │
    outcomes ◄─ResultBuffer◄─FailurePolicy◄─CompletionQueue◄┘

Guarantees:
    - An item is pulled only when there is room for it, by the thread that asks for results.
    - Every item ends in one outcome. It runs again only as *retries* allows.
    - If the back-end can take back unstarted items, no item waits behind a slow item while a
      worker is idle. No outcome waits long for the rest of its chunk.
    - After `close`, nothing of the call waits to run, and its callable is dropped when the last
      running task has ended.

Assumes:
    - A back-end resolves each future exactly once, from any thread.
    - One consumer at a time calls `fill`, `wait`, `take` and `close`.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any, Final

from parallel_facade._common.deadlines import Clock, Deadline
from parallel_facade._common.errors import PoolClosedError
from parallel_facade._common.interrupt_safety import raise_if_handlers
from parallel_facade._common.task_errors import TaskTimeoutError
from parallel_facade._console.replay import show_all
from parallel_facade._dispatch.call_options import Options
from parallel_facade._dispatch.call_trace import trace_call
from parallel_facade._dispatch.chunk_settler import ChunkSettler, InFlight
from parallel_facade._dispatch.chunk_source import ChunkSource
from parallel_facade._dispatch.codecs import Codec, codec_for
from parallel_facade._dispatch.completion_queue import (
    RECORD_CAME,
    Arrival,
    CompletionQueue,
    Split,
    when_all_done,
)
from parallel_facade._dispatch.failure_policy import FailurePolicy
from parallel_facade._dispatch.map_plan import (
    MapPlan,
    can_take_back,
    sizer_for,
    window_for,
    workers_for,
)
from parallel_facade._dispatch.poll_timer import RECOUNT_SECONDS, PollTimer
from parallel_facade._dispatch.rerun_queue import Packed
from parallel_facade._dispatch.result_buffer import ResultBuffer
from parallel_facade._dispatch.sent_call import place_call
from parallel_facade._worker.outcomes import Failure
from parallel_facade._worker.run_chunk import Call
from parallel_facade.backends.base import Backend, Splitting, TaskFuture, WorkerLost


class MapRun:
    """One map over one back-end.

    Args:
        backend: Runs the chunks.
        call: The callable to apply.
        plan: The items to apply it to, and how they are divided.
        options: The options of the call.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self,
        backend: Backend,
        call: Call,
        plan: MapPlan,
        options: Options,
        clock: Clock = time.monotonic,
    ) -> None:
        self._backend = backend
        self._plan = plan
        self._options = options
        self._deadline = Deadline(options.settings.timeout, clock=clock)
        self._runs_in_caller = backend.capabilities.runs_in_caller
        self._can_take_back = can_take_back(backend, options)
        self._in_flight: dict[TaskFuture, InFlight] = {}
        self.is_too_late: bool = False
        self._poll_timer = PollTimer(clock)
        self._is_starved = False  # the window had room, but there was nothing to submit
        self._are_splits_allowed = False
        self._queue = CompletionQueue()
        self._pid = os.getpid()
        workers = workers_for(backend, options)
        self._window = window_for(backend, options, workers)
        self._trace = trace_call(call.func, backend, workers)
        is_lazy = plan.buffersize is not None  # so the program runs between two items
        self._codec: Codec = self._trace.traced(
            codec_for(backend, options, items_may_change=is_lazy)
        )
        self._sizer = sizer_for(backend, options, plan, workers)
        self._buffer = ResultBuffer(ordered=plan.ordered)
        self._policy = FailurePolicy(
            options, self._buffer, plan.total, self._drop_behind, self._count_in_flight
        )
        self._source = ChunkSource(
            plan,
            self._codec,
            self._sizer,
            window=self._window,
            refuse=self._policy.refuse,
            clock=clock,
        )
        self._settler = ChunkSettler(
            self._policy, self._source, self._codec, self._trace, options.settings.retry_delay
        )
        if plan.buffersize is None:
            # All items are pulled already, and none of the user's code runs between two items.
            self._codec.deduplicate_buffers()
        self._handle = place_call(backend, self._codec, call, lambda: plan.is_plain)
        if plan.is_plain:
            self._codec.forget_callable()
        backend.listen(self._handle, self._trace.listener(self._queue.put_record))

    # ── the consumer's steps ──────────────────────────────────────────────────────────────────

    def check_ahead(self) -> None:
        """Pull and pack items of an eager map before anything runs; raise the first failure."""
        if self._plan.submits_all:
            self._source.divide_evenly()
        elif self._backend.capabilities.needs_serialization:
            self._source.check_ahead()
        if (failed := self._policy.first_failure) is not None:
            raise failed[1].to_raise()

    def fill(self) -> None:
        """Submit chunks while there is room."""
        if self._runs_in_caller:
            self._policy.begin()
        if self._pid != os.getpid():
            raise PoolClosedError(
                f"the results belong to process {self._pid}, from which this process was forked"
            )
        self._collect_all(self._queue.take(0))
        if self._backend.capabilities.is_remote:
            self._count_workers()
        while self._plan.submits_all or len(self._in_flight) < self._window:
            if self._deadline.has_passed() and not self._source.is_over:
                raise self._too_late()
            if self.has_next and not self._plan.submits_all and self._gives_results_first():
                return
            packed = self._source.next(as_packed=self._plan.submits_all)
            self._is_starved = packed is None
            # Where the consumer only has to take results first, more may come in a moment.
            self._allow_splits(are_allowed=packed is None and self._source.is_over)
            if packed is None:
                return
            self._submit(packed)
            if self._source.puller.is_slow:
                self._collect_all(self._queue.take(0))

    def _allow_splits(self, *, are_allowed: bool) -> None:
        """Let idle workers have parts of running chunks while there is nothing else for them."""
        handle = self._handle
        if (
            self._can_take_back
            and self._are_splits_allowed is not are_allowed
            and handle is not None
        ):
            self._are_splits_allowed = are_allowed
            self._backend.allow_splits(handle, are_allowed=are_allowed)

    def _gives_results_first(self) -> bool:
        """Return whether results that are ready are to be taken before more is pulled."""
        return self._runs_in_caller or self._source.puller.is_slow

    def take(self) -> list[Any] | Failure | None:
        """Return the next values, or a failure that ends the call; `None` if neither has come.

        Call `note_taken` when the consumer has them.
        """
        return self._buffer.take(self._source.slice_size)

    def note_taken(self, count: int) -> None:
        """Make room for *count* more items, because the consumer has that many more outcomes."""
        self._source.puller.taken += count

    @property
    def total(self) -> int | None:
        """How many items there are; `None` if that is not known."""
        return self._plan.total

    @property
    def taken(self) -> int:
        """How many outcomes the consumer has."""
        return self._source.puller.taken

    @property
    def has_next(self) -> bool:
        """Whether `take` has something to return."""
        return self._buffer.has_next

    @property
    def must_wait(self) -> bool:
        """Whether the next outcome has to wait for a running chunk or a retry delay."""
        return bool(self._in_flight or self._source.waits) and not self.has_next

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to take or to wait for."""
        return self._source.is_over and not self._in_flight and not self._buffer

    def values_not_taken(self) -> dict[int, Any]:
        """Return the results of items that have ended and were not taken, by index."""
        while (arrival := self._queue.take(0)) is not None:
            with suppress(Exception):  # the call has an error already
                self._collect(arrival)
        for future in list(self._in_flight):
            self._settle_so_far(future)
        return {
            index: outcome
            for index, outcome in sorted(self._buffer.outcomes(), key=_index_of)
            if not isinstance(outcome, Failure)
        }

    def finish(self) -> None:
        """Raise the exception of the input, if there is one; call this when the map is over."""
        if self._source.puller.input_error is not None:
            raise self._source.puller.input_error

    def wait(self) -> None:
        """Wait for a chunk to end, and collect it and all others that have ended."""
        assert self._in_flight or self._source.waits, "there is something to wait for"
        self._policy.begin()  # now that the workers have something to do
        self._receive(self._queue.take(self._seconds_to_wait()))

    async def wait_async(self) -> None:
        """Do as `wait` does, without blocking the event loop."""
        self._policy.begin()
        await self._queue.arrival(self._seconds_to_wait())
        self._receive(self._queue.take(0))

    def close(self, *, stop_running: bool) -> None:
        """Cancel chunks that have not run; closing twice is fine, and ends an interrupted close.

        Args:
            stop_running: Also stop running tasks, if the back-end can.
        """
        self._source.drop_all()
        self._codec.forget_callable()
        self._policy.close()
        self._trace.note_end()
        if self._pid != os.getpid():
            # In a forked child, the futures are the parent's, and their locks may be held for ever.
            # They are kept: releasing them makes the child's copy of an engine notify the engine.
            _parents.append((self._handle, self._in_flight))
            self._in_flight, self._handle = {}, None
            return
        self._allow_splits(are_allowed=False)
        self._adopt_rests()
        self._queue.close()
        # A copy: another thread may be about to add a future, and then cancels it itself.
        running = [future for future in list(self._in_flight) if not future.cancel()]
        for future in running:
            future.stop() if stop_running else future.leave_rest()
        if (handle := self._handle) is not None:
            when_all_done(running, lambda: self._backend.drop(handle))
            self._handle = None
        self._in_flight.clear()

    def _count_in_flight(self) -> int:
        """Return how many submitted items have no outcome yet."""
        return sum(one.kept - one.settled for one in list(self._in_flight.values()))

    def _count_workers(self) -> None:
        """Use workers that have joined a cluster meanwhile, and no more than are left."""
        workers = workers_for(self._backend, self._options)
        if workers != self._sizer.workers:
            self._sizer.workers = workers
            self._window = self._source.window = window_for(self._backend, self._options, workers)

    # ── sending ───────────────────────────────────────────────────────────────────────────────

    def _submit(self, packed: Packed) -> None:
        if (handle := self._handle) is None:  # closed by the input, or by another thread
            return
        more: dict[str, Any] = {}
        self._trace.note_submitted(packed.chunk.first)
        count = len(packed.chunk.items)
        if self._backend.capabilities.can_queue:
            more["is_short"] = self._sizer.is_short(count)
        if self._can_take_back:
            more["splitting"] = Splitting(count, packed.chunk.begin_size, self._queue.put_split)
        try:
            future = self._backend.submit(
                handle, packed.payload, self._options.settings.task_timeout, **more
            )
        except PoolClosedError:
            raise
        except Exception as exc:
            raise_if_handlers(exc)
            if not self._backend.is_usable:
                raise self._backend.translate(exc) from exc.__cause__
            self._lose(InFlight(packed), exc)
            return
        self._in_flight[future] = InFlight(packed)
        if self._handle is None:  # closed meanwhile, by a thread that has not seen this future
            future.cancel()
        future.add_done_callback(self._queue.put)
        if self._runs_in_caller:
            self.wait()

    def _seconds_to_wait(self) -> float | None:
        seconds = [self._deadline.remaining(), self._source.seconds_to_next()]
        if self._can_take_back and self._in_flight:
            seconds.append(self._poll_timer.seconds())
        if self._backend.capabilities.is_remote and not self._source.is_over:
            seconds.append(RECOUNT_SECONDS)
        return min((one for one in seconds if one is not None), default=None)

    # ── receiving ─────────────────────────────────────────────────────────────────────────────

    def _receive(self, arrival: Arrival | None) -> None:
        """Collect *arrival* and all others that have come, and poll running chunks if that is due.

        A task that sends records again and again is polled as often as a silent task.
        """
        if (arrival is None or arrival is RECORD_CAME) and self._deadline.has_passed():
            raise self._too_late()
        self._collect_all(arrival)
        if self._poll_timer.is_due():
            self._poll_running()

    def _collect_all(self, arrival: Arrival | None) -> None:
        """Collect *arrival* and all others that have come by now.

        Not those that come meanwhile: tasks may send more records than can be shown, and the time
        limit has to be checked.
        """
        if arrival is None:
            return
        self._collect(arrival)
        for _ in range(self._queue.count):
            if (arrival := self._queue.take(0)) is None:
                return
            self._collect(arrival)

    def _poll_running(self) -> None:
        """Take outcomes so far, after a while without a report, and let idle workers help."""
        if self._is_starved:
            self._allow_splits(are_allowed=True)
        for future, running in list(self._in_flight.items()):
            chunk = running.chunk
            wanted = self._buffer.next_index
            if wanted is None or chunk.first <= wanted < chunk.first + running.kept:
                self._settle_so_far(future)

    def _adopt_rests(self) -> None:
        """Take over the rests of chunks that were split, and drop what else has come.

        1. main thread  takes the split of a chunk from the queue
        2. user         presses Ctrl-C; the interrupt is raised before the split is anywhere
        3. main thread  takes the split of that rest: of a chunk that it does not know

        The back-end stops such tasks when the call is dropped.
        """
        while (arrival := self._queue.take(0)) is not None:
            if isinstance(arrival, Split) and arrival.future in self._in_flight:
                self._adopt_rest(arrival)

    def _adopt_rest(self, split: Split) -> None:
        rest = self._in_flight[split.future].split(split.kept)
        self._in_flight[split.rest] = rest
        split.rest.add_done_callback(self._queue.put)
        self._trace.note_submitted(rest.chunk.first, split.at)
        if not self._policy.matters(rest.chunk.first):
            self._give_up(split.rest)

    def _give_up(self, future: TaskFuture) -> None:
        """Cancel a chunk, or have its worker begin no further item of it."""
        if future.cancel():
            self._in_flight.pop(future, None)
        else:
            future.leave_rest()

    def _collect(self, future: Arrival) -> None:
        show_all(self._queue.records)
        if isinstance(future, Split):
            self._adopt_rest(future)
            return
        running = self._in_flight.pop(future, None)  # type: ignore[call-overload]
        if running is None:
            return
        self._poll_timer.reset()
        if future.cancelled():
            # Not cancelled by us: a future that we cancel leaves _in_flight at once.
            self._lose(running, PoolClosedError("the pool was closed before the task ran"))
            return
        if (error := future.exception()) is not None:
            if not self._backend.is_usable:
                raise self._backend.translate(error)
            self._lose(running, error)
            return
        report = self._codec.unpack(future.result(), running.settled)
        if report.unread:
            self._settler.settle_unread(running, report)
            return
        self._sizer.note_run(len(report.values), report.seconds)
        self._settler.settle(running, report)
        self._settler.run_rest(running)

    def _settle_so_far(self, future: TaskFuture) -> None:
        """Settle the outcomes that the running chunk of *future* has so far."""
        if parts := future.progress():
            show_all(self._queue.records)
            running = self._in_flight[future]
            self._settler.settle(running, self._codec.unpack(parts, running.settled))

    def _lose(self, running: InFlight, error: BaseException) -> None:
        lost = error if isinstance(error, WorkerLost) else WorkerLost(error)
        self._settler.lose(running, lost, self._backend.translate(lost.error))

    def _drop_behind(self, index: int) -> None:
        """Drop all chunks behind item *index*; those before it go on."""
        self._source.drop_from(index)
        for future, running in list(self._in_flight.items()):
            if running.chunk.first > index:
                self._give_up(future)

    def _too_late(self) -> TaskTimeoutError:
        self.is_too_late = True
        ended = self.taken + len(self._buffer)
        of_total = "" if self._plan.total is None else f" of {self._plan.total}"
        return TaskTimeoutError(
            f"the call did not end within {self._deadline.seconds:g} seconds; "
            f"{ended}{of_total} items had ended"
        )


def _index_of(outcome: tuple[int, Any]) -> int:
    return outcome[0]


_parents: Final[list[Any]] = []
"""Handles and futures of the parent's maps, in a forked process."""
