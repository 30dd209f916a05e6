"""How many items travel together."""

from __future__ import annotations

from typing import Final

CHUNKS_PER_WORKER: Final = 64
"""Smaller: workers that draw a slow chunk last leave the others idle, and progress moves in jumps.
Larger: more messages per item. At 64 the last chunk is under 1 % of a worker's share."""


def default_chunksize(total: int, workers: int) -> int:
    """Return the number of items per chunk for a map over *total* items; at least 1.

    >>> default_chunksize(total=1_000, workers=2)
    7
    >>> default_chunksize(total=3, workers=2)
    1
    """
    return max(1, total // (workers * CHUNKS_PER_WORKER))
