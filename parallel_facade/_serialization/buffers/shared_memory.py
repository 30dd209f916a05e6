"""Large buffers in shared memory: placed once by their owner, mapped by whoever they are lent to.

    owner:     array ──copy──► Segment ──descriptor──► borrower
                                  ▲                       │ maps it, copy-on-write
               Shelf ◄── nobody refers to it any more ◄───┘ returned when the mapping is gone

A segment is memory without a name, known by descriptors only: when the last process that has it
ends or lets go of it, in whatever way, the memory is free. `/dev/shm` is not used, nor its limits.

Memory that was filled before is several times faster to fill than new memory, which the system has
to find and clear. So a shelf keeps segments that nobody has any more, for the next buffer.

Guarantees:
    - What a borrower has changed is seen by itself alone.
    - A segment is filled again only when no process can have it mapped: each borrower has said so,
      and had made no copy of itself meanwhile by `os.fork`.
    - If memory cannot be shared, `place` says so and `MappedSegment.open` copies: nothing fails.

Assumes:
    - Processes are copied by `os.fork`; one that C code forks and that runs on is not known of.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import weakref
from bisect import bisect_left, bisect_right
from collections import deque
from contextlib import suppress
from mmap import MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE
from typing import Any, Final, NamedTuple

MAP_POPULATE: Final[int] = getattr(mmap, "MAP_POPULATE", 0)

CAN_SHARE: Final = hasattr(os, "memfd_create")

PLACED_BYTES: Final = 1 << 17
"""A smaller buffer goes with the message: to make, send, map and unmap memory for it takes some
system calls on either side, and a page fault for each 64 KiB. Measured by
`benchmarks/bench_placing.py`: at this size arguments take as long either way, and results 1.6
times as long in the message; at 64 KiB the message is as fast or faster, at 1 MiB 3 to 4 times
slower."""

POOL_BYTES: Final = 256 << 20
"""Memory that a shelf keeps for the next buffers: to fill new memory takes three times as long
(100 MB: 55 ms, where a copy into memory that was filled before takes 17). It is held for as long as
the pool is open."""

SPARE_FACTOR: Final = 2
"""A kept segment is used for buffers of at least so small a part of its size."""


class _Memory:
    """Shared memory without a name, which is filled once and again."""

    def __init__(self, fd: int) -> None:
        self.fd: int = fd
        self.capacity: int = 0
        self._mapping: Any = None

    def fill(self, buffer: memoryview) -> bool:
        """Return whether it holds a copy of *buffer*; not, if there is not so much memory."""
        if 0 < buffer.nbytes <= self.capacity and self._is_mapped():
            memoryview(self._mapping).cast("B")[: buffer.nbytes] = buffer
            return True
        # New memory by writing, not by mapping: if there is none that is an error, and no signal.
        done = 0
        with suppress(OSError):
            while done < buffer.nbytes:
                done += os.pwrite(self.fd, buffer[done:], done)
        self.capacity = max(self.capacity, done)
        return done == buffer.nbytes

    def _is_mapped(self) -> bool:
        if self._mapping is None:
            # All at once: what is there needs no page faults, which take longer than the copy.
            self._mapping = _mapped(self.fd, self.capacity, MAP_SHARED | MAP_POPULATE)
        return self._mapping is not None

    def close(self) -> None:
        """Give it back; closing twice is fine."""
        if self._mapping is not None:
            _library().munmap(ctypes.addressof(self._mapping), ctypes.sizeof(self._mapping))
            self._mapping = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class SharedSegment:
    """A buffer in shared memory; given back to its shelf when the last reference goes."""

    def __init__(self, segment_pool: SegmentPool, memory: _Memory, number: int, size: int) -> None:
        self._segment_pool = segment_pool
        self._memory = memory
        self.number: int = number
        """Which filling it is; another each time."""
        self.size: int = size
        self.must_not_reuse: bool = False
        """Somebody may have it for longer than can be known: it is not filled again."""

    @property
    def fd(self) -> int:
        """A descriptor of it."""
        return self._memory.fd

    def __del__(self) -> None:
        self._segment_pool.reclaim(self._memory, must_not_reuse=self.must_not_reuse)

    def disown(self) -> None:
        """Leave the memory to the process of which this one is a copy."""
        self._memory.close()


class SegmentPool:
    """Places buffers.

    Args:
        kept_bytes: Memory to keep for the next buffers.
    """

    def __init__(self, kept_bytes: int = POOL_BYTES) -> None:
        self._kept_bytes = kept_bytes
        # Guards _kept and _number. Reentrant: a collection in `place` may take a segment back.
        self._lock = threading.RLock()
        # By a collection too, in any thread and with any lock held: so only noted there.
        self._returned: deque[_Memory] = deque()
        self._kept: list[_Memory] = []  # the smallest first
        self._number = 0
        self._is_closed = False
        _pools.add(self)

    def place(self, buffer: memoryview) -> SharedSegment | None:
        """Return a segment that holds a copy of *buffer*; `None` if there is no memory for it."""
        with self._lock:
            self._sort_in()
            memory = self._find(buffer.nbytes)
            self._number += 1
            number = self._number
        if memory is None and (memory := _new()) is None:
            return None
        segment = SharedSegment(self, memory, number, buffer.nbytes)
        _segments.add(segment)
        segment.must_not_reuse = not memory.fill(buffer)
        return None if segment.must_not_reuse else segment

    def reclaim(self, memory: _Memory, *, must_not_reuse: bool) -> None:
        """Keep memory that nobody has any more, or give it back."""
        if must_not_reuse or memory.capacity > self._kept_bytes:
            memory.close()
            return
        self._returned.append(memory)
        if self._is_closed:
            self.close()

    def close(self) -> None:
        """Give the memory back of what is kept; closing twice is fine."""
        self._is_closed = True
        with self._lock:
            self._sort_in()
            kept, self._kept = self._kept, []
        for memory in kept:
            memory.close()

    def replace_lock(self) -> None:
        """Take a new lock, in a copy of this process: another thread may have held the old one."""
        self._lock = threading.RLock()

    def _sort_in(self) -> None:
        """Keep what was returned, and give back what is too much."""
        while self._returned:
            self._kept.append(self._returned.popleft())
        self._kept.sort(key=_capacity)
        while sum(memory.capacity for memory in self._kept) > self._kept_bytes:
            self._kept.pop().close()

    def _find(self, size: int) -> _Memory | None:
        """Return the smallest memory that fits, and of equals the last, of which most is cached."""
        place = bisect_left(self._kept, size, key=_capacity)
        if place == len(self._kept) or self._kept[place].capacity > size * SPARE_FACTOR:
            return None
        return self._kept.pop(
            bisect_right(self._kept, self._kept[place].capacity, key=_capacity) - 1
        )


def _capacity(memory: _Memory) -> int:
    return memory.capacity


def _new() -> _Memory | None:
    try:
        return _Memory(os.memfd_create("parallel_facade", os.MFD_CLOEXEC))
    except OSError:  # no descriptors left, or no memory
        return None


class Returned(NamedTuple):
    """A segment whose borrower has let go of it.

    Attributes:
        number: Which filling.
        must_not_reuse: A copy of the borrower may still have it.
    """

    number: int
    must_not_reuse: bool


class MappedSegment:
    """Somebody else's segment.

    Args:
        fd: A descriptor of it, which is closed here.
        number: Which filling.
        size: Bytes.
        returned: Where to note that it is not needed any more.
    """

    def __init__(self, fd: int, number: int, size: int, returned: deque[Returned]) -> None:
        self._fd = fd
        self.size = size
        self._entry: _Entry | None = _Entry(number, returned)

    def open(self) -> memoryview:
        """Return the buffer, which may be changed, as that changes nothing for others.

        To be called once. The memory is there for as long as anything refers to it.
        """
        fd, self._fd = self._fd, -1
        entry = self._entry
        assert entry is not None, "it is opened once"
        try:
            mapping = _mapped(fd, self.size, MAP_PRIVATE)
            if mapping is None:
                return memoryview(_copied(fd, self.size))
            _live[id(entry)] = entry
            address = ctypes.addressof(mapping)
            end = weakref.finalize(mapping, _unmap, address, self.size, entry)
            end.atexit = False  # others may still use it
            self._entry = None  # from now on the mapping has it
            return memoryview(mapping).cast("B")
        finally:
            os.close(fd)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._entry is not None:
            self._entry.note_end()


class _Entry:
    """A loan as its lender is told of it."""

    __slots__ = ("_number", "_returned", "must_not_reuse")

    def __init__(self, number: int, returned: deque[Returned]) -> None:
        self._number = number
        self._returned = returned
        self.must_not_reuse = False

    def note_end(self) -> None:
        self._returned.append(Returned(self._number, self.must_not_reuse))


_live: dict[int, _Entry] = {}
"""What is mapped now, by the entry's id."""


