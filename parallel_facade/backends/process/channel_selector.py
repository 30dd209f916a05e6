"""What the manager thread waits for: data from workers, room in their sockets, and wake-ups.

    any thread:  note(worker) ─► changes ─► update ─► selector
                 wake ─────────────────────► select returns

Assumes:
    - One thread calls `select`, `update`, `remove` and `drop_stderr`.
"""

from __future__ import annotations

import selectors
import socket
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

from parallel_facade.backends.process.startup_stderr import StartupStderr
from parallel_facade.backends.process.worker_handle import WorkerHandle


class Event(NamedTuple):
    """Something that a worker's descriptor is ready for.

    Attributes:
        source: The worker, or the stderr of one that starts.
        can_read: There is data, or the end of the channel.
        can_write: The socket takes data again.
        has_exited: The worker's process has exited.
    """

    source: Any
    can_read: bool = False
    can_write: bool = False
    has_exited: bool = False


class ChannelSelector:
    """Waits for workers, and for `wake`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake_end = socket.socketpair()
        self._waker.setblocking(False)
        self._wake_end.setblocking(False)
        self._selector.register(self._waker, selectors.EVENT_READ, None)
        self._changes: deque[WorkerHandle] = deque()

    def wake(self) -> None:
        """Have `select` return, now or when it is called next; called from any thread."""
        with suppress(BlockingIOError, OSError):  # full: it wakes anyway; closed: it has ended
            self._wake_end.send(b"\0")

    def note(self, worker: WorkerHandle) -> None:
        """Note that *worker* is new, or has or no longer has data to send; from any thread."""
        self._changes.append(worker)

    def select(self, seconds: float | None) -> list[Event]:
        """Return what is ready, waiting *seconds* at most; `None` waits for ever."""
        found = []
        for key, events in self._selector.select(seconds):
            if key.data is None:
                with suppress(BlockingIOError):
                    self._waker.recv(4096)
            elif isinstance(key.data, StartupStderr):
                found.append(Event(key.data, can_read=True))
            elif key.fd == key.data.process.end_fd:
                found.append(Event(key.data, has_exited=True))
            else:
                can_write = bool(events & selectors.EVENT_WRITE)
                found.append(Event(key.data, bool(events & selectors.EVENT_READ), can_write))
        return found

    def take_changes(self) -> set[WorkerHandle]:
        """Return the workers that were noted since."""
        changed = set()
        while self._changes:
            changed.add(self._changes.popleft())
        return changed

    def update(self, worker: WorkerHandle) -> None:
        """Wait for *worker*; for room in its socket only while it has data to send."""
        channel = worker.channel
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.has_unsent else 0)
        if channel.socket in self._selector.get_map():
            self._selector.modify(channel.socket, events, worker)
            return
        self._selector.register(channel.socket, events, worker)
        if worker.process.end_fd is not None:
            self._selector.register(worker.process.end_fd, selectors.EVENT_READ, worker)
        if (stderr := worker.startup_stderr) is not None:
            self._selector.register(stderr.fd, selectors.EVENT_READ, stderr)

    def remove(self, worker: WorkerHandle) -> None:
        """Wait for the worker's channel and process no more."""
        self._selector.unregister(worker.channel.socket)
        if worker.process.end_fd is not None:
            self._selector.unregister(worker.process.end_fd)

    def drop_stderr(self, startup_stderr: StartupStderr) -> None:
        """Wait for the stderr of a worker no more, if it was waited for."""
        with suppress(KeyError):
            self._selector.unregister(startup_stderr.fd)

    def close(self) -> None:
        """Close everything that was opened here."""
        # Files close with the last reference to their holders, which may be one from here.
        self._changes.clear()
        for resource in (self._selector, self._waker, self._wake_end):
            resource.close()
