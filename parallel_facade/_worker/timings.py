"""The data of a timeline: what was done where, and when.

    caller's thread   ─ pack ─┐                                        ┌─ unpack ─
                              └ submitted ─► received, rebuilt, ran ───┘
                                             worker: one `ChunkTimes` each

All times are seconds since the epoch, because machines have that clock in common.
"""

from __future__ import annotations

import os
import pickle
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from parallel_facade._common.plain_data import PROTOCOL
from parallel_facade._common.threads import ThreadVariable

NOTED_SECONDS: Final = 50e-6
"""Items that run for less are counted with their chunk, and not noted one by one: otherwise a
timeline would be larger than the data that it describes."""

PACK_CALLABLE: Final = "pack the callable"
PACK: Final = "pack"
UNPACK: Final = "unpack"


class TimedStep(NamedTuple):
    """A step that the caller's thread did for a call.

    Attributes:
        what: `PACK_CALLABLE`, `PACK` or `UNPACK`.
        began: When it began.
        ended: When it ended.
        first: The index of the first item; 0 for the callable.
        items: How many items the step handled.
        size: How many bytes were sent or received; 0 if objects are passed unchanged.
        thread: The thread that did it.
    """

    what: str
    began: float
    ended: float
    first: int
    items: int
    size: int
    thread: int


class Loss(NamedTuple):
    """Items that a worker did not report, because it was lost or stopped.

    Attributes:
        first: The index of the first item.
        items: How many items were lost.
        at: When the caller noticed the loss.
        why: The error, in a line.
    """

    first: int
    items: int
    at: float
    why: str


class WorkerLane(NamedTuple):
    """A worker that runs chunks, one at a time.

    Attributes:
        host: The name of the machine.
        pid: The process.
        thread: The thread, if the process has several that run chunks; else 0.
        name: The name for a reader.
        ready_since: When the worker's process had started; 0 for a thread.
    """

    host: str
    pid: int
    thread: int
    name: str
    ready_since: float


class ItemTimes(NamedTuple):
    """When an item began and ended."""

    item: int
    began: float
    ended: float


class ChunkTimes(NamedTuple):
    """The times of a chunk in a worker.

    Attributes:
        lane: The worker.
        first: The index of the first item.
        items: How many items were run.
        received: When the worker had the chunk.
        callable_ready: When the callable was ready; it is rebuilt for the worker's first chunk.
        arguments_ready: When the items were ready.
        ran: When the last item had ended.
        encoded: When the outcomes could be sent.
        applied: Seconds in the function itself, while the items ran. The rest of that time is for
            the returned values, which are serialized item by item.
        cpu: CPU seconds of the worker's thread while the items ran.
        noted: Items that ran for at least `NOTED_SECONDS`.
    """

    lane: WorkerLane
    first: int
    items: int
    received: float
    callable_ready: float
    arguments_ready: float
    ran: float
    encoded: float
    applied: float
    cpu: float
    noted: list[ItemTimes]


MARK: Final = b"T"
"""Prefix of a record of a chunk's times; other records are pickles, which begin differently."""


def is_times(record: bytes) -> bool:
    """Return whether *record* is about a chunk's times."""
    return record.startswith(MARK)


def unpack_times(record: bytes) -> ChunkTimes:
    """Return a worker's times of a chunk from *record*."""
    lane, times, noted = pickle.loads(record[len(MARK) :])
    return ChunkTimes._make([WorkerLane(*lane), *times, [ItemTimes(*one) for one in noted]])


is_inside: Final = ThreadVariable("parallel_facade_timeline", False)
"""Whether this thread runs an item with noted times. Calls that the item makes are part of it."""


class Stopwatch:
    """Measures the times of one chunk in a worker.

    Args:
        send_record: Takes the times; `None` if they are not wanted.
        ready_since: When the worker's process had started; 0 if the process is not ours.
    """

    def __init__(
        self, send_record: Callable[[bytes], object] | None, ready_since: float = 0.0
    ) -> None:
        self._send_record_now = send_record
        self._ready_since = ready_since
        self._marks: list[float] = []
        self._noted: list[tuple[int, float, float]] = []
        self._applied = self._cpu = 0.0
        self.mark()

    @property
    def is_running(self) -> bool:
        """Whether the times are wanted."""
        return self._send_record_now is not None

    def mark(self) -> None:
        """Note that the next part of the work begins."""
        if self._send_record_now is not None:
            self._marks.append(time.time())

    def note(self, index: int, began: float, ended: float) -> None:
        """Note an item; its index is noted only if it has run for long enough."""
        self._applied += ended - began
        if ended - began >= NOTED_SECONDS:
            self._noted.append((index, began, ended))

    def begin_items(self) -> None:
        """Note that the items begin to run."""
        if self._send_record_now is not None:
            self.mark()
            self._token = is_inside.set(True)
            self._cpu = time.thread_time()

    def end_items(self) -> None:
        """Note that the last item has ended."""
        if self._send_record_now is not None:
            self._cpu = time.thread_time() - self._cpu
            is_inside.reset(self._token)
            self.mark()

    def reported(self, first: int, items: int) -> None:
        """Send the times of a chunk that begins at index *first*; *items* of its items were run."""
        if self._send_record_now is None:
            return
        self.mark()
        thread = threading.current_thread()
        lane = (
            (socket.gethostname(), os.getpid(), 0, f"worker {os.getpid()}", self._ready_since)
            if self._ready_since
            else (socket.gethostname(), os.getpid(), thread.ident, thread.name, 0.0)
        )
        times = (first, items, *self._marks, self._applied, self._cpu)
        self._send_record_now(MARK + pickle.dumps((lane, times, self._noted), PROTOCOL))
