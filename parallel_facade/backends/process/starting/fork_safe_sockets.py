"""Make channel ends that no process forked from this one keeps.

Guarantees:
    - Only the caller holds its end of a channel, and only the worker holds the other end. So the
      death of either closes the channel for the other, whatever was forked meanwhile.
"""

from __future__ import annotations

import os
import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_open_ends: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_pairing = threading.RLock()  # held while ends are made and registered: no fork in between
_forking = threading.local()  # .end: the end that a process forked by this thread now keeps


def private_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new channel, which no forked process keeps.

    If the ends were made first and registered later:
        1. thread A  makes a pair
        2. thread B  forks worker W, which inherits both ends, and closes only registered ends
        3. thread A  registers the pair, and starts worker V with one end
        4. worker V  dies, and nobody sees the end of its channel, because W still holds V's end
    """
    with _pairing:
        ours, theirs = socket.socketpair()
        ours.settimeout(None)  # the program may have set a default
        theirs.settimeout(None)
        return keep_private(ours), keep_private(theirs)


def keep_private(end: socket.socket) -> socket.socket:
    """Close *end* in every process that is forked from this one from now on."""
    _open_ends.add(end)
    return end


@contextmanager
def kept_in_fork(end: socket.socket) -> Iterator[None]:
    """Let a process that this thread forks in the block keep *end*."""
    _forking.end = end
    try:
        yield
    finally:
        _forking.end = None


def _close_inherited_ends() -> None:
    """Close, in a forked child, every registered channel end except its own.

    Otherwise:
        1. caller    has a channel to worker A, and forks worker B, which inherits the caller's end
        2. caller    dies
        3. worker A  waits forever: B still holds the other end open, and A holds one of B's ends
    """
    own = getattr(_forking, "end", None)
    for end in list(_open_ends):
        if end is not own:
            _open_ends.discard(end)
            with suppress(OSError):
                end.close()


if hasattr(os, "register_at_fork"):
    # After-fork hooks run in the order of their registration, before-fork hooks in reverse order.
    os.register_at_fork(
        before=_pairing.acquire, after_in_parent=_pairing.release, after_in_child=_pairing.release
    )
    os.register_at_fork(after_in_child=_close_inherited_ends)
