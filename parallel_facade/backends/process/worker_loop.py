"""The worker side: one long-running call of the pathos pool that talks to the caller itself.

    pathos pool ──apipe(serve)──► serve ── channel ──► manager thread
                                    └─ START? READY! (CALL* TASK? REPORT!)* until the channel ends

Guarantees:
    - When the caller closes the channel, `serve` returns and this process exits. When the caller
      dies, this process is killed at once.
    - No exception of a task ends the worker. If the process exits, the caller sees the end of the
      channel.
"""

from __future__ import annotations

import errno
import io
import pickle
import random
import socket
import sys
import threading
import traceback
from collections import deque
from contextlib import nullcontext, suppress
from typing import Any, Final

from multiprocess import process

from parallel_facade._common.call_ids import new_call_id
from parallel_facade._common.errors import ConfigurationError
from parallel_facade._common.plain_data import PROTOCOL
from parallel_facade._common.worker_role import make_process_a_worker, note_ready
from parallel_facade._configuration.settings import forget_settings
from parallel_facade._console.capture import note_inherited
from parallel_facade._serialization.buffers.shared_memory import (
    CAN_SHARE,
    Returned,
    SegmentPool,
    SharedSegment,
)
from parallel_facade._serialization.encoder import Encoder, Payload
from parallel_facade._worker.loaded_call import LoadedCall, run_initializer
from parallel_facade._worker.outcomes import Received, captured, encode_unread
from parallel_facade._worker.run_chunk import THE_INITIALIZER
from parallel_facade.backends.base import WorkerSettings
from parallel_facade.backends.process.descriptor_handover import WorkerSide, receive_descriptors
from parallel_facade.backends.process.parent_death import die_with_parent
from parallel_facade.backends.process.protocol import (
    TASK_HEAD,
    Message,
    MessageReader,
    MessageType,
    pack_returned,
    send_message,
    unpack_returned,
)
from parallel_facade.backends.process.starting.bootstrap import ignore_interrupts
from parallel_facade.backends.process.startup_stderr import stderr_into
from parallel_facade.backends.process.thread_limits import limit_inner_threads, variables_for


def serve() -> None:
    """Run the caller's tasks until it closes the channel."""
    ignore_interrupts()
    make_process_a_worker()
    forget_settings()
    _forget_parents_randomness()
    note_inherited()
    _write_lines_at_once()
    this: Any = process.current_process()
    channel: socket.socket = this.channel
    with channel:
        try:
            _Conversation(channel, receive_descriptors(channel)).run()
        except BaseException as exc:
            if isinstance(exc, EOFError) or getattr(exc, "errno", None) in CHANNEL_ENDED:
                return
            # Our own bug, or no memory. The pool would return the error to nobody.
            traceback.print_exc()
            raise


def _write_lines_at_once() -> None:
    """Write what tasks print line by line, also to a file or pipe.

    The last words of a worker that dies are those that are needed.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def _flush_output() -> None:
    """Write lines that have not ended."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a task may have closed or replaced it
            stream.flush()


def _forget_parents_randomness() -> None:
    """Use fresh entropy: a forked worker would repeat the caller's random numbers."""
    random.seed()
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def start_body(settings: WorkerSettings) -> bytes:
    """Return the body of the START message for a worker."""
    limits = settings.max_tasks_per_worker, settings.max_memory_per_worker
    variables = variables_for(settings.inner_threads)
    return pickle.dumps((settings.initializer, *limits, variables), PROTOCOL)


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)


KEPT_BY_WORKER_BYTES: Final = 32 << 20
"""Memory of results that a worker keeps for later results, once the caller has returned it. Memory
beyond that belongs to the caller alone."""

NOTHING: Final = Payload(b"")

CHANNEL_ENDED: Final = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF, errno.ENOTSOCK}
"""What the system says of a channel whose other end is closed, or that a task has closed."""


