"""One worker's process, as the caller sees it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any


class ProcessHandle:
    """A process that pathos has started.

    Args:
        process: The process, with the methods of `multiprocess.Process`.
    """

    def __init__(self, process: Any) -> None:
        self._process = process
        self.pid: int = int(process.pid)
        """Its number."""
        self.end_fd: int | None = _open_end(process.pid)
        """A descriptor that is ready when the process has exited, if the system supports that."""

    def exit_code(self) -> int | None:
        """Return the exit code of the process; `None` while it runs."""
        code: int | None = self._process.exitcode
        return code

    def kill(self) -> None:
        """Kill the process."""
        if self.exit_code() is None:
            self._process.kill()

    def end(self, patience: float) -> int | None:
        """Return the exit code of the process, killing it after *patience* seconds."""
        for is_last_try in (False, True):
            if is_last_try:
                self.kill()
            with suppress(OSError):  # the system may refuse to wait, but the code is still known
                self._process.join(patience)
            if (code := self.exit_code()) is not None:
                return code
        return None

    def release(self) -> None:
        """Close the descriptor."""
        if self.end_fd is not None:
            os.close(self.end_fd)
            self.end_fd = None


def _open_end(pid: int) -> int | None:
    """Return a descriptor that is ready when process *pid* has exited; `None` if there is none.

    The channel alone does not show that: processes forked by the worker may hold its other end.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # it has exited, no descriptors are left, or the system call is missing
        return None
