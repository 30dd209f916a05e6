"""Messages on a worker's channel: a fixed header, then a body of the length it gives.

    ┌───────┬──────┬────────┬────────┬───────────┐
    │ magic │ kind │ number │ length │ body …    │
    └───────┴──────┴────────┴────────┴───────────┘

    caller → worker   START settings · CALL number, payload · TASK number, head + payload · FORGET
    worker → caller   READY · FAILED report · STARTED number · PART number, outcomes
                      REPORT or LAST_REPORT number, the other outcomes

Assumes:
    - Both ends are this library in the same version, of one user: the channel is an anonymous pair
      of sockets, made by the caller and given to the process that it starts.
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("<2sBQQ")
MAGIC: Final = b"\xf1\xac"
"""Leads each message: what a task writes to a descriptor that is not its own has something else."""
JOINED_BYTES: Final = 1 << 14
"""A smaller body is sent together with its header, which saves the receiver a wake-up; a larger
one is not worth the copy."""

TASK_HEAD: Final = struct.Struct("<Q?")
"""Leads the body of a TASK: the call that it belongs to, and whether to say STARTED."""


class Kind(IntEnum):
    """What a message says."""

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


class GarbageError(Exception):
    """What arrived is no message."""


class Frame(NamedTuple):
    """One message."""

    kind: Kind
    number: int
    body: bytearray


class FrameReader:
    """Puts frames together from what a socket has ready, without copying a body twice."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._header = bytearray(HEADER.size)
        self._missing = memoryview(self._header)
        self._frame: Frame | None = None

    def read(self) -> Frame | None:
        """Return the next frame; `None` if the rest of it has not arrived.

        Raises:
            EOFError: The other end is closed.
            GarbageError: What arrived is no message; there is no way to find the next one.
            BlockingIOError: Never; a non-blocking socket without data gives `None`.
        """
        while True:
            while self._missing:
                try:
                    count = self._socket.recv_into(self._missing)
                except BlockingIOError:
                    return None
                except OSError as exc:
                    raise EOFError from exc
                if count == 0:
                    raise EOFError
                self._missing = self._missing[count:]
            if self._frame is None:
                self._frame = _begun(self._header)
                self._start(self._frame.body)
            else:
                frame, self._frame = self._frame, None
                self._start(self._header)
                return frame

    def _start(self, buffer: bytearray) -> None:
        self._missing = memoryview(buffer)


def header(kind: Kind, number: int, length: int) -> bytes:
    """Return what leads a message."""
    return HEADER.pack(MAGIC, kind, number, length)


def _begun(data: bytearray) -> Frame:
    magic, kind, number, length = HEADER.unpack(data)
    try:
        if magic != MAGIC:
            raise ValueError
        return Frame(Kind(kind), number, bytearray(length))
    except ValueError:
        raise GarbageError(f"{bytes(data)!r} does not lead a message") from None
    except (OverflowError, MemoryError):
        raise GarbageError(f"there is no memory for a message of {length} bytes") from None


def send_frame(sock: socket.socket, kind: Kind, number: int = 0, body: bytes = b"") -> None:
    """Send a whole frame on a blocking socket."""
    head = header(kind, number, len(body))
    if len(body) < JOINED_BYTES:
        sock.sendall(head + body)
    else:
        sock.sendall(head)
        sock.sendall(body)
