"""Settles the chunks of a map: what becomes of their items when a report or a loss arrives.

    report ─► settle ─┬─► FailurePolicy: values, failures
                      └─► ChunkSource: items to run again, at once or after the retry delay
    loss ───► lose ───┘

Guarantees:
    - Every item of a chunk gets one outcome, or runs again.
    - When a worker is lost, only items that it may have run count as lost.

Assumes:
    - One consumer at a time.
"""

from __future__ import annotations

import copy

from parallel_facade._common.errors import ParallelFacadeError
from parallel_facade._common.task_errors import TaskTimeoutError, WorkerCrashedError
from parallel_facade._dispatch.call_trace import CallTrace, NullTrace
from parallel_facade._dispatch.chunk_source import ChunkSource
from parallel_facade._dispatch.codecs import Codec
from parallel_facade._dispatch.failure_policy import FailurePolicy
from parallel_facade._dispatch.rerun_queue import Packed
from parallel_facade._worker.outcomes import ChunkReport, Failure
from parallel_facade._worker.run_chunk import THE_ARGUMENTS, Chunk
from parallel_facade.backends.base import Stage, WorkerLost


class InFlight:
    """A chunk that was submitted.

    Attributes:
        packed: What was submitted.
        settled: How many of its items, from the first, have their outcomes.
        kept: How many of its items stay with its worker; the others were taken back.
        was_split: The payload that its worker rebuilds holds items of other chunks, too.
    """

    __slots__ = ("kept", "packed", "settled", "was_split")

    def __init__(self, packed: Packed, *, was_split: bool = False) -> None:
        self.packed = packed
        self.settled = 0
        self.kept = len(packed.chunk.items)
        self.was_split = was_split

    @property
    def chunk(self) -> Chunk:
        """The chunk that was submitted, with its items."""
        return self.packed.chunk

    def left(self) -> Packed:
        """Return the items that have no outcome and were not taken back."""
        return self.packed.part(self.settled, self.kept - self.settled)

    def split(self, kept: int) -> InFlight:
        """Keep the first *kept* items; return the others as another chunk."""
        rest = self.packed.part(kept, self.kept - kept)
        self.kept, self.was_split = kept, True
        return InFlight(rest, was_split=True)


class ChunkSettler:
    """Settles chunks.

    Args:
        policy: Decides about failures, and takes the outcomes.
        source: Gives items again that have to run again.
        codec: Unpacks the outcomes of a lost worker.
        trace: Notes losses.
        retry_delay: Seconds between two attempts at an item.
    """

    def __init__(
        self,
        policy: FailurePolicy,
        source: ChunkSource,
        codec: Codec,
        trace: CallTrace | NullTrace,
        retry_delay: float,
    ) -> None:
        self._policy = policy
        self._source = source
        self._codec = codec
        self._trace = trace
        self._retry_delay = retry_delay

    def run_again(self, parts: list[Packed], delay: float = 0.0) -> None:
        """Run those of *parts* that matter, before items that have not been submitted.

        Args:
            parts: Parts of chunks that were submitted.
            delay: Seconds to wait before that.
        """
        matter = [part for part in parts if self._policy.matters(part.chunk.first)]
        self._source.run_again(matter, delay)

    def _retry(self, parts: list[Packed]) -> None:
        """Run *parts*, each a failed item, after the retry delay."""
        self.run_again(parts, self._retry_delay)

    def settle(self, running: InFlight, report: ChunkReport) -> None:
        """Settle the outcomes in *report* that are not settled yet."""
        chunk, first = running.chunk, running.settled
        ended = running.settled = max(first, len(report.values))
        failures = report.failures
        again = []
        for position in sorted(position for position in failures if position >= first):
            self._policy.succeed(chunk.first + first, report.values[first:position])
            first = position + 1
            error = failures[position].error
            index = chunk.first + position
            if self._policy.is_retried(error) and self._policy.may_retry(index, error):
                again.append(running.packed.part(position, 1))
            else:
                self._policy.fail(chunk, position, failures[position])
        values = report.values
        self._policy.succeed(chunk.first + first, values if first == 0 else values[first:ended])
        self._retry(again)

    def run_rest(self, running: InFlight) -> None:
        """Run the items that the worker left, on a stop signal or for its own reasons."""
        if running.settled < running.kept:
            # If it stopped at a failure, the items behind that do not matter, and are not run.
            self.run_again([running.left()])

    def settle_unread(self, running: InFlight, report: ChunkReport) -> None:
        """Find out which item cannot be rebuilt; nothing of the chunk was run."""
        if report.unread == THE_ARGUMENTS and (running.kept > 1 or running.was_split):
            self.run_again(running.packed.singles(running.kept))
            return
        for position in range(running.kept):
            self._policy.fail(running.chunk, position, report.failures[0])

    def lose(self, running: InFlight, lost: WorkerLost, error: BaseException) -> None:
        """Handle a chunk after its worker was lost, or was stopped for its time-out.

        Args:
            running: The chunk.
            lost: How far the worker came.
            error: The error for the user.
        """
        if lost.parts:
            self.settle(running, self._codec.unpack(list(lost.parts), running.settled))
        if (count := running.kept - running.settled) == 0:
            return
        left = running.left()
        if lost.stage is Stage.ITEMS:
            if count > 1:
                self.run_again([left.part(1, count - 1)])
            self._lose_items(left, 1, error)
        elif lost.stage is Stage.ARGUMENTS and (count > 1 or running.was_split):
            # It died while it rebuilt the arguments: find out which item is the cause.
            self.run_again(left.singles(count))
        else:
            self._lose_items(left, count, error)

    def _lose_items(self, left: Packed, count: int, error: BaseException) -> None:
        """Run the first *count* items of *left* again if they may be retried; else fail them."""
        chunk = left.chunk
        self._trace.note_lost(chunk.first, count, error)
        again = []
        for position in range(count):
            # One error for each item, because the notes on an error are about one item.
            own = copy.deepcopy(error) if isinstance(error, ParallelFacadeError) else error
            if isinstance(own, WorkerCrashedError | TaskTimeoutError):
                own.index = chunk.first + position
            if count > 1:
                own.add_note(f"the worker held items {chunk.first} to {chunk.first + count - 1}")
            if self._policy.may_retry(chunk.first + position, own):
                again.append(left.part(position, 1))
            else:
                self._policy.fail(chunk, position, Failure(own))
        self._retry(again)
