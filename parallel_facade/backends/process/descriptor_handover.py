"""What a worker is given with its channel, as descriptors sent over it.

    journal    memory in which it says what it does           see `_journal`
    lifeline   a socket without data, whose end is ours       see `_lifeline`
    stderr     a pipe that hears what its initializer says   see `_start_messages`

Assumes:
    - It is the first message on the channel, in both directions.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import Final, NamedTuple

from parallel_facade.backends.process.journal import Journal, new_memory
from parallel_facade.backends.process.starting.fork_safe_sockets import private_pair

GREETING: Final = b"W"
"""The byte that the descriptors travel with."""
CAN_SEND_DESCRIPTORS: Final = hasattr(socket, "send_fds")
DESCRIPTORS_AT_MOST: Final = 3


class Kept(NamedTuple):
    """The caller's part."""

    journal: Journal
    lifeline: socket.socket
    stderr: int | None


class Given(NamedTuple):
    """The worker's part; descriptors, which last as long as the process."""

    journal: Journal
    lifeline: int
    stderr: int | None


def give(sock: socket.socket, *, hears_stderr: bool) -> Kept | None:
    """Give the worker behind *sock* its things; `None` where that cannot be, or it is gone."""
    if not CAN_SEND_DESCRIPTORS:
        return None
    with ExitStack() as theirs:
        memory = new_memory()
        theirs.callback(os.close, memory)
        lifeline, their_end = private_pair()
        theirs.callback(their_end.close)
        try:
            pipe = os.pipe() if hears_stderr else ()
        except OSError:
            lifeline.close()
            raise
        for fd in pipe[1:]:
            theirs.callback(os.close, fd)
        journal = Journal.new(memory)  # before the worker looks at it
        try:
            socket.send_fds(sock, [GREETING], [memory, their_end.fileno(), *pipe[1:]])
            return Kept(journal, lifeline, pipe[0] if pipe else None)
        except OSError:  # the worker is gone; reading its channel will say so
            journal.close()
            lifeline.close()
            for fd in pipe[:1]:
                os.close(fd)
            return None


def receive(sock: socket.socket) -> Given | None:
    """Return what the caller gave; `None` where nothing can be."""
    if not CAN_SEND_DESCRIPTORS:
        return None
    greeting, fds, *_ = socket.recv_fds(sock, len(GREETING), DESCRIPTORS_AT_MOST)
    if greeting != GREETING:
        raise EOFError
    memory, lifeline, *stderr = fds
    try:
        return Given(Journal(memory), lifeline, stderr[0] if stderr else None)
    finally:
        os.close(memory)
