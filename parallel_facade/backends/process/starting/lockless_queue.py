"""Queues without locks, for the pathos pool itself.

    multiprocess: reader takes a shared lock, waits for data, reads, releases the lock
    here:         the kernel hands each message whole to one of the waiting readers

With the shared lock, a worker that is killed while it waits keeps the lock forever, and no other
worker of the pool gets another message. The lock also needs a named semaphore, which a helper
process has to watch.

Assumes:
    - Messages are small (the pool only sends calls of `serve` and their empty results).
    - The platform has Unix sockets that keep message boundaries; else `LocklessQueue` raises.
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
"""Far more than the pool sends, and below every platform's limit for one message."""

CAN_WATCH: Final = hasattr(select, "poll")
"""Whether a reader can wait for a message and for the end of another socket at once."""

_KINDS: Final = [getattr(socket, name, None) for name in ("SOCK_SEQPACKET", "SOCK_DGRAM")]


def can_make_queues() -> bool:
    """Return whether this platform has the sockets that `LocklessQueue` needs."""
    return hasattr(socket, "AF_UNIX")


class _End:
    """One end of the queue, with the connection methods that the pool uses."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.forget_timeout()
        self._parent_watch: int | None = None
        self._may_lose = False

    def forget_timeout(self) -> None:
        """Wait without a limit, whatever default the program has set for its sockets."""
        self._socket.settimeout(None)

    def receive_until_end_of(self, parent_watch: int) -> None:
        """Stop receiving when the other end of the socket *parent_watch* is closed.

        Otherwise:
            1. pool    starts a worker to replace a worker that has died
            2. caller  closes the pool, which tells the workers that it has by then to exit
            3. worker  waits forever for a message: it and others like it hold the queue's other end
        """
        if CAN_WATCH:
            self._parent_watch = parent_watch

    def lose_what_has_no_room(self) -> None:
        """Send what fits, and drop the rest.

        Otherwise:
            1. caller   closes a pool of hundreds; its thread that receives results ends
            2. workers  return from `serve`, and their results fill the socket
            3. worker   waits to send its own, and does not exit
        """
        self._may_lose = True

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, obj: Any) -> None:
        from multiprocess.reduction import ForkingPickler

        message = ForkingPickler.dumps(obj)
        # The requests to exit may fill the socket when a pool of hundreds is closed, and workers
        # that have exited receive none: they exit at the end of their channel.
        is_needed = not self._may_lose and (obj is not None or not CAN_WATCH)
        while True:
            with suppress(BlockingIOError):
                self._socket.send(message, 0 if is_needed else socket.MSG_DONTWAIT)
                return
            if not is_needed:
                return
            _wait_until_writable(self._socket)

    def recv(self) -> Any:
        from multiprocess.reduction import ForkingPickler

        while message := self._receive():
            try:
                return ForkingPickler.loads(message)
            except Exception:
                # A task has written to a descriptor that is not its own. An error would end the
                # pool's thread, which receives here.
                _log.error("the pool received an invalid message: %.80r", message)
        raise EOFError

    def _receive(self) -> bytes:
        # All processes that hold the socket share its flags, and a task may have set a flag.
        while True:
            if self._parent_watch is not None and not self._has_come(self._parent_watch):
                return b""
            with suppress(BlockingIOError):
                # With a parent watch, another worker may have received the message after our poll.
                flags = 0 if self._parent_watch is None else socket.MSG_DONTWAIT
                return self._socket.recv(MESSAGE_BYTES, flags)
            if self._parent_watch is None:
                connection.wait([self._socket])

    def _has_come(self, parent_watch: int) -> bool:
        """Wait for a message; return `False` if the end of *parent_watch* comes first."""
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        waiting.register(parent_watch, 0)  # its end is always reported
        return self.fileno() in dict(waiting.poll())

    def poll(self) -> bool:
        return bool(connection.wait([self._socket], 0))


class LocklessQueue:
    """The part of a `SimpleQueue` that `multiprocess.pool.Pool` needs."""

    def __init__(self) -> None:
        reader, writer = _message_pair()
        self._reader = _End(reader)
        self._writer = _End(writer)
        self._rlock = _NoLock()

    def get(self) -> Any:
        return self._reader.recv()

    def put(self, obj: Any) -> None:
        # If the caller has exited, or a task has closed every file, nobody can receive this, and
        # the worker exits silently.
        with suppress(OSError):
            self._writer.send(obj)

    def use_in_worker(self, parent_watch: int) -> None:
        """Adapt the queue to a worker, in which *parent_watch* ends with the caller's channel."""
        self._reader.forget_timeout()
        self._writer.forget_timeout()
        self._reader.receive_until_end_of(parent_watch)
        self._writer.lose_what_has_no_room()

    def empty(self) -> bool:
        return not self._reader.poll()

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class _NoLock:
    """Replaces the queue's lock, which the pool takes when it terminates."""

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
