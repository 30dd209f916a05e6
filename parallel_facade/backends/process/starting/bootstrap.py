"""Ctrl-C is for the caller: workers and their helpers do not hear it, from their first moment on.

Otherwise:
    1. user      presses Ctrl-C, and the terminal tells every process of the program
    2. a worker  is just starting, and prints a traceback of its own
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

CAN_MASK = hasattr(signal, "pthread_sigmask")


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Let no process that this thread starts in the block hear Ctrl-C; hear it ourselves after."""
    if not CAN_MASK:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in this process, which was born deaf."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if CAN_MASK:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
