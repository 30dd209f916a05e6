"""What a worker writes to stderr while its initializer runs: passed on, and kept for an error.

    worker: fd 2 ──pipe──► switchboard ──► Delivery thread ──► our stderr
                               └─► the last lines, for `start_error`

Guarantees:
    - What a worker writes appears on our stderr, as if it were written there.
    - Once a worker serves, its stderr is the one that it was born with.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

STDERR: Final = 2
STDERR_BYTES: Final = 4096
"""The end of what a worker said, which an error repeats."""


class StartupStderr:
    """The caller's end of one worker's stderr."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._text = bytearray()

    def read(self) -> bytes:
        """Return what has come; raise `EOFError` at the end."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return b""
        if not data:
            raise EOFError
        self._text = (self._text + data)[-STDERR_BYTES:]
        return data

    def text(self) -> str:
        """Return the end of what the worker said."""
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
    """Send what this process writes to stderr to *fd* instead; close that at the end."""
    try:
        own = os.dup(STDERR)
    except OSError:  # it has none
        yield
        return
    os.dup2(fd, STDERR)
    os.close(fd)
    try:
        yield
    finally:
        with suppress(Exception):  # it may be closed, or anything
            sys.stderr.flush()
        os.dup2(own, STDERR)
        os.close(own)
