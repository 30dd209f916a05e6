"""One worker as the caller sees it."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from parallel_facade.backends.process.channel import Channel
from parallel_facade.backends.process.descriptor_handover import CallerSide
from parallel_facade.backends.process.journal import JournalSnapshot
from parallel_facade.backends.process.process_handle import ProcessHandle
from parallel_facade.backends.process.startup_stderr import StartupStderr
from parallel_facade.backends.process.tasks import Task


class WorkerHandle:
    """One worker as the caller sees it: its channel, its process, its journal and its tasks.

    Args:
        process: Its process.
        sock: The caller's end of its channel.
        kept: The caller's side of the descriptors that it was given.
        on_unsent: Called with this object if the socket did not take all data.
    """

    def __init__(
        self,
        process: Any,
        sock: socket.socket,
        kept: CallerSide | None = None,
        on_unsent: Callable[[WorkerHandle], object] = lambda _: None,
    ) -> None:
        self.channel = Channel(sock, lambda: on_unsent(self))
        self.process = ProcessHandle(process)
        self._caller_side = kept
        self.startup_stderr = (
            None if kept is None or kept.stderr is None else StartupStderr(kept.stderr)
        )
        """The worker's stderr while it starts, if that is captured."""
        self.tasks: deque[Task] = deque()
        """The task that the worker runs now, then the task that waits in its channel."""
        self.is_limited = False
        """The worker was told to begin no more than some of its task's items."""
        self.is_left = False
        """Nobody wants what the worker has not begun."""
        self.is_ready = False
        """The worker has sent that it serves."""
        self.is_leaving = False
        """The worker will take no more tasks."""
        self.stopped_for: BaseException | None = None
        """Why the worker is stopped, if it is: the error for its task."""
        self.may_run_again = True
        """The task may be given to another worker, if this worker had not begun it."""
        self.is_being_read = False
        """A thread is reading messages, or passing them on."""
        self.known_calls: set[int] = set()

    @property
    def task(self) -> Task | None:
        """The task that the worker runs now."""
        return self.tasks[0] if self.tasks else None

    def has_room_for(self, task: Task) -> bool:
        """Return whether *task* may wait in the channel behind the running task."""
        return (
            len(self.tasks) == 1
            and self.tasks[0].is_short
            and self.tasks[0].call is task.call
            and self._caller_side is not None  # so that it can be taken back
            and not self.is_limited
            and self.stopped_for is None
            and not self.is_leaving
        )

    def limit(self, task: Task, items: int) -> None:
        """Tell the worker to begin no more than *items* items of *task*, and no later task.

        It does nothing if the worker keeps no journal.
        """
        if self._caller_side is not None:
            self._caller_side.journal.limit(task.number, items)
            self.is_limited = True

    def lift_limit(self) -> None:
        """Let the worker begin everything again, because it has no tasks."""
        if self._caller_side is not None and self.is_limited:
            self._caller_side.journal.lift_limit()
            self.is_limited = self.is_left = False

    @property
    def is_sending(self) -> bool:
        """Whether outcomes are on their way, and cannot be counted."""
        return self._caller_side is not None and self._caller_side.journal.is_sending

    def has_unread(self) -> bool:
        """Return whether the worker has sent something that was not passed on yet."""
        # In this order: data that has left the socket was read, and is being passed on.
        return self.channel.has_data() or self.is_being_read

    def progress(self) -> JournalSnapshot | None:
        """Return how far the worker came, if it keeps a journal."""
        return None if self._caller_side is None else self._caller_side.journal.read()

    @property
    def is_initializing(self) -> bool:
        """Whether the worker may be running its initializer."""
        return self.startup_stderr is not None and not self.is_ready

    def release(self) -> None:
        """Release everything that was kept for a worker that has exited."""
        self.channel.release()
        self.process.release()
        if self._caller_side is not None:
            self._caller_side.journal.close()
            # Closing this end kills a worker that is still alive.
            self._caller_side.parent_watch.close()
            self._caller_side = None
        if self.startup_stderr is not None:
            self.startup_stderr.close()
            self.startup_stderr = None
