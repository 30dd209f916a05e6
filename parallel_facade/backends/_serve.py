"""The worker's end: one long-running call of the pathos pool that talks to the caller itself.

    pathos pool ──apipe(serve)──► serve ── channel ──► switchboard
                                    └─ START? READY! (CALL* TASK? REPORT!)* until the channel ends

Guarantees:
    - `serve` ends when the caller closes the channel or dies, and then so does this process.
    - Nothing that a task raises ends the worker; what ends the process is seen by the caller as
      the end of the channel.
"""

from __future__ import annotations

import pickle
import random
import signal
import socket
import sys
from typing import Any

from multiprocess import process

from parallel_facade._outcomes import Report, captured, encode_report
from parallel_facade._payload import Encoder
from parallel_facade._plain import PROTOCOL
from parallel_facade._scopes import new_scope
from parallel_facade._worker import OpenCall, make_process_a_worker, run_initializer
from parallel_facade.backends._frames import CALL_NUMBER, Frame, FrameReader, Kind, send_frame
from parallel_facade.backends._journal import Journal, accept


def serve() -> None:
    """Run the caller's tasks until it closes the channel."""
    # Ctrl-C reaches every process of the terminal: the caller decides what it means for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    make_process_a_worker()
    _forget_parents_randomness()
    this: Any = process.current_process()
    channel: socket.socket = this.channel
    with channel:
        try:
            _Conversation(channel, accept(channel)).run()
        except (EOFError, ConnectionError):
            return


def _forget_parents_randomness() -> None:
    """Start from fresh entropy: a forked worker would repeat the caller's random numbers."""
    random.seed()
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def start_body(initializer: bytes | None, max_tasks: int | None) -> bytes:
    """Return the body of the message that starts a worker's conversation."""
    return pickle.dumps((initializer, max_tasks), PROTOCOL)


class _Conversation:
    def __init__(self, channel: socket.socket, journal: Journal | None) -> None:
        self._journal = journal
        self._channel = channel
        self._frames = FrameReader(channel)
        self._calls: dict[int, OpenCall] = {}
        self._tasks_left: float = float("inf")

    def run(self) -> None:
        if not self._start(self._next()):
            return
        while True:
            frame = self._next()
            if frame.kind == Kind.TASK:
                self._run_task(frame)
                if self._tasks_left <= 0:
                    return
            elif frame.kind == Kind.CALL:
                self._calls[frame.number] = OpenCall(bytes(frame.body))
            elif frame.kind == Kind.FORGET:
                self._calls.pop(frame.number).close()

    def _start(self, frame: Frame) -> bool:
        initializer, max_tasks = pickle.loads(frame.body)
        self._tasks_left = float("inf") if max_tasks is None else max_tasks
        if initializer is not None:
            try:
                run_initializer(initializer)
            except BaseException as exc:
                report = Report([None], {0: captured(exc)})
                encoder = Encoder(new_scope(), "dill", returning=True)
                send_frame(self._channel, Kind.FAILED, 0, encode_report(report, encoder))
                return False
        send_frame(self._channel, Kind.READY)
        return True

    def _run_task(self, frame: Frame) -> None:
        note = None
        if self._journal is not None:
            self._journal.begin(frame.number)
            note = self._journal.at
        (call_number,) = CALL_NUMBER.unpack_from(frame.body)
        payload: Any = memoryview(frame.body)[CALL_NUMBER.size :]
        report, count = self._calls[call_number].run(payload, note)
        self._tasks_left -= count
        # One message says both: the caller must not send a task that nobody will take.
        kind = Kind.REPORT if self._tasks_left > 0 else Kind.LAST_REPORT
        send_frame(self._channel, kind, frame.number, report)

    def _next(self) -> Frame:
        frame = self._frames.read()
        assert frame is not None, "a blocking socket has data or an end"
        return frame
