"""The attempts at items: which failures are retried, how often, and what later errors say of them.

The same rules for the items of a map and for single calls, which are item 0 of their own.
"""

from __future__ import annotations

from parallel_facade._common.error_notes import note_attempts
from parallel_facade._common.errors import described
from parallel_facade._dispatch.call_hooks import is_retried
from parallel_facade._dispatch.call_options import ErrorTypes


class Attempts:
    """Counts the failed attempts of one call.

    Args:
        retries: Additional attempts after the first.
        retry_on: Exceptions of the function that are retried.
    """

    def __init__(self, retries: int, retry_on: ErrorTypes) -> None:
        # Not the options of the call: results keep this, and must not keep the user's executor.
        self._retries = retries
        self._retry_on = retry_on
        self._failed: dict[int, list[str]] = {}  # index → how earlier attempts ended

    def are_left(self, index: int) -> bool:
        """Return whether item *index* has an attempt left."""
        return len(self._failed.get(index, ())) < self._retries

    def is_retried(self, error: BaseException) -> bool:
        """Return whether the function may run again after it raised *error*."""
        return is_retried(error, self._retry_on)

    def use(self, index: int, error: BaseException) -> bool:
        """Use an attempt that is left of item *index*, which failed with *error*.

        Returns:
            Whether there was one.
        """
        if not self.are_left(index):
            return False
        self._failed.setdefault(index, []).append(described(error))
        return True

    def note(self, index: int, error: BaseException) -> None:
        """Note on *error*, from the last attempt at item *index*, how the earlier ones ended."""
        note_attempts(error, self._failed.get(index, []))

    def forget(self, index: int) -> None:
        """Forget the attempts of an item that has its outcome."""
        if self._failed:
            self._failed.pop(index, None)
