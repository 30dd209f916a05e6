"""What is open when the program ends is closed, before that ends which it needs.

    close_at_exit ─► open ··· the program ends ─► close(cancel=True)
    forget ────────►  ✗

Guarantees:
    - What nobody refers to any more is not kept.
    - A forked child closes nothing of its parent's.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import weakref
from contextlib import suppress
from typing import Protocol

from parallel_facade._common.exiting import note_end


class Closable(Protocol):
    """What has to be closed."""

    def close(self, *, cancel: bool) -> None:
        """End what it holds; with *cancel* without waiting for it."""


_open: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_at_exit(opened: Closable, engine: type) -> None:
    """Close *opened* when the program ends, unless it is forgotten.

    Args:
        opened: What is open.
        engine: The class that runs its tasks, whose modules have exit handlers of their own.
    """
    _close_all_at_exit(engine)
    _open.add(opened)


def forget(closed: Closable) -> None:
    """Leave *closed* alone when the program ends."""
    _open.discard(closed)


def _close_all() -> None:
    note_end()
    with suppress(ValueError):  # of a thread that is not the main one
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            # From here on a Ctrl-C ends the program at once; with it go its workers.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    for opened in list(_open):
        opened.close(cancel=True)


@functools.cache
def _close_all_at_exit(engine: type) -> None:  # noqa: ARG001 - once for each
    """Have an exit handler run before those of *engine*'s modules, which were imported by now.

    Exit handlers run last in, first out, and those of `multiprocess` and Ray end what is needed to
    close well.
    """
    for _ in range(2):  # a Ctrl-C may end the first
        atexit.register(_close_all)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open.clear)
