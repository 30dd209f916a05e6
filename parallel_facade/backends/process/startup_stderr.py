"""A worker's stderr while its initializer runs: passed on, and kept for an error.

    worker: fd 2 ──pipe──► manager thread ──► callback thread ──► our stderr
                               └─► the last lines, for `start_error`

Guarantees:
    - What a worker writes appears on the caller's stderr, as if it were written there.
    - Once a worker serves, its original stderr is restored.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

STDERR: Final = 2
STDERR_BYTES: Final = 4096
"""How many of the last bytes of a worker's stderr an error repeats."""


class StartupStderr:
    """The caller's end of one worker's stderr."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._text = bytearray()

    def read(self) -> bytes:
        """Return the data that has arrived; raise `EOFError` at the end."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return b""
        if not data:
            raise EOFError
        self._text = (self._text + data)[-STDERR_BYTES:]
        return data

    def text(self) -> str:
        """Return the last output of the worker."""
        return self._text.decode(errors="replace").strip()

    def close(self) -> None:
        """Close the caller's end."""
        os.close(self.fd)


def pass_on(data: bytes) -> None:
    """Write *data* to this process' stderr."""
    with suppress(OSError):
        os.write(STDERR, data)


@contextmanager
def stderr_into(fd: int) -> Iterator[None]:
    """Redirect this process' stderr to *fd*, and close *fd* at the end."""
    try:
        own = os.dup(STDERR)
    except OSError:  # the process has no stderr
        yield
        return
    os.dup2(fd, STDERR)
    os.close(fd)
    try:
        yield
    finally:
        with suppress(Exception):  # sys.stderr may be closed, or any object
            sys.stderr.flush()
        os.dup2(own, STDERR)
        os.close(own)
