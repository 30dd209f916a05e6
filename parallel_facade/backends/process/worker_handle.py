"""The caller side of one worker's channel: what was sent, what is expected, what has arrived."""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from contextlib import suppress
from itertools import chain, islice
from typing import Any, Final, NamedTuple

from parallel_facade._serialization.buffers.shared_memory import Returned, SharedSegment
from parallel_facade.backends.process.descriptor_handover import CallerSide
from parallel_facade.backends.process.journal import JournalSnapshot
from parallel_facade.backends.process.protocol import (
    JOINED_BYTES,
    Message,
    MessageReader,
    MessageType,
    descriptors,
    leader,
    pack_returned,
    unpack_returned,
)
from parallel_facade.backends.process.startup_stderr import StartupStderr
from parallel_facade.backends.process.tasks import Task


def open_end(pid: int) -> int | None:
    """Return a descriptor that is ready when process *pid* has exited; `None` if there is none.

    The channel alone does not show that: processes forked by the worker may hold its other end.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # it has exited, no descriptors are left, or the system call is missing
        return None


MOST_PARTS: Final = 64
"""Parts that are sent together; every system takes far more (IOV_MAX)."""


def _has_data(sock: socket.socket) -> bool:
    """Return whether there is data to read."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


class _Unsent(NamedTuple):
    """A part of a message, and the segments whose descriptors go with its first byte."""

    data: memoryview
    segments: tuple[SharedSegment, ...] = ()


