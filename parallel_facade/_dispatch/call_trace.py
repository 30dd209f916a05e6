"""What one call is seen to do, while somebody makes a timeline.

Map, Submission ──steps, submissions──► CallTrace ◄──times of chunks── workers
                                           │
                                    each open `Trace`
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import get_ident
from typing import Any, Final

from parallel_facade._common.errors import described
from parallel_facade._common.worker_role import is_worker
from parallel_facade._dispatch.codecs import Codec
from parallel_facade._worker.outcomes import ChunkReport, as_received
from parallel_facade._worker.run_chunk import Call, Chunk, name_of
from parallel_facade._worker.timings import (
    PACK,
    PACK_CALLABLE,
    UNPACK,
    ChunkTimes,
    Loss,
    TimedStep,
    is_inside,
    is_times,
    unpack_times,
)
from parallel_facade.backends.base import Backend


class NullTrace:
    """Stands for the notes of a call that nobody watches."""

    def traced(self, codec: Codec) -> Codec:
        """Return *codec*."""
        return codec

    def listener(self, on_record: Callable[[bytes], object]) -> Callable[[bytes], object]:
        """Return *on_record*."""
        return on_record

    def note_submitted(self, first: int) -> None:
        """Forget it."""

    def note_lost(self, first: int, items: int, error: BaseException) -> None:
        """Forget it."""

    def note_end(self) -> None:
        """Forget it."""


class CallTrace:
    """What one call is seen to do.

    Args:
        func: The callable.
        backend: What runs it.
        workers: How many workers it may use.
    """

    def __init__(self, func: Callable[..., Any], backend: Backend, workers: int) -> None:
        self.name: str = name_of(func)
        self.sends_bytes = backend.capabilities.needs_serialization
        self.workers = workers
        self.began = time.time()
        self.ended: float | None = None
        """When it was over; `None` as long as it is not."""
        self.steps: list[TimedStep] = []
        self.submissions: list[tuple[int, float]] = []
        """The first item of each chunk that was submitted, and when."""
        self.losses: list[Loss] = []
        self._times: list[bytes] = []

    def take_times(self, record: bytes) -> None:
        """Take what a worker has said of a chunk; in any thread. What is over, is over."""
        if self.ended is None:
            self._times.append(record)

    def traced(self, codec: Codec) -> Codec:
        """Return what does as *codec*, and has it noted."""
        return TracedCodec(codec, self)

    def listener(self, on_record: Callable[[bytes], object]) -> Callable[[bytes], object]:
        """Return what takes remarks about times, and gives all others to *on_record*."""

        def listen(record: bytes) -> None:
            (self.take_times if is_times(record) else on_record)(record)

        return listen

    def note_submitted(self, first: int) -> None:
        """Note that the chunk that begins with item *first* is the back-end's."""
        self.submissions.append((first, time.time()))

    def note_lost(self, first: int, items: int, error: BaseException) -> None:
        """Note that *items* from item *first* on were lost with a worker, or stopped."""
        if self.ended is None:
            self.losses.append(Loss(first, items, time.time(), described(error)))

    def note_end(self) -> None:
        """Note that the call is over."""
        if self.ended is None:
            self.ended = time.time()

    @property
    def chunks(self) -> list[ChunkTimes]:
        """What workers have done so far."""
        return sorted((unpack_times(one) for one in self._times), key=lambda one: one.received)


class TracedCodec:
    """Notes what a carrier does, and how long it takes.

    Args:
        codec: Does it.
        trace: Takes the notes.
    """

    def __init__(self, codec: Codec, trace: CallTrace) -> None:
        self._codec = codec
        self._trace = trace

    def pack_call(self, call: Call) -> Any:
        """Have *call* packed, and its workers say what they do."""
        began = time.time()
        try:
            packed = self._codec.pack_call(call._replace(take_times=self._trace.take_times))
        except BaseException:
            self._trace.note_end()  # before there is anything that could
            raise
        size = self._codec.size_of(packed)
        self._trace.steps.append(
            TimedStep(PACK_CALLABLE, began, time.time(), 0, 0, size, get_ident())
        )
        return packed

    def pack_chunk(self, chunk: Chunk) -> Any:
        """Have *chunk* packed."""
        began = time.time()
        packed = self._codec.pack_chunk(chunk)
        size = self._codec.size_of(packed)
        self._trace.steps.append(
            TimedStep(PACK, began, time.time(), chunk.first, len(chunk.items), size, get_ident())
        )
        return packed

    def size_of(self, packed: Any) -> int:
        """Return the bytes of what was packed."""
        return self._codec.size_of(packed)

    def deduplicate_buffers(self) -> None:
        """Have buffers placed once."""
        self._codec.deduplicate_buffers()

    def unpack(self, received: Any, known: int = 0) -> ChunkReport:
        """Have a report unpacked."""
        began = time.time()
        report = self._codec.unpack(received, known)
        # What was known has come before, out of a journal.
        items = max(0, len(report.values) - known)
        share = items / max(1, len(report.values))
        size = round(sum(map(_size, received)) * share) if self._trace.sends_bytes else 0
        self._trace.steps.append(
            TimedStep(UNPACK, began, time.time(), known, items, size, get_ident())
        )
        return report

    def has_failures(self, received: Any) -> bool:
        """Return whether anything failed."""
        return self._codec.has_failures(received)

    def first_failure(self, received: Any) -> str:
        """Return the first failure's traceback."""
        return self._codec.first_failure(received)


def _size(part: Any) -> int:
    received = as_received(part)
    return len(received.data) + sum(
        int(mapped_segment.size) for mapped_segment in received.mapped_segments
    )


NULL_TRACE: Final = NullTrace()

Listener = Callable[[CallTrace], object]

listeners: Final[list[Listener]] = []
"""Called with each call that begins; a watcher that is added sees what begins from then on."""


def trace_call(func: Callable[..., Any], backend: Backend, workers: int) -> CallTrace | NullTrace:
    """Return what takes notes of a call that begins, or forgets them if nobody watches.

    Calls that a task makes are a part of the task.
    """
    if not listeners or is_worker() or is_inside.get():
        return NULL_TRACE
    trace = CallTrace(func, backend, workers)
    for listen in list(listeners):
        listen(trace)
    return trace
