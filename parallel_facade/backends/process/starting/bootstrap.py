"""Keep Ctrl-C for the caller: workers and their helpers ignore it, from their first moment on.

Otherwise:
    1. user      presses Ctrl-C, and the terminal sends SIGINT to every process of the program
    2. a worker  is just starting, and prints its own traceback
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

CAN_MASK = hasattr(signal, "pthread_sigmask")


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Block SIGINT in the processes that this thread starts in the block; unblock it here after."""
    if not CAN_MASK:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in this process, which was started with SIGINT blocked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if CAN_MASK:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
