"""When to poll the running chunks of a map.

Each poll costs about 0.05 ms, and there is nothing to find while reports keep coming. So the first
poll waits some chunks' worth of work after a report, and each further poll twice as long.
"""

from __future__ import annotations

from typing import Final

from parallel_facade._common.deadlines import Clock, Deadline

FIRST_POLL_SECONDS: Final = 0.03
"""The time without a report before running chunks are polled: some chunks' worth of work."""
LONGEST_POLL_SECONDS: Final = 0.1
"""Each poll waits twice as long as the one before, up to this."""
RECOUNT_SECONDS: Final = 0.5
"""How often the workers of a cluster are counted while items wait for one. Otherwise a worker that
joins while all others run long tasks would idle until one of these ends."""
MOST_DOUBLINGS: Final = 10
"""After this many doublings, every wait is the longest."""


class PollTimer:
    """Says when the next poll is due.

    Args:
        clock: A monotonic clock in seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._polls = 0  # since the last report
        self._next: Deadline | None = None

    def reset(self) -> None:
        """Begin anew, because a report has come."""
        self._polls, self._next = 0, None

    def seconds(self) -> float | None:
        """Return the seconds until the next poll, choosing its time if there is none yet."""
        if self._next is None:
            wait = min(FIRST_POLL_SECONDS * 2**self._polls, LONGEST_POLL_SECONDS)
            self._next = Deadline(wait, clock=self._clock)
        return self._next.remaining()

    def is_due(self) -> bool:
        """Return whether to poll now; if so, the next poll waits longer."""
        if self._next is None or not self._next.has_passed():
            return False
        self._next = None
        self._polls = min(self._polls + 1, MOST_DOUBLINGS)
        return True
