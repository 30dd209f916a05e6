"""What happens to threads that still wait for results when the program ends.

Daemon threads do not hold up the end of a program. The interpreter freezes them; here, those that
wait for a result are frozen a little earlier, when the workers are closed. Otherwise each would
print a traceback, of a pool that was closed under it, on a program's last stderr.
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
    """Note that the program ends, and workers are about to be closed."""
    global _is_ending
    _is_ending = True


def park_daemon_threads() -> None:
    """Wait for ever, if the program ends and the current thread does not hold it up."""
    if _is_ending and threading.current_thread().daemon:
        _parked.wait()


@contextmanager
def parking_daemon_threads() -> Iterator[None]:
    """In the block, a pool that was closed since the program ends freezes daemon threads."""
    try:
        yield
    except PoolClosedError:
        park_daemon_threads()
        raise
