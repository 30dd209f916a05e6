"""Ends of channels that no process forked from this one may keep.

Guarantees:
    - Only the caller holds its end of a channel, and only the worker the other: either one's death
      is the end of the channel for the other, whatever was forked meanwhile.
"""

from __future__ import annotations

import os
import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_open_ends: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_pairing = threading.RLock()  # held while ends are made and noted; no fork comes between
_forking = threading.local()  # .end: what a process that this thread forks now shall keep


def private_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new channel, which no forked process keeps.

    Not made first and noted then:
        1. thread A  makes a pair
        2. thread B  forks worker W, which has both ends, and closes those that are noted
        3. thread A  notes the pair, and starts worker V with one end
        4. worker V  dies, and nobody sees the end of its channel, as W holds the other end too
    """
    with _pairing:
        ours, theirs = socket.socketpair()
        return keep_private(ours), keep_private(theirs)


def keep_private(end: socket.socket) -> socket.socket:
    """Close *end* in every process that is forked from this one from now on."""
    _open_ends.add(end)
    return end


@contextmanager
def kept_in_fork(end: socket.socket) -> Iterator[None]:
    """Let a process that this thread forks in the block have *end*."""
    _forking.end = end
    try:
        yield
    finally:
        _forking.end = None


def _close_inherited_ends() -> None:
    """Close, in a forked child, every channel end but its own.

    Otherwise:
        1. caller    has a channel to worker A, and forks worker B, which inherits the caller's end
        2. caller    dies
        3. worker A  waits for ever: B still holds the other end open, and A holds one of B's
    """
    own = getattr(_forking, "end", None)
    for end in list(_open_ends):
        if end is not own:
            _open_ends.discard(end)
            with suppress(OSError):
                end.close()


if hasattr(os, "register_at_fork"):
    # What runs after a fork runs in the order in which it was registered, what runs before in the
    # opposite one.
    os.register_at_fork(
        before=_pairing.acquire, after_in_parent=_pairing.release, after_in_child=_pairing.release
    )
    os.register_at_fork(after_in_child=_close_inherited_ends)