def _unmap(address: int, size: int, entry: _Entry) -> None:
    _library().munmap(address, size)
    del _live[id(entry)]
    entry.note_end()


def _forbid_reuse() -> None:
    """A copy of this process has everything that is mapped now, for as long as it likes."""
    for entry in list(_live.values()):
        entry.must_not_reuse = True


_pools: weakref.WeakSet[SegmentPool] = weakref.WeakSet()
_segments: weakref.WeakSet[SharedSegment] = weakref.WeakSet()


def _disown_all() -> None:
    """Hold, in a copy of this process, no memory that the process has given away."""
    for segment in list(_segments):
        segment.disown()
    for segment_pool in list(_pools):
        segment_pool.replace_lock()
        segment_pool.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_forbid_reuse, after_in_child=_disown_all)


def _mapped(fd: int, size: int, sharing: int) -> Any:
    """Return an array of bytes that is the file, shared or private; `None` if that cannot be.

    Not by `mmap.mmap`, which keeps a descriptor for each mapping: results are kept in thousands.
    """
    address = _library().mmap(None, size, PROT_READ | PROT_WRITE, sharing, fd, 0)
    if address in (None, FAILED):
        return None
    return (ctypes.c_char * size).from_address(address)


FAILED: Final = ctypes.c_void_p(-1).value


def _copied(fd: int, size: int) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    done = 0
    while done < size and (count := os.preadv(fd, [view[done:]], done)):
        done += count
    return buffer


_found: Any = None


def _library() -> Any:
    global _found
    if _found is None:
        library = ctypes.CDLL(None)
        library.mmap.restype = ctypes.c_void_p
        library.mmap.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_long,
        ]
        library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        _found = library
    return _found
