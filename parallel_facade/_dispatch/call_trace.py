"""Records what one call does, while a timeline is made.

MapRun, BackgroundCall ──steps, submissions──► CallTrace ◄──times of chunks── workers
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
    """A trace that records nothing, for a call without a timeline."""

    def traced(self, codec: Codec) -> Codec:
        """Return *codec*."""
        return codec

    def listener(self, on_record: Callable[[bytes], object]) -> Callable[[bytes], object]:
        """Return *on_record*."""
        return on_record

    def note_submitted(self, first: int, at: float | None = None) -> None:
        """Do nothing."""

    def note_lost(self, first: int, items: int, error: BaseException) -> None:
        """Do nothing."""

    def note_end(self) -> None:
        """Do nothing."""


class CallTrace:
    """Records what one call does.

    Args:
        func: The callable.
        backend: The back-end that runs it.
        workers: How many workers it may use.
    """

    def __init__(self, func: Callable[..., Any], backend: Backend, workers: int) -> None:
        self.name: str = name_of(func)
        self.sends_bytes = backend.capabilities.needs_serialization
        self.workers = workers
        self.began = time.time()
        self.ended: float | None = None
        """When the call ended; `None` before that."""
        self.steps: list[TimedStep] = []
        self.submissions: list[tuple[int, float]] = []
        """The first item of each chunk that was submitted, and when."""
        self.losses: list[Loss] = []
        self._times: list[bytes] = []

    def take_times(self, record: bytes) -> None:
        """Take a worker's times of a chunk, in any thread; ignore them after the call has ended."""
        if self.ended is None:
            self._times.append(record)

    def traced(self, codec: Codec) -> Codec:
        """Return a codec that works like *codec* and records its steps here."""
        return TracedCodec(codec, self)

    def listener(self, on_record: Callable[[bytes], object]) -> Callable[[bytes], object]:
        """Return a listener that takes records of times and passes all others to *on_record*."""

        def listen(record: bytes) -> None:
            (self.take_times if is_times(record) else on_record)(record)

        return listen

    def note_submitted(self, first: int, at: float | None = None) -> None:
        """Note that the chunk that begins with item *first* is submitted, now or at time *at*."""
        self.submissions.append((first, time.time() if at is None else at))

    def note_lost(self, first: int, items: int, error: BaseException) -> None:
        """Note that *items* items, from *first* on, were lost with a worker, or stopped."""
        if self.ended is None:
            self.losses.append(Loss(first, items, time.time(), described(error)))

    def note_end(self) -> None:
        """Note that the call has ended."""
        if self.ended is None:
            self.ended = time.time()

    @property
    def chunks(self) -> list[ChunkTimes]:
        """The times of the chunks that workers have reported so far."""
        return sorted((unpack_times(one) for one in self._times), key=lambda one: one.received)


class TracedCodec:
    """Records what a codec does, and how long it takes.

    Args:
        codec: Does the work.
        trace: Takes the records.
    """

    def __init__(self, codec: Codec, trace: CallTrace) -> None:
        self._codec = codec
        self._trace = trace

    def pack_call(self, call: Call) -> Any:
        """Pack *call*, and make workers report their times."""
        began = time.time()
        try:
            packed = self._codec.pack_call(call._replace(take_times=self._trace.take_times))
        except BaseException:
            self._trace.note_end()  # no other object exists yet that could
            raise
        size = self._codec.size_of(packed)
        self._trace.steps.append(
            TimedStep(PACK_CALLABLE, began, time.time(), 0, 0, size, get_ident())
        )
        return packed

    def pack_chunk(self, chunk: Chunk) -> Any:
        """Pack *chunk*."""
        began = time.time()
        packed = self._codec.pack_chunk(chunk)
        size = self._codec.size_of(packed)
        self._trace.steps.append(
            TimedStep(PACK, began, time.time(), chunk.first, len(chunk.items), size, get_ident())
        )
        return packed

    def size_of(self, packed: Any) -> int:
        """Return the size of *packed* in bytes."""
        return self._codec.size_of(packed)

    def deduplicate_buffers(self) -> None:
        """Send a buffer that many items hold only once."""
        self._codec.deduplicate_buffers()

    def forget_callable(self) -> None:
        """Release the callable."""
        self._codec.forget_callable()

    def unpack(self, received: Any, known: int = 0) -> ChunkReport:
        """Unpack a report."""
        began = time.time()
        report = self._codec.unpack(received, known)
        # The known outcomes came earlier, from a journal.
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
"""Called with each call that begins; a new listener sees only calls that begin after that."""


def trace_call(func: Callable[..., Any], backend: Backend, workers: int) -> CallTrace | NullTrace:
    """Return a trace for a call that begins; a null trace if there are no listeners.

    Calls that a task makes are a part of the task.
    """
    if not listeners or is_worker() or is_inside.get():
        return NULL_TRACE
    trace = CallTrace(func, backend, workers)
    for listen in list(listeners):
        listen(trace)
    return trace
