"""Deadlines, on a clock that tests can replace."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

Clock = Callable[[], float]

LONGEST_WAIT: Final = 86_400.0
"""The longest single wait in seconds: selectors and locks refuse much more. Callers wait again."""


class Deadline:
    """A moment on a monotonic clock; with `None` seconds it never comes."""

    def __init__(self, seconds: float | None, *, clock: Clock = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._at = math.inf if seconds is None else clock() + seconds

    def remaining(self) -> float | None:
        """Return the seconds left, never negative; `None` when there is no limit."""
        if math.isinf(self._at):
            return None
        return min(LONGEST_WAIT, max(0.0, self._at - self._clock()))

    def has_passed(self) -> bool:
        """Return whether the moment has come."""
        return self.is_before(self._clock())

    def is_before(self, moment: float) -> bool:
        """Return whether the deadline had passed at *moment* of its clock."""
        return self._at <= moment
