"""Poll in a thread, for as long as there is something to poll.

Guarantees:
    - No thread is left once *poll* has returned `None`.
    - After `wake`, there is a poll that begins later than the wake.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from parallel_facade._common.interrupt_safety import SafeCondition
from parallel_facade._common.threads import new_thread


class PollingThread:
    """Calls *poll* repeatedly.

    Args:
        poll: Returns the seconds until the next call; `None` if no call is needed until the next
            `wake` or `start`.
        name: What the thread is called.
    """

    def __init__(self, poll: Callable[[], float | None], name: str = "supervisor") -> None:
        self._poll = poll
        self._name = name
        self._changed = SafeCondition()  # guards all below
        self._thread: threading.Thread | None = None
        self._is_running = False
        self._is_woken = False

    def wake(self) -> None:
        """Request a poll soon, because there may be something new."""
        self.hurry()
        self.start()

    def hurry(self) -> None:
        """If polls go on, do the next one now: there may be nothing left to poll."""
        with self._changed:
            self._is_woken = True
            self._changed.notify()

    def start(self) -> None:
        """Poll, unless polls go on already; these take their time."""
        with self._changed:
            if not self._is_running:
                self._thread = new_thread(self._run, name=self._name)
                self._is_running = True  # first: an interrupt may end the waiting for the start
                self._start(self._thread)

    def _start(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads, or the program ends
            self._is_running = False
            raise

    def join(self) -> None:
        """Wait until the thread has ended because *poll* returned `None`."""
        self.hurry()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        try:
            self._poll_on()
        except BaseException:  # our own bug: threading prints it; the next wake starts anew
            with self._changed:
                self._is_running = False
            raise

    def _poll_on(self) -> None:
        while self._goes_on(self._poll()):
            pass

    def _goes_on(self, seconds: float | None) -> bool:
        """Wait; return whether to poll again."""
        with self._changed:
            if seconds is None and not self._is_woken:
                self._is_running = False
                return False
            if not self._is_woken:
                self._changed.wait(seconds)
            self._is_woken = False
            return True
