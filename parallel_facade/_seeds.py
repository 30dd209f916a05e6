"""One independent random stream per item, whatever back-end, worker or chunk runs it."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

NUMPY_SEED_BYTES: Final = 4
"""NumPy's legacy `numpy.random.seed` takes 32 bits."""


def stream_seed(seed: int, index: int) -> bytes:
    """Return the 64-byte seed of the stream for item *index*.

    A cryptographic hash of both numbers: neighbouring indices and seeds give unrelated streams,
    which adding them would not (seed 1, item 2 would equal seed 2, item 1).
    """
    return hashlib.sha512(f"parallel_facade:{seed}:{index}".encode()).digest()


def seed_item(seed: int, index: int) -> None:
    """Start the streams of `random` and, where it is loaded, of `numpy.random` for item *index*."""
    stream = stream_seed(seed, index)
    random.seed(stream)
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed(int.from_bytes(stream[:NUMPY_SEED_BYTES], "big"))


@contextmanager
def kept_state() -> Iterator[None]:
    """Give the caller's random state back at the end, as if no item had been seeded."""
    state = random.getstate()
    numpy_random = sys.modules.get("numpy.random")
    numpy_state = None if numpy_random is None else numpy_random.get_state()
    try:
        yield
    finally:
        random.setstate(state)
        if numpy_random is not None:
            numpy_random.set_state(numpy_state)
