"""Showing how far a call is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from parallel_facade._deadlines import Clock


class Progress(NamedTuple):
    """How far a call is, as given to a callable passed as ``progress=``.

    Attributes:
        done: Items that have ended, well or not.
        total: Items in all; `None` while it is not known.
        failed: Items that raised.
        elapsed: Seconds since the call began.

    >>> Progress(done=3, total=4, failed=0, elapsed=0.5).done
    3
    """

    done: int
    total: int | None
    failed: int
    elapsed: float


# Users see it in tracebacks and in help() under the name they import it by.
Progress.__module__ = "parallel_facade"


class Reporter:
    """Counts items and tells *show* of every change; used by one thread."""

    def __init__(
        self,
        total: int | None,
        show: Callable[[Progress], object],
        finish: Callable[[], object] = lambda: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._total = total
        self._show = show
        self._finish = finish
        self._clock = clock
        self._began = clock()
        self._done = 0
        self._failed = 0

    def add(self, done: int, failed: int) -> None:
        """Count *done* more items, of which *failed* raised."""
        self._done += done
        self._failed += failed
        self._show(Progress(self._done, self._total, self._failed, self._clock() - self._began))

    def close(self) -> None:
        """Take the display away; closing twice is fine."""
        finish, self._finish = self._finish, lambda: None
        finish()


def open_reporter(
    progress: bool | str | Callable[[Progress], object], total: int | None
) -> Reporter | None:
    """Return a reporter for what the user asked for, or `None` for nothing."""
    if callable(progress):
        return Reporter(total, progress)
    if progress is False or progress == "":
        return None
    bar = _new_bar(progress if isinstance(progress, str) else None, total)

    def show(state: Progress) -> None:
        if state.failed:
            bar.set_postfix(failed=state.failed, refresh=False)
        bar.update(state.done - bar.n)

    return Reporter(total, show, bar.close)


def _new_bar(description: str | None, total: int | None) -> Any:
    from tqdm import tqdm

    # disable=None shows the bar on a terminal only, so that logs and pipes stay clean.
    return tqdm(total=total, desc=description, unit="item", disable=None)
