"""An action that happens later, in a thread of a timer, unless it is cancelled before.

    1. timer     is due, and is about to call the action
    2. canceller cancels, and is told that it came in time
    3. timer     calls the action: it must not

So whoever comes first takes the action out, under a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class DelayedAction:
    """Calls *action* once, *seconds* after `start`, unless it is cancelled.

    Args:
        seconds: The delay.
        action: What to call.
    """

    def __init__(self, seconds: float, action: Callable[[], object]) -> None:
        self._lock = threading.Lock()  # guards _action
        self._action: Callable[[], object] | None = action
        self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._happen)
        self._timer.daemon = True

    def start(self) -> None:
        """Start the delay; not in the constructor, so that an interrupt leaves nothing unknown."""
        self._timer.start()

    def cancel(self) -> bool:
        """Cancel the action; return whether it had not begun."""
        is_cancelled = self._take() is not None
        self._timer.cancel()
        return is_cancelled

    def _happen(self) -> None:
        if (action := self._take()) is not None:
            action()

    def _take(self) -> Callable[[], object] | None:
        with self._lock:
            action, self._action = self._action, None
        return action
