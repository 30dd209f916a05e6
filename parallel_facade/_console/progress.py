"""Shows the progress of a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from parallel_facade._common.deadlines import Clock
from parallel_facade._console.tqdm_bars import can_show_bars, new_bar


class Progress(NamedTuple):
    """The progress of a call, as passed to a callable given as ``progress=``.

    Attributes:
        done: Items that have ended, whether they succeeded or failed.
        total: Total number of items; `None` while it is not known.
        failed: Items that raised and were not retried.
        retried: Attempts that failed and were followed by another attempt.
        in_flight: Submitted items that have no outcome yet: a worker has them, or they wait for a
            worker.
        elapsed: Seconds since the call began.

    >>> Progress(done=3, total=4, failed=0, retried=0, in_flight=1, elapsed=0.5).done
    3
    """

    done: int
    total: int | None
    failed: int
    retried: int
    in_flight: int
    elapsed: float


# Tracebacks and help() show the name under which users import it.
Progress.__module__ = "parallel_facade"


class Reporter:
    """Counts items and reports the progress to *show*; used by one thread.

    Args:
        total: Total number of items; `None` while it is not known.
        show: Takes each `Progress`.
        in_flight: Returns how many items are in flight.
        begin: Called once, by the first call of the method `begin`.
        finish: Called at the end.
        one_by_one: Report each item, even if many arrive together.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self,
        total: int | None,
        show: Callable[[Progress], object],
        in_flight: Callable[[], int],
        *,
        begin: Callable[[], object] = lambda: None,
        finish: Callable[[], object] = lambda: None,
        one_by_one: bool = True,
        clock: Clock = time.monotonic,
    ) -> None:
        self._total = total
        self._show = show
        self._in_flight = in_flight
        self._begin: Callable[[], object] | None = begin
        self._finish = finish
        self._one_by_one = one_by_one
        self._clock = clock
        self._began = clock()
        self._done = 0
        self._failed = 0
        self._retried = 0

    def begin(self) -> None:
        """Show the display; beginning twice is fine."""
        if (begin := self._begin) is not None:
            self._begin = None
            begin()

    def succeed(self, count: int) -> None:
        """Count *count* more items that have returned."""
        for _ in range(count if self._one_by_one else 1):
            self._done += 1 if self._one_by_one else count
            self._report()

    def fail(self) -> None:
        """Count an item that has raised."""
        self._done += 1
        self._failed += 1
        self._report()

    def retry(self) -> None:
        """Count an attempt that is followed by another attempt."""
        self._retried += 1
        self._report()

    def _report(self) -> None:
        self.begin()
        elapsed = self._clock() - self._began
        self._show(
            Progress(
                self._done,
                self._total,
                self._failed,
                self._retried,
                self._in_flight(),
                elapsed,
            )
        )

    def close(self) -> None:
        """Remove the display; closing twice is fine."""
        finish, self._finish = self._finish, lambda: None
        finish()


def open_reporter(
    progress: bool | str | Callable[[Progress], object],
    total: int | None,
    in_flight: Callable[[], int],
) -> Reporter | None:
    """Return a reporter for the *progress* that the user asked for; `None` for no display."""
    if callable(progress):
        return Reporter(total, progress, in_flight)
    if progress is False or progress == "" or not can_show_bars():
        return None
    bar: Any = None
    troubles: dict[str, int] = {}

    def begin() -> None:
        nonlocal bar
        bar = new_bar(progress if isinstance(progress, str) else None, total)

    def finish() -> None:
        if bar is not None:
            bar.close()

    def show(state: Progress) -> None:
        counts = {"failed": state.failed, "retried": state.retried}
        if counts != troubles and any(counts.values()):
            troubles.update(counts)
            bar.set_postfix({name: count for name, count in counts.items() if count}, refresh=False)
        bar.update(state.done - bar.n)

    return Reporter(total, show, _unknown, begin=begin, finish=finish, one_by_one=False)


def _unknown() -> int:
    """Return 0: a bar does not show the items in flight."""
    return 0
