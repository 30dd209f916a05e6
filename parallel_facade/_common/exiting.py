"""Park daemon threads that still wait for results when the program ends.

Daemon threads do not delay the end of a program; the interpreter freezes them. The daemon threads
that wait for a result are parked a little earlier, when the workers are closed. Otherwise each of
them would print a traceback to stderr at the program's end, because its pool was closed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from parallel_facade._common.errors import PoolClosedError

_parked: Final = threading.Event()  # never set
_is_ending = False


def note_end() -> None:
    """Note that the program is ending and the workers are about to be closed."""
    global _is_ending
    _is_ending = True


def park_daemon_threads() -> None:
    """Wait forever if the program is ending and the current thread is a daemon thread."""
    if _is_ending and threading.current_thread().daemon:
        _parked.wait()


@contextmanager
def parking_daemon_threads() -> Iterator[None]:
    """Park a daemon thread if the block fails because the end of the program closed a pool."""
    try:
        yield
    except PoolClosedError:
        park_daemon_threads()
        raise
