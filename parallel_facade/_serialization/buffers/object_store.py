"""Send large buffers through an engine: beside the message, or in the engine's store.

    caller:  array ──first time───► OutOfBandBytes, sent with the chunk, not copied ──┐
               └─────second time──► Store.place ──► the engine's store ──┐            │
    worker:  FetchedBuffer ◄── once each, copied for each chunk ◄────────┴────────────┘

Putting a buffer into the store costs as much as sending it. So only a buffer that is met a second
time is placed: an array that many items hold.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, Final, NamedTuple

OUT_OF_BAND_BYTES: Final = 1 << 16
"""Fewer bytes are faster to copy than to keep apart."""


class OutOfBandBytes:
    """Bytes that an engine need not copy into its message, at any hop on their way.

    Args:
        data: The bytes, or a view of them.
    """

    def __init__(self, data: Any) -> None:
        self.data = data

    def __sizeof__(self) -> int:
        """Return the size with the held bytes; engines count by it what workers keep."""
        return object.__sizeof__(self) + len(self.data)

    def __bytes__(self) -> bytes:
        """Return a copy of the bytes."""
        return bytes(self.data)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Travel as a buffer beside the message, if the engine's pickler supports that."""
        if protocol < 5 or len(self.data) < OUT_OF_BAND_BYTES:
            return bytes, (bytes(self.data),)
        # Wrapped again: a scheduler that passes the bytes on pickles them again.
        return OutOfBandBytes, (pickle.PickleBuffer(self.data),)


def unwrapped(sent: Any) -> Any:
    """Return the bytes that were sent, either as `OutOfBandBytes` or as they are."""
    return sent.data if isinstance(sent, OutOfBandBytes) else sent


class BufferRef(NamedTuple):
    """A buffer of a chunk that is not in the chunk's payload.

    Attributes:
        size: Its size in bytes.
        stored: The buffer itself, or the reference that an engine's store returned for it.
    """

    size: int
    stored: Any


class Store:
    """Places buffers in an engine's store, as `SegmentPool` does in shared memory.

    Args:
        put: Puts bytes into the engine's store; returns a reference to them.
    """

    def __init__(self, put: Callable[[bytes], Any]) -> None:
        self._put = put

    def place(self, buffer: memoryview) -> BufferRef:
        """Store a copy of *buffer*; return a reference to it."""
        return BufferRef(buffer.nbytes, self._put(buffer.tobytes()))


class FetchedBuffer(NamedTuple):
    """A buffer that an engine gave to a worker; its counterpart is `MappedSegment`.

    Attributes:
        data: The buffer as the engine gave it.
    """

    data: Any

    @property
    def size(self) -> int:
        """The size in bytes."""
        return memoryview(self.data).nbytes

    def open(self) -> memoryview:
        """Return the buffer, which may be changed without effect on others."""
        view = memoryview(self.data)
        # If others also have the buffer, an engine gives it as read-only.
        return memoryview(bytearray(view)) if view.readonly else view
