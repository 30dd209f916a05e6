"""The memory of this process as the system lists it: which addresses show which files.

Guarantees:
    - The list is read once for a payload, if its objects have not been mapped meanwhile.
    - A mapping that the system keeps in several pieces, after `madvise` for example, is one region.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

MAPS: Final = "/proc/self/maps"


class Region(NamedTuple):
    """A range of addresses that shows a part of a file.

    Attributes:
        start: Its first address.
        length: Its size in bytes.
        offset: Where it begins in the file.
        path: The file.
        inode: The number of the file in its file system.
        writable: Whether it can be written.
        is_shared: Whether other processes see what is written.
    """

    start: int
    length: int
    offset: int
    path: str
    inode: int
    writable: bool
    is_shared: bool

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.start + self.length


class _Memo(threading.local):
    """The regions that a payload has asked for, in the thread that makes it."""

    regions: list[Region] | None = None


_memo = _Memo()


def remember_regions(regions: list[Region] | None) -> list[Region] | None:
    """Keep the list of regions in *regions* for further questions; return the previous ones.

    Args:
        regions: Where to keep them; `None` to read the list each time.
    """
    before, _memo.regions = _memo.regions, regions
    return before


def listed_region(address: int) -> Region | None:
    """Return the region with *address*; `None` if there is none, or the system has no list."""
    known = _memo.regions
    if known and (found := _region_in(known, address)) is not None:
        return found
    regions = list(_regions())
    if known is not None:
        known[:] = regions
    return _region_in(regions, address)


def _region_in(regions: list[Region], address: int) -> Region | None:
    at = bisect_right(regions, address, key=_start_of) - 1
    return regions[at] if at >= 0 and address < regions[at].end else None


def _start_of(region: Region) -> int:
    return region.start


def _regions() -> Iterator[Region]:
    """Yield all regions in the order of their addresses, each mapping as a whole."""
    last: Region | None = None
    for region in _pieces():
        if last is not None and _goes_on(last, region):
            last = last._replace(length=last.length + region.length)
            continue
        if last is not None:
            yield last
        last = region
    if last is not None:
        yield last


def _goes_on(last: Region, piece: Region) -> bool:
    return (
        piece.inode != 0
        and last
        == piece._replace(
            start=last.start, length=last.length, offset=piece.offset - piece.start + last.start
        )
        and last.end == piece.start
    )


def _pieces() -> Iterator[Region]:
    with suppress(OSError), open(MAPS, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            span, mode, offset, _, inode, *rest = line.rstrip("\n").split(maxsplit=5)
            start, end = (int(one, 16) for one in span.split("-"))
            path = rest[0].replace("\\012", "\n") if rest else ""
            yield Region(
                *(start, end - start, int(offset, 16), path, int(inode)),
                writable=mode[1] == "w",
                is_shared=mode[3] == "s",
            )
