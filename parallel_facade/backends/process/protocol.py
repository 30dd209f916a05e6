"""Messages on a worker's channel: a fixed header, then a body of the length in the header.

    ┌───────┬──────┬────────┬────────┬──────────┬────────────────────────┬────────┐
    │ magic │ kind │ number │ length │ segments │ number and size of each │ body … │
    └───────┴──────┴────────┴────────┴──────────┴────────────────────────┴────────┘
                                       their descriptors go with the first byte

    caller → worker   START settings · CALL number, payload · TASK number, head + payload · FORGET
    worker → caller   READY · FAILED report · STARTED number · PART number, outcomes
                      RECORD number, what its task has logged, printed or warned of
                      REPORT or LAST_REPORT number, the other outcomes
    both ways         RETURNED numbers of shared segments that are not needed any more

Assumes:
    - Both ends are this library in the same version, and belong to one user: the channel is an
      anonymous pair of sockets, which the caller makes and gives to the process that it starts.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, Final, NamedTuple

from parallel_facade._serialization.buffers.placer import MOST_SEGMENTS
from parallel_facade._serialization.buffers.shared_memory import (
    MappedSegment,
    Returned,
    SharedSegment,
)

HEADER: Final = struct.Struct("<2sBQQB")
SEGMENT: Final = struct.Struct("<QQ")
"""The number and the size of a shared segment."""
RETURNED: Final = struct.Struct("<Q?")
MAGIC: Final = b"\xf1\xac"
"""Starts each message; bytes that a task writes to a foreign descriptor start differently."""
JOINED_BYTES: Final = 1 << 14
"""A smaller body is sent together with its header, which saves the receiver a wake-up; a larger
body is not worth the copy."""

BUFFER_BYTES: Final = 1 << 13
"""Bytes that are received together: some small messages."""

TASK_HEAD: Final = struct.Struct("<Q?II")
"""Starts the body of a TASK: the number of its call, whether to send STARTED, the place of the
first item to run, and the place behind the last one."""


class MessageType(IntEnum):
    """The kinds of messages."""

    START = 1
    CALL = 2
    TASK = 3
    FORGET = 4
    READY = 5
    FAILED = 6
    REPORT = 7
    LAST_REPORT = 8
    STARTED = 9
    PART = 10
    RETURNED = 11
    RECORD = 12


class GarbageError(Exception):
    """The data that arrived is not a message."""


class Message(NamedTuple):
    """One message."""

    kind: MessageType
    number: int
    body: memoryview
    mapped_segments: tuple[MappedSegment, ...] = ()


class _Begun(NamedTuple):
    """A message whose header has arrived."""

    kind: MessageType
    number: int
    segments: int
    content: bytearray


class MessageReader:
    """Assembles messages from the data of a socket.

    Small messages are received together, as many as have arrived. A large body is received into its
    own memory, without a copy.

    Args:
        sock: The channel.
        returned: Collects the shared segments that are not needed any more.
    """

    def __init__(self, sock: socket.socket, returned: deque[Returned] | None = None) -> None:
        self._socket = sock
        self._returned = deque() if returned is None else returned
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._arrived = self._buffer[:0]  # what was received and belongs to no message yet
        self._missing = self._buffer[:0]  # the part of the begun message's body that is missing
        self._begun: _Begun | None = None
        self._fds: list[int] = []

    def read(self) -> Message | None:
        """Return the next message; `None` if the rest of it has not arrived.

        Raises:
            EOFError: The other end is closed.
            GarbageError: The data is not a message; there is no way to find the next message.
            BlockingIOError: Never; a non-blocking socket without data returns `None`.
        """
        while True:
            try:
                if self._begun is None and not self._begin():
                    self._receive_some()
                    continue
                if self._missing:
                    self._missing = self._missing[self._receive(self._missing) :]
                    continue
            except BlockingIOError:
                return None
            if (begun := self._begun) is not None:
                self._begun = None
                return self._message(begun)

    def close(self) -> None:
        """Release what has arrived of an incomplete message."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _begin(self) -> bool:
        """Begin the next message, if its header has arrived, with what has arrived of its body."""
        if len(self._arrived) < HEADER.size:
            return False
        self._begun = _begun(self._arrived[: HEADER.size])
        content = memoryview(self._begun.content)
        body = self._arrived[HEADER.size : HEADER.size + len(content)]
        content[: len(body)] = body
        self._missing = content[len(body) :]
        self._arrived = self._arrived[HEADER.size + len(body) :]
        return True

    def _receive_some(self) -> None:
        """Receive what has arrived, behind the beginning of a header."""
        count = len(self._arrived)
        self._buffer[:count] = bytes(self._arrived)
        self._arrived = self._buffer[:count]
        self._arrived = self._buffer[: count + self._receive(self._buffer[count:])]

    def _receive(self, into: memoryview) -> int:
        try:
            count = self._receive_now(into)
        except BlockingIOError:
            raise
        except OSError as exc:
            raise EOFError from exc
        if count == 0:
            raise EOFError
        return count

    def _receive_now(self, into: memoryview) -> int:
        # Descriptors arrive with the first byte of a message, and in the order of the messages. So
        # none arrive while the rest of a body is received.
        if not CAN_RECEIVE_DESCRIPTORS or self._begun is not None:
            return self._socket.recv_into(into)
        count, attached, *_ = self._socket.recvmsg_into(
            [into], ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, data in attached:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                self._fds += fds
        return count

    def _message(self, begun: _Begun) -> Message:
        content, end = memoryview(begun.content), begun.segments * SEGMENT.size
        table, body = content[:end], content[end:]
        fds, self._fds = self._fds[: begun.segments], self._fds[begun.segments :]
        mapped_segments = tuple(
            MappedSegment(fd, number, size, self._returned)
            for fd, (number, size) in zip(fds, SEGMENT.iter_unpack(table), strict=False)
        )
        if len(mapped_segments) < begun.segments:
            raise GarbageError("no file descriptor was left for a buffer in shared memory")
        return Message(begun.kind, begun.number, body, mapped_segments)


CAN_RECEIVE_DESCRIPTORS: Final = hasattr(socket, "MSG_CMSG_CLOEXEC")
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(MOST_SEGMENTS * 4) if CAN_RECEIVE_DESCRIPTORS else 0


def leader(
    kind: MessageType, number: int, length: int, segments: Iterable[SharedSegment] = ()
) -> bytes:
    """Return the start of a message whose body has *length* bytes: header and segment table."""
    table = b"".join(SEGMENT.pack(segment.number, segment.size) for segment in segments)
    length += len(table)
    return HEADER.pack(MAGIC, kind, number, length, len(table) // SEGMENT.size) + table


def descriptors(segments: Iterable[SharedSegment]) -> list[tuple[int, int, Any]]:
    """Return the ancillary data for the first byte of a message."""
    fds = array.array("i", (segment.fd for segment in segments))
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]


def pack_returned(returned: deque[Returned]) -> bytes:
    """Return the body of a RETURNED message for all entries in *returned*, and empty *returned*."""
    packed = []
    while returned:
        packed.append(RETURNED.pack(*returned.popleft()))
    return b"".join(packed)


def unpack_returned(body: memoryview) -> list[Returned]:
    """Return the entries in the body of a RETURNED message."""
    return [
        Returned(number, must_not_reuse) for number, must_not_reuse in RETURNED.iter_unpack(body)
    ]


def _begun(data: memoryview) -> _Begun:
    magic, kind, number, length, segments = HEADER.unpack(data)
    try:
        if magic != MAGIC or segments * SEGMENT.size > length:
            raise ValueError
        return _Begun(MessageType(kind), number, segments, bytearray(length))
    except ValueError:
        raise GarbageError(f"{bytes(data)!r} is not the header of a message") from None
    except (OverflowError, MemoryError):
        raise GarbageError(f"not enough memory for a message of {length} bytes") from None


def send_message(
    sock: socket.socket,
    kind: MessageType,
    number: int = 0,
    body: bytes = b"",
    segments: tuple[SharedSegment, ...] = (),
) -> None:
    """Send a whole message on a blocking socket."""
    head = leader(kind, number, len(body), segments)
    if segments:
        sent = sock.sendmsg([head], descriptors(segments))
        sock.sendall(head[sent:] + body)
    elif len(body) < JOINED_BYTES:
        sock.sendall(head + body)
    else:
        sock.sendall(head)
        sock.sendall(body)
