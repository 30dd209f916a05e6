"""The caller's end of one worker's channel: queued messages, lent segments, arrived messages.

Assumes:
    - One thread reads; every thread that writes holds the manager thread's lock.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, islice
from typing import Final, NamedTuple

from parallel_facade._serialization.buffers.shared_memory import Returned, SharedSegment
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

MOST_PARTS: Final = 64
"""Parts that are sent together; every system takes far more (IOV_MAX)."""


class _Unsent(NamedTuple):
    """A part of a message, and the segments whose descriptors go with its first byte."""

    data: memoryview
    segments: tuple[SharedSegment, ...] = ()


class Channel:
    """A socket to one worker.

    Args:
        sock: The socket.
        on_unsent: Called if the socket did not take all data.
    """

    def __init__(self, sock: socket.socket, on_unsent: Callable[[], object]) -> None:
        sock.setblocking(False)
        self.socket: socket.socket = sock
        self._on_unsent: Callable[[], object] = on_unsent
        self._returned: deque[Returned] = deque()  # the worker's segments, not needed here any more
        # The caller's segments that the worker has, by number.
        self._segments_there: dict[int, list[SharedSegment]] = {}
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
            self._on_unsent()
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
    def has_unsent(self) -> bool:
        """Whether `flush` has more to do when the socket takes more."""
        return bool(self._unsent)

    def has_data(self) -> bool:
        """Return whether there is data to read."""
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)
        return bool(poller.poll(0))

    def read(self) -> Message | None:
        """Return the next message, `None` if there is none; raise `EOFError` at the end."""
        return self._reader.read()

    def close(self) -> None:
        """Close the socket, which tells the worker to exit; closing twice is fine."""
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
        self._on_unsent = bool  # it refers to the owner of this channel