class WorkerHandle:
    """One worker as the caller sees it.

    Assumes:
        - One thread reads; every thread that writes holds the manager thread's lock.
    """

    def __init__(self, process: Any, sock: socket.socket, kept: CallerSide | None = None) -> None:
        sock.setblocking(False)
        self._caller_side = kept
        self.startup_stderr = (
            None if kept is None or kept.stderr is None else StartupStderr(kept.stderr)
        )
        """The worker's stderr while it starts, if that is captured."""
        self.process = process
        self.end_fd = open_end(process.pid)
        """A descriptor that is ready when the process has exited, if the system supports that."""
        self.socket = sock
        self.tasks: deque[Task] = deque()
        """The task that the worker runs now, then the task that waits in its channel."""
        self.paused_since: float | None = None
        """When the worker was told to begin no further item, by the clock; `None` if it was not."""
        self.is_ready = False
        """The worker has sent that it serves."""
        self.is_leaving = False
        """The worker will take no more tasks."""
        self.stopped_for: BaseException | None = None
        """Why the worker is stopped, if it is: the error for its task."""
        self.may_run_again = True
        """The task may be given to another worker, if this worker had not begun it."""
        self.is_being_read = False
        """A thread is reading messages, or passing them on."""
        self.known_calls: set[int] = set()
        self._returned: deque[Returned] = deque()  # the worker's segments, not needed here any more
        self._segments_there: dict[
            int, list[SharedSegment]
        ] = {}  # the caller's segments that the worker has, by number
        self._reader = MessageReader(sock, self._returned)
        self._unsent: deque[_Unsent] = deque()

    def queue(
        self,
        kind: MessageType,
        number: int = 0,
        *body: bytes,
        segments: tuple[SharedSegment, ...] = (),
    ) -> None:
        """Queue a message for `flush`; it is sent together with the next one."""
        if self._returned and kind is not MessageType.RETURNED:
            self.queue(MessageType.RETURNED, 0, pack_returned(self._returned))
        for segment in segments:
            self._segments_there.setdefault(segment.number, []).append(segment)
        length = sum(map(len, body))
        head = leader(kind, number, length, segments)
        if length < JOINED_BYTES:
            self._unsent.append(_Unsent(memoryview(b"".join((head, *body))), segments))
        else:
            self._unsent.append(_Unsent(memoryview(head), segments))
            self._unsent.extend(_Unsent(memoryview(part)) for part in body if part)

    def take_returned(self, body: memoryview) -> None:
        """Release the caller's segments that the worker does not need any more."""
        for number, must_not_reuse in unpack_returned(body):
            if there := self._segments_there.get(number):
                there.pop().must_not_reuse |= must_not_reuse
                if not there:
                    del self._segments_there[number]

    def flush(self) -> None:
        """Send as much as the socket takes."""
        try:
            while self._unsent:
                self._drop_sent(self._send_together())
        except BlockingIOError:
            return
        except OSError:
            # The worker has exited; reading will show that, and everything is decided there.
            self._unsent.clear()

    def _send_together(self) -> int:
        # Each call wakes the worker: two messages in one call wake it once.
        if not hasattr(self.socket, "sendmsg"):
            return self.socket.send(self._unsent[0].data)
        parts = list(islice(self._unsent, MOST_PARTS))
        # Descriptors travel with the first byte of a call.
        end = next((at for at in range(1, len(parts)) if parts[at].segments), len(parts))
        attached = descriptors(parts[0].segments) if parts[0].segments else []
        return self.socket.sendmsg([part.data for part in parts[:end]], attached)

    def _drop_sent(self, count: int) -> None:
        while count:
            part = self._unsent.popleft()
            if count < len(part.data):
                self._unsent.appendleft(_Unsent(part.data[count:]))
                return
            count -= len(part.data)

    @property
    def task(self) -> Task | None:
        """The task that the worker runs now."""
        return self.tasks[0] if self.tasks else None

    def has_room_for(self, task: Task) -> bool:
        """Return whether *task* may wait in the channel behind the running task."""
        return (
            len(self.tasks) == 1
            and self.tasks[0].is_short
            and self.tasks[0].call is task.call
            and self._caller_side is not None  # so that it can be taken back
            and self.paused_since is None
            and self.stopped_for is None
            and not self.is_leaving
        )

    def pause(self, now: float) -> None:
        """Tell the worker to begin no further item, if it keeps a journal."""
        if self._caller_side is not None:
            self._caller_side.journal.pause()
            self.paused_since = now

    def resume(self) -> None:
        """Let the worker begin items again."""
        if self._caller_side is not None and self.paused_since is not None:
            self._caller_side.journal.resume()
            self.paused_since = None

    @property
    def is_sending(self) -> bool:
        """Whether outcomes are on their way, and cannot be counted."""
        return self._caller_side is not None and self._caller_side.journal.is_sending

    @property
    def has_unsent(self) -> bool:
        """Whether `flush` has more to do when the socket takes more."""
        return bool(self._unsent)

    def has_unread(self) -> bool:
        """Return whether the worker has sent something that was not passed on yet."""
        # In this order: data that has left the socket was read, and is being passed on.
        return _has_data(self.socket) or self.is_being_read

    def read(self) -> Message | None:
        """Return the next message, `None` if there is none; raise `EOFError` at the end."""
        return self._reader.read()

    def progress(self) -> JournalSnapshot | None:
        """Return how far the worker came, if it keeps a journal."""
        return None if self._caller_side is None else self._caller_side.journal.read()

    @property
    def is_initializing(self) -> bool:
        """Whether the worker may be running its initializer."""
        return self.startup_stderr is not None and not self.is_ready

    @property
    def pid(self) -> int:
        """The number of the worker's process."""
        return int(self.process.pid)

    def exit_code(self) -> int | None:
        """Return the exit code of the worker's process; `None` while it runs."""
        code: int | None = self.process.exitcode
        return code

    def kill(self) -> None:
        """Kill the worker's process."""
        if self.exit_code() is None:
            self.process.kill()

    def end(self, patience: float) -> int | None:
        """Return the exit code of the worker's process, killing it after *patience* seconds."""
        for is_last_try in (False, True):
            if is_last_try:
                self.kill()
            with suppress(OSError):  # the system may refuse to wait, but the code is still known
                self.process.join(patience)
            if (code := self.exit_code()) is not None:
                return code
        return None

    def close(self) -> None:
        """Close the channel, which tells the worker to exit; closing twice is fine."""
        if self.socket.fileno() >= 0:
            # shutdown: a copy of the descriptor in a forked process would keep the channel open.
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def release(self) -> None:
        """Release everything that was kept for a worker that has exited."""
        self.close()
        self._reader.close()
        for segment in chain.from_iterable(self._segments_there.values()):
            # Processes that the worker started may have outlived it, and still map the segment.
            segment.must_not_reuse = True
        self._segments_there.clear()
        self._unsent.clear()
        if self.end_fd is not None:
            os.close(self.end_fd)
            self.end_fd = None
        if self._caller_side is not None:
            self._caller_side.journal.close()
            # Closing this end kills a worker that is still alive.
            self._caller_side.parent_watch.close()
            self._caller_side = None
        if self.startup_stderr is not None:
            self.startup_stderr.close()
            self.startup_stderr = None
