"""What a worker is doing, in memory that outlives it.

    worker:  begin(task) ── at(0) ── at(1) ──►  16 bytes  ──► caller, when the worker has died

Guarantees:
    - To write costs a store into memory, no message.
    - A task that was not begun, or an item that was not reached, was not run.

Assumes:
    - One worker writes; the caller reads once the worker's process has ended.
"""

from __future__ import annotations

import mmap
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

WORD_BYTES: Final = 8
TASK, PLACE, WORDS = range(3)
"""The task's number; the place of the item that runs, from 1, or 0; how many words there are."""
GREETING: Final = b"J"
"""The byte that the memory's descriptor travels with."""
CAN_SHARE: Final = hasattr(socket, "send_fds")


class Progress(NamedTuple):
    """How far a worker came.

    Attributes:
        task: The number of the last task that it began.
        position: The item of its chunk that ran; -1 while the arguments were rebuilt.
    """

    task: int
    position: int


class Journal:
    """The memory, as one of the two processes has it."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, WORDS * WORD_BYTES)
        self._words = memoryview(self._memory).cast("Q")

    def begin(self, task: int) -> None:
        """Note that the task with this number is taken up."""
        self._words[PLACE] = 0
        self._words[TASK] = task

    def at(self, position: int) -> None:
        """Note that the item at *position* of the chunk is run now."""
        self._words[PLACE] = position + 1

    def read(self) -> Progress:
        """Return how far the worker came."""
        return Progress(self._words[TASK], self._words[PLACE] - 1)

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._memory.close()


def offer(sock: socket.socket) -> Journal | None:
    """Make a journal for the worker behind *sock* and send it there; `None` where none can be."""
    if not CAN_SHARE:
        return None
    with _new_memory() as fd:
        journal = Journal(fd)
        try:
            socket.send_fds(sock, [GREETING], [fd])
        except OSError:  # the worker is gone; reading its channel will say so
            journal.close()
            return None
    return journal


def accept(sock: socket.socket) -> Journal | None:
    """Return the journal that the caller sent; `None` where none can be."""
    if not CAN_SHARE:
        return None
    greeting, fds, *_ = socket.recv_fds(sock, len(GREETING), 1)
    if greeting != GREETING or not fds:
        raise EOFError
    try:
        return Journal(fds[0])
    finally:
        os.close(fds[0])


@contextmanager
def _new_memory() -> Iterator[int]:
    """Give a descriptor of memory without a name, closed at the end of the block."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("parallel_facade-journal", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        os.ftruncate(fd, WORDS * WORD_BYTES)
        yield fd
    finally:
        os.close(fd)