class _Conversation:
    def __init__(self, channel: socket.socket, given: WorkerSide | None) -> None:
        self._journal = None if given is None else given.journal
        self._stderr = None if given is None else given.stderr
        if given is not None:
            die_with_parent(given.parent_watch)
        self._channel = channel
        self._is_leaving = False
        self._returned: deque[Returned] = deque()  # the caller's segments, not needed here any more
        self._segments_there: dict[
            int, SharedSegment
        ] = {}  # the worker's segments that the caller has, and may return
        self._segment_pool = (
            SegmentPool(KEPT_BY_WORKER_BYTES) if CAN_SHARE and given is not None else None
        )
        self._reader = MessageReader(channel, self._returned)
        self._sending = threading.Lock()  # held while a message is sent
        self._records: deque[tuple[int, bytes]] = deque()  # not sent yet
        self._calls: dict[int, LoadedCall] = {}
        self._tasks_left = float("inf")
        self._max_memory = float("inf")

    def run(self) -> None:
        if not self._start(self._next()):
            return
        while True:
            message = self._next()
            if message.kind == MessageType.TASK:
                self._run_task(message)
                if self._is_leaving:
                    return
            elif message.kind == MessageType.CALL:
                self._calls[message.number] = LoadedCall(
                    bytes(message.body), message.mapped_segments, self._segment_pool
                )
            elif message.kind == MessageType.FORGET:
                self._calls.pop(message.number).close()
                with self._sending:
                    self._give_back()
            elif message.kind == MessageType.RETURNED:
                self._take_returned(message.body)
            del message  # so that its data does not live until the next message

    def _start(self, message: Message) -> bool:
        initializer, max_tasks, max_memory, variables = pickle.loads(message.body)
        limit_inner_threads(variables)
        self._tasks_left = max_tasks or self._tasks_left
        self._max_memory = max_memory or self._max_memory
        if initializer is not None or max_memory is not None:
            try:
                self._initialize(initializer)
            except BaseException as exc:
                encoder = Encoder(new_call_id(), "dill", returning=True)
                report = encode_unread(THE_INITIALIZER, captured(exc), encoder)
                self._send(MessageType.FAILED, 0, Payload(report))
                return False
        note_ready()
        self._send(MessageType.READY)
        return True

    def _initialize(self, initializer: bytes | None) -> None:
        if initializer is not None:
            with nullcontext() if self._stderr is None else stderr_into(self._stderr):
                run_initializer(initializer)
        if self._has_grown():
            raise ConfigurationError(
                f"max_memory_per_worker={self._max_memory} is less than the {resident_bytes()} "
                "bytes that a worker uses before its first task"
            )

    def _has_grown(self) -> bool:
        return self._max_memory != float("inf") and resident_bytes() > self._max_memory

    def _run_task(self, message: Message) -> None:
        number = message.number
        call_number, is_timed, first, end = TASK_HEAD.unpack_from(message.body)
        payload = Received(message.body[TASK_HEAD.size :], message.mapped_segments)

        def begin() -> None:
            if self._journal is not None:
                self._journal.begin(number)
            if is_timed:
                note_start()

        def note_start() -> None:
            self._send(MessageType.STARTED, number)

        def send_part(part: Payload) -> None:
            self._send(MessageType.PART, number, part)

        def send_record(record: bytes) -> None:
            self._send_record(number, record)

        report, count = self._calls[call_number].run(
            payload,
            *(self._journal, send_part, begin, self._tasks_left, send_record),
            note_start if is_timed else None,
            (first, end),
        )
        _flush_output()
        self._tasks_left -= count
        self._is_leaving = self._tasks_left <= 0 or self._has_grown()
        # One message carries both facts: the caller must not send a task that nobody would take.
        self._send(
            MessageType.LAST_REPORT if self._is_leaving else MessageType.REPORT, number, report
        )

    def _send(self, kind: MessageType, number: int = 0, payload: Payload = NOTHING) -> None:
        with self._sending:
            self._send_records()
            self._give_back()
            send_message(self._channel, kind, number, *payload)
        for segment in payload.segments:
            self._share(segment)

    def _send_record(self, number: int, record: bytes) -> None:
        """Send a record of task *number*, in any thread; at once, unless a message is being sent.

        1. any thread   sends a message
        2. same thread  runs garbage collection, and a `__del__` in it prints: it must not wait here
        3. any thread   sends the queued record, before its next message or with its next record
        """
        self._records.append((number, record))
        # The channel may be closed, by the task or because the caller has died.
        with suppress(OSError):
            while self._records and self._sending.acquire(blocking=False):
                try:
                    self._send_records()
                finally:
                    self._sending.release()

    def _send_records(self) -> None:
        while self._records:
            number, record = self._records.popleft()
            send_message(self._channel, MessageType.RECORD, number, record)

    def _give_back(self) -> None:
        """Send the caller the numbers of its segments that are not needed any more, if any."""
        if self._returned:
            send_message(self._channel, MessageType.RETURNED, 0, pack_returned(self._returned))

    def _share(self, segment: SharedSegment) -> None:
        """Keep *segment* until the caller returns it, or leave it to the caller alone."""
        if (
            sum(there.size for there in self._segments_there.values()) + segment.size
            > KEPT_BY_WORKER_BYTES
        ):
            segment.must_not_reuse = True
        else:
            self._segments_there[segment.number] = segment

    def _take_returned(self, body: memoryview) -> None:
        for number, must_not_reuse in unpack_returned(body):
            if (segment := self._segments_there.pop(number, None)) is not None:
                segment.must_not_reuse |= must_not_reuse

    def _next(self) -> Message:
        message = self._reader.read()
        assert message is not None, "a blocking socket has data or an end"
        return message
