"""Decides what an item that has ended becomes: a value, a failure, or another attempt.

    outcome ─┬─ succeed ──► ResultBuffer
             ├─ may_retry ─► another attempt, if *retries* allows it
             └─ fail ─────► ResultBuffer; the first failure that is not kept ends the call

Guarantees:
    - Of several failures, the one with the lowest index ends the call, whichever came first.
    - A failure names its item, and says how the item's earlier attempts ended.

Assumes:
    - One consumer at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parallel_facade._common.error_notes import note_item
from parallel_facade._console.progress import open_reporter
from parallel_facade._dispatch.attempts import Attempts
from parallel_facade._dispatch.call_options import Options
from parallel_facade._dispatch.result_buffer import ResultBuffer
from parallel_facade._worker.outcomes import Failure
from parallel_facade._worker.run_chunk import Chunk, log_exit


class FailurePolicy:
    """Decides on the items of one map.

    Args:
        options: Say which failures are retried, and which are kept as results.
        buffer: Takes the outcomes.
        total: How many items there are; `None` if that is not known.
        on_end: Called with the index of each item that ends the call. Items behind it do not
            matter any more; an item before it may still fail, and then ends the call instead.
            Chunks that run go on to their end, unless `Call.stops_at_failure`.
        in_flight: Returns how many items are in flight.
    """

    def __init__(
        self,
        options: Options,
        buffer: ResultBuffer,
        total: int | None,
        on_end: Callable[[int], object],
        in_flight: Callable[[], int],
    ) -> None:
        self._options = options
        self._buffer = buffer
        self._on_end = on_end
        self._reporter = open_reporter(options.settings.progress, total, in_flight)
        self._attempts = Attempts(options.settings.retries, options.retry_on)
        self.first_failure: tuple[int, Failure] | None = None
        """The failure that ends the call, after the index of its item."""

    def begin(self) -> None:
        """Show that the call has begun; beginning twice is fine."""
        if self._reporter is not None:
            self._reporter.begin()

    def close(self) -> None:
        """Report no more progress; closing twice is fine."""
        if self._reporter is not None:
            self._reporter.close()

    def matters(self, index: int) -> bool:
        """Return whether item *index* comes before the failure that ends the call, if any."""
        return self.first_failure is None or index < self.first_failure[0]

    def succeed(self, index: int, values: list[Any]) -> None:
        """Take the *values* of the items from *index* on."""
        self._buffer.add(index, values)
        if len(values) == 1:
            self._attempts.forget(index)
        if self._reporter is not None:
            self._reporter.succeed(len(values))

    def refuse(self, chunk: Chunk, failure: Failure) -> None:
        """Take the *failure* of the only item of *chunk*, which cannot be sent."""
        note_item(failure.error, chunk.first, chunk.items[0], "sending")
        self._end(chunk.first, failure)

    def fail(self, chunk: Chunk, position: int, failure: Failure) -> None:
        """Take the *failure* of the item at *position* of *chunk*."""
        note_item(failure.error, chunk.first + position, chunk.items[position])
        self._end(chunk.first + position, failure)

    def _end(self, index: int, failure: Failure) -> None:
        self._attempts.note(index, failure.error)
        self._attempts.forget(index)
        if self._keeps(failure.error):
            self._buffer.add(index, [failure.error])
        else:
            if self.matters(index):
                self.first_failure = index, failure
                self._on_end(index)
                log_exit(index, failure.error)
            self._buffer.add_failure(index, failure)
        if self._reporter is not None:
            self._reporter.fail()

    def _keeps(self, error: BaseException) -> bool:
        """Return whether *error* is a result, instead of ending the call.

        Ctrl-C is never one.
        """
        return self._options.return_exceptions and isinstance(error, Exception | SystemExit)

    def is_retried(self, error: BaseException) -> bool:
        """Return whether an item that raised *error* may be retried."""
        return self._attempts.is_retried(error)

    def may_retry(self, index: int, error: BaseException) -> bool:
        """Return whether item *index*, which raised *error*, has an attempt left; use it up."""
        if not self._attempts.use(index, error):
            return False
        if self._reporter is not None:
            self._reporter.retry()
        return True
