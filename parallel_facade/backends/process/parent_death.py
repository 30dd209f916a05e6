"""Kills a worker when its caller dies, whatever the worker does at that moment.

    caller holds one end ── dies, of any cause ──► the kernel closes it ──► SIGKILL

On Linux the kernel itself sends the signal, so it also kills a worker that is stopped, or that runs
C code that never lets Python run. Elsewhere a thread waits for the end of the parent-death watch,
and the fork server kills the workers that it has forked. Only a spawned worker in which no thread
can run outlives its caller.

Guarantees:
    - A worker that can run Python code does not outlive its caller, nor does the task that it runs.

Assumes:
    - Nothing is ever sent on a parent-death watch, and only the caller holds its other end.
    - A task does not itself set an owner of the watch's signals.
"""

from __future__ import annotations

import fcntl
import os
import signal

from multiprocess import connection

from parallel_facade._common.threads import new_thread


def die_with_parent(parent_watch: int) -> None:
    """Kill this process when the other end of *parent_watch*, a descriptor, is closed."""
    if hasattr(fcntl, "F_SETSIG"):
        _have_the_kernel_kill(parent_watch)
    else:
        new_thread(_wait_and_die, parent_watch, name="parent death").start()


def _have_the_kernel_kill(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    # The other end may have been closed before the signal was set up.
    if connection.wait([fd], 0):
        _die()


def _wait_and_die(fd: int) -> None:
    os.read(fd, 1)
    _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
