"""What a worker is given with its channel, as descriptors sent over it.

    journal    memory in which it says what it does           see `_journal`
    lifeline   a socket without data, whose end is ours       see `_parent_watch`
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


class CallerSide(NamedTuple):
    """The caller's part."""

    journal: Journal
    parent_watch: socket.socket
    stderr: int | None


class WorkerSide(NamedTuple):
    """The worker's part; descriptors, which last as long as the process."""

    journal: Journal
    parent_watch: int
    stderr: int | None


def send_descriptors(sock: socket.socket, *, captures_stderr: bool) -> CallerSide | None:
    """Give the worker behind *sock* its things; `None` where that cannot be, or it is gone."""
    if not CAN_SEND_DESCRIPTORS:
        return None
    with ExitStack() as theirs:
        memory = new_memory()
        theirs.callback(os.close, memory)
        parent_watch, their_end = private_pair()
        theirs.callback(their_end.close)
        try:
            pipe = os.pipe() if captures_stderr else ()
        except OSError:
            parent_watch.close()
            raise
        for fd in pipe[1:]:
            theirs.callback(os.close, fd)
        journal = Journal.new(memory)  # before the worker looks at it
        try:
            socket.send_fds(sock, [GREETING], [memory, their_end.fileno(), *pipe[1:]])
            return CallerSide(journal, parent_watch, pipe[0] if pipe else None)
        except OSError:  # the worker is gone; reading its channel will say so
            journal.close()
            parent_watch.close()
            for fd in pipe[:1]:
                os.close(fd)
            return None


def receive_descriptors(sock: socket.socket) -> WorkerSide | None:
    """Return what the caller gave; `None` where nothing can be."""
    if not CAN_SEND_DESCRIPTORS:
        return None
    greeting, fds, *_ = socket.recv_fds(sock, len(GREETING), DESCRIPTORS_AT_MOST)
    if greeting != GREETING:
        raise EOFError
    memory, parent_watch, *stderr = fds
    try:
        return WorkerSide(Journal(memory), parent_watch, stderr[0] if stderr else None)
    finally:
        os.close(memory)
