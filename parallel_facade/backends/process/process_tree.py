"""Ends a worker together with the processes that its task has started.

    suspend the worker ─► list its descendants ─► SIGTERM to all ─► wait ─► SIGKILL to survivors

Guarantees:
    - A worker starts nothing between the listing and SIGTERM; what a survivor of SIGTERM has
      started since is killed with it.
    - A process that reuses the number of an exited one is left alone.
    - A worker's handler of SIGTERM runs, also if its task has started threads (on Linux).
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from typing import Any, Final

TERM_PATIENCE: Final = 1.0
"""Seconds between SIGTERM and SIGKILL: time for a handler of SIGTERM to clean up. A task that
ignores the signal, or hangs, ends that much later."""


class ProcessTree:
    """The process *pid* and its descendants, as they were when this object was made.

    Args:
        pid: The worker.
    """

    def __init__(self, pid: int) -> None:
        import psutil  # here, since only the process back-end needs it; it has loaded it already

        # OSError as well: there may be no file descriptor left for reading about processes.
        self._errors_when_gone = (psutil.Error, OSError)
        self._members: list[Any] = []
        with suppress(*self._errors_when_gone):
            worker = psutil.Process(pid)
            self._members = [worker]
            with suppress(*self._errors_when_gone):
                worker.suspend()
                self._members = [*worker.children(recursive=True), worker]

    @property
    def is_known(self) -> bool:
        """Whether the system knows the worker; not if it has exited, or no descriptor is left."""
        return bool(self._members)

    def terminate(self) -> None:
        """Send SIGTERM to all of them."""
        for member in self._members:
            with suppress(*self._errors_when_gone):
                if member is not self._members[-1] or not _terminate_by_main_thread(member):
                    member.terminate()
                member.resume()

    def kill(self) -> None:
        """Kill those that are still alive."""
        for member in self._members:
            with suppress(*self._errors_when_gone):
                # Children started since then, because the process survived SIGTERM.
                member.suspend()
                for child in member.children(recursive=True):
                    with suppress(*self._errors_when_gone):
                        child.kill()
                member.kill()


def _terminate_by_main_thread(worker: Any) -> bool:
    """Send SIGTERM to the main thread of a suspended *worker*; return whether that is possible.

    1. caller  sends SIGTERM to the process, which is suspended
    2. system  resumes it, and hands the signal to the thread that wakes up first
    3. worker  Python notes the signal; the main thread, which runs its handler, waits on in C
    """
    if sys.platform != "linux":
        return False
    try:
        import ctypes
    except ImportError:  # also if there is no file descriptor left for reading it
        return False
    send = getattr(ctypes.CDLL(None), "tgkill", None)
    if send is None or not worker.is_running():
        return False
    return bool(send(worker.pid, worker.pid, signal.SIGTERM) == 0)
