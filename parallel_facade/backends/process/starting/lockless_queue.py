"""The pathos pool's own queues, without locks.

    multiprocess: reader takes a shared lock, waits for data, reads, releases the lock
    here:         the kernel hands each message whole to one of the waiting readers

With the shared lock, a worker that is killed while it waits keeps the lock for ever, and no other
worker of the pool gets another message. It also needs a named semaphore, which a helper process
has to watch.

Assumes:
    - Messages are small (the pool only carries calls of `serve` and their empty results).
    - The platform has Unix sockets that keep message borders; `make_queue` says if not.
"""

from __future__ import annotations

import errno
import logging
import select
import selectors
import socket
from contextlib import suppress
from typing import Any, Final

from multiprocess import connection

_log = logging.getLogger("parallel_facade")

MESSAGE_BYTES: Final = 1 << 16
"""Far above what the pool sends, below every platform's limit for one message."""

_KINDS: Final = [getattr(socket, name, None) for name in ("SOCK_SEQPACKET", "SOCK_DGRAM")]


def can_make_queues() -> bool:
    """Return whether this platform has what `LocklessQueue` needs."""
    return hasattr(socket, "AF_UNIX")


class _End:
    """One end of the queue, with the methods that the pool uses of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._parent_watch: int | None = None

    def receive_until_end_of(self, parent_watch: int) -> None:
        """Receive nothing more when the other end of the socket *parent_watch* is closed.

        1. pool    starts a worker in the place of one that has died
        2. caller  closes the pool, which tells the workers that it has by then to leave
        3. worker  waits for a message for ever: it and others like it have the queue's other end
        """
        if hasattr(select, "poll"):
            self._parent_watch = parent_watch

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, obj: Any) -> None:
        from multiprocess.reduction import ForkingPickler

        message = ForkingPickler.dumps(obj)
        while True:
            with suppress(BlockingIOError):
                self._socket.send(message)
                return
            _wait_until_writable(self._socket)

    def recv(self) -> Any:
        from multiprocess.reduction import ForkingPickler

        while message := self._receive():
            try:
                return ForkingPickler.loads(message)
            except Exception:
                # A task has written to a descriptor that is not its own. The pool's thread, which
                # asks here, would end with any error.
                _log.error("the pool was sent what is no message: %.80r", message)
        raise EOFError

    def _receive(self) -> bytes:
        # All processes that have the socket share its flags, and a task may have set one.
        while True:
            if self._parent_watch is not None and not self._has_come(self._parent_watch):
                return b""
            with suppress(BlockingIOError):
                # Another worker may have been faster, where this one watches its lifeline.
                flags = 0 if self._parent_watch is None else socket.MSG_DONTWAIT
                return self._socket.recv(MESSAGE_BYTES, flags)
            if self._parent_watch is None:
                connection.wait([self._socket])

    def _has_come(self, parent_watch: int) -> bool:
        """Wait for a message; return `False` if the lifeline has ended before."""
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        waiting.register(parent_watch, 0)  # its end is told of in any case
        return self.fileno() in dict(waiting.poll())

    def poll(self) -> bool:
        return bool(connection.wait([self._socket], 0))


class LocklessQueue:
    """What `multiprocess.pool.Pool` needs of a `SimpleQueue`."""

    def __init__(self) -> None:
        reader, writer = _message_pair()
        self._reader = _End(reader)
        self._writer = _End(writer)
        self._rlock = _NoLock()

    def get(self) -> Any:
        return self._reader.recv()

    def put(self, obj: Any) -> None:
        # A worker whose caller is gone, or whose task has closed every file, has nobody to tell,
        # and leaves without a word.
        with suppress(OSError):
            self._writer.send(obj)

    def empty(self) -> bool:
        return not self._reader.poll()

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class _NoLock:
    """Stands where the pool, when it terminates, takes the queue's lock."""

    def acquire(self) -> bool:
        return True


def _wait_until_writable(sock: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        selector.select()


def _message_pair() -> tuple[socket.socket, socket.socket]:
    for kind in filter(None, _KINDS):
        try:
            return socket.socketpair(socket.AF_UNIX, kind)
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                raise
            # macOS has no SOCK_SEQPACKET for Unix sockets.
    raise OSError("no Unix socket that keeps message borders")
