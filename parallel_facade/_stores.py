"""Large buffers in the object store of an engine: put there once, fetched once by each worker.

    caller:  array ──second time──► Store.place ──► the engine's store
    worker:                            Fetched ◄──────────┘   a copy for each chunk: it may change

To put a buffer there costs as much as to send it. So only what is met a second time is placed:
an array that many items hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Stored(NamedTuple):
    """A buffer in an engine's store.

    Attributes:
        size: Its bytes.
        stored: What the store gave for it, and what it is forgotten with.
    """

    size: int
    stored: Any


class Store:
    """Places buffers, as `Shelf` does in shared memory.

    Args:
        put: Puts bytes into the engine's store; returns what stands for them.
    """

    def __init__(self, put: Callable[[bytes], Any]) -> None:
        self._put = put

    def place(self, buffer: memoryview) -> Stored:
        """Return what stands for a copy of *buffer*."""
        return Stored(buffer.nbytes, self._put(buffer.tobytes()))


class Fetched(NamedTuple):
    """A stored buffer in a worker, as `Loan` is a segment there.

    Attributes:
        data: What the engine gave.
    """

    data: Any

    def open(self) -> memoryview:
        """Return the buffer, which may be changed, as that changes nothing for others."""
        return memoryview(bytearray(self.data))
