"""Ends a worker when its caller is gone, whatever the worker does at that moment.

    caller holds one end ── dies, of whatever cause ──► the kernel closes it ──► SIGKILL

On Linux the kernel itself sends the signal, so it also ends a worker that is stopped, or in C code
that never lets Python run. Elsewhere a thread waits for the end of the lifeline, and the fork
server ends what it has forked; only a spawned worker that can run no thread outlives its caller.

Guarantees:
    - A worker that can run Python code does not outlive its caller, nor does the task that it runs.

Assumes:
    - Nothing is ever sent on a lifeline, and nobody but the caller holds its other end.
    - A task does not itself set an owner of the lifeline's signals.
"""

from __future__ import annotations

import fcntl
import os
import signal

from multiprocess import connection

from parallel_facade._common.threads import new_thread


def die_with_parent(parent_watch: int) -> None:
    """End this process when the other end of *parent_watch*, a descriptor, is closed."""
    if hasattr(fcntl, "F_SETSIG"):
        _have_the_kernel_kill(parent_watch)
    else:
        new_thread(_wait_and_die, parent_watch, name="lifeline").start()


def _have_the_kernel_kill(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    # It may have been closed before anybody was to be told.
    if connection.wait([fd], 0):
        _die()


def _wait_and_die(fd: int) -> None:
    os.read(fd, 1)
    _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
