"""One independent random stream per item, whatever back-end, worker or chunk runs it."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from parallel_facade._common.threads import ThreadVariable

if TYPE_CHECKING:
    import numpy as np

NUMPY_SEED_BYTES: Final = 4
"""NumPy's legacy `numpy.random.seed` takes 32 bits."""


def stream_seed(seed: int, index: int) -> bytes:
    """Return the 64-byte seed of the stream for item *index*.

    A cryptographic hash of both numbers: neighbouring indices and seeds give unrelated streams.
    Adding the numbers would not (seed 1, item 2 would equal seed 2, item 1).
    """
    return hashlib.sha512(f"parallel_facade:{seed}:{index}".encode()).digest()


class _Stream:
    """The random stream of the item that runs now; NumPy's generator is made on first use."""

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self.generator: Any = None


_current: ThreadVariable[_Stream | None] = ThreadVariable("parallel_facade_stream", None)


def seed_item(seed: int, index: int) -> None:
    """Start the streams of `random`, of NumPy if it is installed, and of `rng`."""
    stream = stream_seed(seed, index)
    random.seed(stream)
    if (numpy_random := _numpy_random()) is not None:
        numpy_random.seed(int.from_bytes(stream[:NUMPY_SEED_BYTES], "big"))
    _current.set(_Stream(stream))


def rng() -> np.random.Generator:
    """Return NumPy's generator for the item that runs now.

    With ``seed=``, it belongs to the item, whatever back-end, worker or chunk runs it, and
    continues where the item last used it. Without a seed, and outside of tasks, it is a fresh
    generator.

    Raises:
        ModuleNotFoundError: NumPy is not installed.

    >>> from parallel_facade import pmap, rng
    >>> draws = pmap(lambda _: rng().normal(), range(3), seed=1, backend="serial")
    >>> draws == pmap(lambda _: rng().normal(), range(3), seed=1, backend="process")
    True
    """
    import numpy as np

    if (stream := _current.get()) is None:
        return np.random.default_rng()
    if stream.generator is None:
        stream.generator = np.random.default_rng(np.frombuffer(stream.seed, np.uint32))
    generator: np.random.Generator = stream.generator
    return generator


@functools.cache
def _numpy_random() -> Any:
    """Return `numpy.random`; `None` if it is not installed, or is broken.

    It is loaded even if nothing has imported it: a function may import it when it runs.
    """
    try:
        import numpy.random
    except ImportError:
        return None
    return numpy.random


@contextmanager
def kept_state() -> Iterator[None]:
    """Restore the caller's random state at the end, as if no item had been seeded."""
    state = random.getstate()
    numpy_random = _numpy_random()
    numpy_state = None if numpy_random is None else numpy_random.get_state()
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)
        random.setstate(state)
        if numpy_random is not None:
            numpy_random.set_state(numpy_state)


# Users see it in tracebacks and in help() under the name they import it by.
rng.__module__ = "parallel_facade"
