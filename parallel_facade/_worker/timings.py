"""What a timeline is made of: what was done where, and when.

    caller's thread   ─ pack ─┐                                        ┌─ unpack ─
                              └ submitted ─► received, rebuilt, ran ───┘
                                             worker: one `ChunkTimes` each

All times are seconds since the epoch: the clock that machines have in common.
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
"""Items that run for less are counted with their chunk, and not noted one by one: a timeline would
be larger than what it is about."""

PACK_CALLABLE: Final = "pack the callable"
PACK: Final = "pack"
UNPACK: Final = "unpack"


class TimedStep(NamedTuple):
    """Something that the caller's thread did for a call.

    Attributes:
        what: `PACK_CALLABLE`, `PACK` or `UNPACK`.
        began: When it began.
        ended: When it ended.
        first: The index of the first item; 0 for the callable.
        items: How many items it was about.
        size: How many bytes were sent or had come; 0 where objects stay what they are.
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
    """Items of which a worker has told nothing, since it was lost or stopped.

    Attributes:
        first: The index of the first.
        items: How many they are.
        at: When the caller knew of it.
        why: The error, in a line.
    """

    first: int
    items: int
    at: float
    why: str


class WorkerLane(NamedTuple):
    """Who runs chunks, one at a time.

    Attributes:
        host: The name of the machine.
        pid: The process.
        thread: The thread, where the process has several that run chunks; else 0.
        name: What a reader calls it.
        ready_since: When the worker's process had started; 0 for a thread.
    """

    host: str
    pid: int
    thread: int
    name: str
    ready_since: float


class ItemTimes(NamedTuple):
    """When an item began and ended to run."""

    item: int
    began: float
    ended: float


class ChunkTimes(NamedTuple):
    """What a worker did with a chunk.

    Attributes:
        lane: The worker.
        first: The index of the first item.
        items: How many items were run.
        received: When the worker had it.
        callable_ready: When the callable was there; rebuilt, if it was the worker's first chunk.
        arguments_ready: When the items were.
        ran: When the last item had ended.
        encoded: When the outcomes could be sent.
        applied: Seconds that the function itself took, of those in which the items ran. The rest
            is for what they returned, which is serialized item by item.
        cpu: Seconds that the worker's thread computed while the items ran.
        noted: Items that ran for `NOTED_SECONDS` at least.
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
"""Leads what a worker says of a chunk's times; other remarks are pickles, which begin otherwise."""


def is_times(record: bytes) -> bool:
    """Return whether *record* is about a chunk's times."""
    return record.startswith(MARK)


def unpack_times(record: bytes) -> ChunkTimes:
    """Return what a worker has said of a chunk."""
    lane, times, noted = pickle.loads(record[len(MARK) :])
    return ChunkTimes._make([WorkerLane(*lane), *times, [ItemTimes(*one) for one in noted]])


is_inside: Final = ThreadVariable("parallel_facade_timeline", False)
"""Whether an item runs whose times are noted. What it calls is a part of it."""


class Stopwatch:
    """Notes when a worker did what with one chunk.

    Args:
        send_record: Takes what it was; `None` if nobody wants to know.
        ready_since: When the worker's process had started; 0 if it is none of ours.
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
        """Whether somebody wants to know."""
        return self._send_record_now is not None

    def mark(self) -> None:
        """Note that the next part of the work begins."""
        if self._send_record_now is not None:
            self._marks.append(time.time())

    def note(self, index: int, began: float, ended: float) -> None:
        """Note an item; by its index only if it has run for long enough."""
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
        """Say it, of a chunk whose first item has index *first* and of which *items* were run."""
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
