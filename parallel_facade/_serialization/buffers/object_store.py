"""Large buffers on their way through an engine: beside the message, or in the engine's store.

    caller:  array ──first time───► Parcel, which goes with the chunk and is not copied ──┐
               └─────second time──► Store.place ──► the engine's store ──┐                │
    worker:  Fetched ◄────── once each, copied for each chunk ◄──────────┴────────────────┘

To put a buffer into the store costs as much as to send it. So only what is met a second time is
placed: an array that many items hold.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, Final, NamedTuple

OUT_OF_BAND_BYTES: Final = 1 << 16
"""Fewer bytes are copied sooner than they are kept apart."""


class OutOfBandBytes:
    """Bytes that an engine need not copy into its message, at no station on their way.

    Args:
        data: The bytes, or a view of them.
    """

    def __init__(self, data: Any) -> None:
        self.data = data

    def __sizeof__(self) -> int:
        """Return the bytes that it holds, by which engines count what workers keep."""
        return object.__sizeof__(self) + len(self.data)

    def __bytes__(self) -> bytes:
        """Return a copy of what it holds."""
        return bytes(self.data)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Travel as a buffer beside the message, where the engine's pickler can do that."""
        if protocol < 5 or len(self.data) < OUT_OF_BAND_BYTES:
            return bytes, (bytes(self.data),)
        # As a parcel once more: a scheduler that passes it on pickles it again.
        return OutOfBandBytes, (pickle.PickleBuffer(self.data),)


def unwrapped(sent: Any) -> Any:
    """Return the bytes that were sent, in a parcel or as they are."""
    return sent.data if isinstance(sent, OutOfBandBytes) else sent


class BufferRef(NamedTuple):
    """A buffer of a chunk, which is not in the chunk's payload.

    Attributes:
        size: Its bytes.
        stored: The buffer itself, or what an engine's store gave for it.
    """

    size: int
    stored: Any


class Store:
    """Places buffers, as `SegmentPool` does in shared memory.

    Args:
        put: Puts bytes into the engine's store; returns what stands for them.
    """

    def __init__(self, put: Callable[[bytes], Any]) -> None:
        self._put = put

    def place(self, buffer: memoryview) -> BufferRef:
        """Return what stands for a copy of *buffer*."""
        return BufferRef(buffer.nbytes, self._put(buffer.tobytes()))


class FetchedBuffer(NamedTuple):
    """A stored buffer in a worker, as `MappedSegment` is a segment there.

    Attributes:
        data: What the engine gave.
    """

    data: Any

    @property
    def size(self) -> int:
        """Bytes."""
        return memoryview(self.data).nbytes

    def open(self) -> memoryview:
        """Return the buffer, which may be changed, as that changes nothing for others."""
        view = memoryview(self.data)
        # What others have too, an engine gives to be read only.
        return memoryview(bytearray(view)) if view.readonly else view
