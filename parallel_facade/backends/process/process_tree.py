"""A worker and what its task has started, ended together.

    stop the worker ─► list its descendants ─► SIGTERM to all ─► patience ─► SIGKILL to who is left

Guarantees:
    - A worker starts nothing more between the listing and its end.
    - A process that got the number of an ended one is left alone.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

TERM_PATIENCE: Final = 1.0
"""Seconds between asking and killing: room for a handler of SIGTERM to clean up. A task that
ignores the signal, or hangs, is ended that much later."""


class ProcessTree:
    """The process *pid* and its descendants, as they were when this was made.

    Args:
        pid: The worker.
    """

    def __init__(self, pid: int) -> None:
        import psutil  # here, since only the process back-end needs it, which loads it first

        # OSError too: there may be no descriptor left to read of processes with.
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
        """Whether the system told of the worker; not if it has ended, or no descriptor is left."""
        return bool(self._members)

    def terminate(self) -> None:
        """Ask all of them to end."""
        for member in self._members:
            with suppress(*self._errors_when_gone):
                member.terminate()
                member.resume()

    def kill(self) -> None:
        """End those that are left."""
        for member in self._members:
            with suppress(*self._errors_when_gone):
                # What it has started since, as it did not end when it was asked.
                member.suspend()
                for child in member.children(recursive=True):
                    with suppress(*self._errors_when_gone):
                        child.kill()
                member.kill()
