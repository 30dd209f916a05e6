"""Share large buffers in memory: the owner places a buffer once, and borrowers map it.

    owner:     array ──copy──► SharedSegment ──descriptor──► borrower
                                     ▲                          │ maps it, copy-on-write
         SegmentPool ◄── no references are left ◄───────────────┘ returned when it is unmapped

A segment is memory without a name, known only by descriptors: when the last process that has it
exits or releases it, in whatever way, the memory is freed. `/dev/shm` is not used, so its limits do
not apply.

Memory that was filled before is several times faster to fill than new memory, which the system has
to find and clear. So a segment pool keeps unused segments for the next buffers.

Guarantees:
    - Only the borrower itself sees its changes.
    - A segment is filled again only when no process can have it mapped: each borrower has returned
      it, and has not called `os.fork` while it had the segment.
    - If memory cannot be shared, `place` returns `None` and `MappedSegment.open` copies; neither
      fails.

Assumes:
    - Processes fork through `os.fork`; a process that C code forks and that keeps running is not
      detected.
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
"""A smaller buffer is sent in the message, because creating, sending, mapping and unmapping memory
for it takes some system calls on either side, and a page fault for each 64 KiB. Measured by
`benchmarks/bench_placing.py`: at this size arguments take equally long either way, and results take
1.6 times as long in the message; at 64 KiB the message is as fast or faster, at 1 MiB it is 3 to 4
times slower."""

POOL_BYTES: Final = 256 << 20
"""Memory that a segment pool keeps for the next buffers: filling new memory takes three times as
long (100 MB: 55 ms, against 17 ms for memory that was filled before). It is held as long as the
pool is open."""

SPARE_FACTOR: Final = 2
"""A kept segment is used only for buffers of at least its size divided by this factor."""


class _Memory:
    """Shared memory without a name, which can be filled many times."""

    def __init__(self, fd: int) -> None:
        self.fd: int = fd
        self.capacity: int = 0
        self._mapping: Any = None

    def fill(self, buffer: memoryview) -> bool:
        """Copy *buffer* into the memory; return whether there was enough memory."""
        if 0 < buffer.nbytes <= self.capacity and self._is_mapped():
            memoryview(self._mapping).cast("B")[: buffer.nbytes] = buffer
            return True
        # Get new memory by writing, not by mapping: if there is none, that is an error, no signal.
        done = 0
        with suppress(OSError):
            while done < buffer.nbytes:
                done += os.pwrite(self.fd, buffer[done:], done)
        self.capacity = max(self.capacity, done)
        return done == buffer.nbytes

    def _is_mapped(self) -> bool:
        if self._mapping is None:
            # Populate it all at once: this avoids page faults, which take longer than the copy.
            self._mapping = _mapped(self.fd, self.capacity, MAP_SHARED | MAP_POPULATE)
        return self._mapping is not None

    def close(self) -> None:
        """Free the memory; closing twice is fine."""
        if self._mapping is not None:
            _library().munmap(ctypes.addressof(self._mapping), ctypes.sizeof(self._mapping))
            self._mapping = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class SharedSegment:
    """A buffer in shared memory; it returns to its segment pool when no reference is left."""

    def __init__(self, segment_pool: SegmentPool, memory: _Memory, number: int, size: int) -> None:
        self._segment_pool = segment_pool
        self._memory = memory
        self.number: int = number
        """The number of this filling; each filling has another number."""
        self.size: int = size
        self.must_not_reuse: bool = False
        """A process may have it for an unknown time, so it is not filled again."""

    @property
    def fd(self) -> int:
        """A descriptor of the memory."""
        return self._memory.fd

    def contents(self) -> memoryview:
        """Return a copy of the buffer."""
        return memoryview(_copied(self.fd, self.size))

    def __del__(self) -> None:
        self._segment_pool.reclaim(self._memory, must_not_reuse=self.must_not_reuse)

    def disown(self) -> None:
        """Release the memory in a forked process; its parent keeps the memory."""
        self._memory.close()


class SegmentPool:
    """Places buffers in shared memory.

    Args:
        kept_bytes: Memory to keep for the next buffers, at most.
    """

    def __init__(self, kept_bytes: int = POOL_BYTES) -> None:
        self._kept_bytes = kept_bytes
        # Guards _kept and _number. Reentrant: garbage collection in `place` may reclaim a segment.
        self._lock = threading.RLock()
        # Also filled by garbage collection, in any thread and with any lock held: so only noted.
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
        """Keep memory that is no longer used, or free it."""
        if must_not_reuse or memory.capacity > self._kept_bytes:
            memory.close()
            return
        self._returned.append(memory)
        if self._is_closed:
            self.close()

    def close(self) -> None:
        """Free the kept memory; closing twice is fine."""
        self._is_closed = True
        with self._lock:
            self._sort_in()
            kept, self._kept = self._kept, []
        for memory in kept:
            memory.close()

    def replace_lock(self) -> None:
        """Create a new lock in a forked process: another thread may have held the old lock."""
        self._lock = threading.RLock()

    def _sort_in(self) -> None:
        """Keep the returned memory, and free what exceeds the limit."""
        while self._returned:
            self._kept.append(self._returned.popleft())
        self._kept.sort(key=_capacity)
        while sum(memory.capacity for memory in self._kept) > self._kept_bytes:
            self._kept.pop().close()

    def _find(self, size: int) -> _Memory | None:
        """Return the smallest memory that fits; among equals the last, as most of it is cached."""
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
    """A segment that its borrower has released.

    Attributes:
        number: The number of the filling.
        must_not_reuse: Whether a copy of the borrower may still have it.
    """

    number: int
    must_not_reuse: bool


class MappedSegment:
    """A segment that another process owns.

    Args:
        fd: A descriptor of the segment, which is closed here.
        number: The number of the filling.
        size: The size in bytes.
        returned: Where to note that the segment is no longer needed.
    """

    def __init__(self, fd: int, number: int, size: int, returned: deque[Returned]) -> None:
        self._fd = fd
        self.size = size
        self._entry: _Entry | None = _Entry(number, returned)

    def open(self) -> memoryview:
        """Return the buffer, which may be changed without effect on others.

        Call it only once. The memory exists as long as anything refers to it.
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
    """Notes the end of a mapped segment, for its owner."""

    __slots__ = ("_number", "_returned", "must_not_reuse")

    def __init__(self, number: int, returned: deque[Returned]) -> None:
        self._number = number
        self._returned = returned
        self.must_not_reuse = False

    def note_end(self) -> None:
        self._returned.append(Returned(self._number, self.must_not_reuse))


_live: dict[int, _Entry] = {}
"""Entries of the segments that are mapped now, by the entry's id."""


def _unmap(address: int, size: int, entry: _Entry) -> None:
    _library().munmap(address, size)
    del _live[id(entry)]
    entry.note_end()


def _forbid_reuse() -> None:
    """Mark all mapped segments before a fork: the copy may keep them for any time."""
    for entry in list(_live.values()):
        entry.must_not_reuse = True


_pools: weakref.WeakSet[SegmentPool] = weakref.WeakSet()
_segments: weakref.WeakSet[SharedSegment] = weakref.WeakSet()


def _disown_all() -> None:
    """Release in a forked process all memory that its parent has placed."""
    for segment in list(_segments):
        segment.disown()
    for segment_pool in list(_pools):
        segment_pool.replace_lock()
        segment_pool.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_forbid_reuse, after_in_child=_disown_all)


def _mapped(fd: int, size: int, sharing: int) -> Any:
    """Map the file as an array of bytes, shared or private; return `None` if that fails.

    `mmap.mmap` is not used, because it keeps a descriptor for each mapping, and callers may keep
    thousands of results.
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
