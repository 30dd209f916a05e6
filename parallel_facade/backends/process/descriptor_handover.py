"""Sends a worker its descriptors, over its new channel.

    journal        memory in which it records its progress      see `journal`
    parent watch   a socket without data, whose other end the
                   caller holds                                 see `parent_death`
    stderr         a pipe for the stderr of its initializer     see `startup_stderr`

Assumes:
    - This is the first message on the channel, in either direction.
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
    """What the caller keeps."""

    journal: Journal
    parent_watch: socket.socket
    stderr: int | None


class WorkerSide(NamedTuple):
    """What the worker receives; its descriptors stay open as long as the process."""

    journal: Journal
    parent_watch: int
    stderr: int | None


def send_descriptors(sock: socket.socket, *, captures_stderr: bool) -> CallerSide | None:
    """Send the worker behind *sock* its descriptors; return `None` if it cannot receive any."""
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
        journal = Journal.new(memory)  # before the worker reads it
        try:
            socket.send_fds(sock, [GREETING], [memory, their_end.fileno(), *pipe[1:]])
            return CallerSide(journal, parent_watch, pipe[0] if pipe else None)
        except OSError:  # the worker has exited; reading its channel will show that
            journal.close()
            parent_watch.close()
            for fd in pipe[:1]:
                os.close(fd)
            return None


def receive_descriptors(sock: socket.socket) -> WorkerSide | None:
    """Receive the caller's descriptors; return `None` where descriptors cannot be sent."""
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
