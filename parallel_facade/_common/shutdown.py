"""Close open pools at exit, before the exit handlers of the things that they depend on.

    close_at_exit ─► open ··· the program ends ─► close(cancel=True)
    forget ────────►  ✗

Guarantees:
    - A pool that nothing refers to any more is not kept alive.
    - A forked child does not close its parent's pools.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from parallel_facade._common.errors import PoolClosedError

_parked: Final = threading.Event()  # never set
_is_ending = False


def note_end() -> None:
    """Note that the program is ending and the workers are about to be closed."""
    global _is_ending
    _is_ending = True


def park_daemon_threads() -> None:
    """Wait forever if the program is ending and the current thread is a daemon thread.

    Daemon threads do not delay the end of a program; the interpreter freezes them. A daemon thread
    that waits for a result is parked a little earlier, when the workers are closed. Otherwise it
    would print a traceback at the program's end, because its pool was closed.
    """
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


class Closable(Protocol):
    """An object that has to be closed at exit."""

    def close(self, *, cancel: bool) -> None:
        """End its work and release what it holds; with *cancel*, do not wait for the work."""


_open: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_at_exit(opened: Closable, engine: type) -> None:
    """Close *opened* when the program ends, unless `forget` is called for it.

    Args:
        opened: The open object.
        engine: The class that runs its tasks. Its modules have their own exit handlers.
    """
    _close_all_at_exit(engine)
    _open.add(opened)


def forget(closed: Closable) -> None:
    """Do not close *closed* when the program ends."""
    _open.discard(closed)


def close_all() -> None:
    """Close everything that is open, because the program ends."""
    note_end()
    with suppress(ValueError):  # only the main thread may set signal handlers
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            # From here on, Ctrl-C ends the program at once, and its workers with it.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    for opened in list(_open):
        opened.close(cancel=True)


@functools.cache
def _close_all_at_exit(engine: type) -> None:  # noqa: ARG001 - the cache's key
    """Register an exit handler that runs before those of *engine*'s modules.

    The modules are already imported, and exit handlers run last in, first out. The handlers of
    `multiprocess` and Ray end things that are needed to close cleanly.
    """
    for _ in range(2):  # Ctrl-C may end the first
        atexit.register(close_all)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open.clear)
