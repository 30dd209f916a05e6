"""What stands for a call and its tasks on their way through an engine.

    RemoteFuture, which the caller waits for ◄── RemoteTask ──► the engine's own future,
                                                                an EngineFuture where it has none

Guarantees:
    - A future is cancelled once, and who waits is told once.
    - What a caller was told is cancelled is not sent any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from parallel_facade._common.call_ids import new_call_id
from parallel_facade._common.deadlines import Deadline
from parallel_facade._common.interrupt_safety import SafeFuture
from parallel_facade._console.replay import ignore
from parallel_facade._serialization.encoder import Payload
from parallel_facade.backends.base import TaskFuture


class RemoteCall:
    """A call as an engine has it.

    Attributes:
        call_id: Its name, by which workers know it.
        payload: Its bytes.
        stored: What the engine's store gave for them; `None` where there is no store.
        times_sent: With how many chunks it went.
        on_record: Takes what its tasks have said.
    """

    def __init__(self, payload: bytes, stored: Any) -> None:
        self.call_id: str = new_call_id()
        self.payload = payload
        self.stored = stored
        self.times_sent = 0
        self.on_record: Callable[[bytes], object] = ignore


class RemoteTask:
    """A chunk on its way.

    Attributes:
        call: What to apply.
        chunk: What to apply it to.
        seconds: How long it may run; `None` for ever.
        stop: Stops it while it runs; returns whether the engine can.
        is_short: It may wait in the engine, behind another.
        future: What is waited for.
        inner: The engine's own; `None` while there is none.
        deadline: When its time is up.
        timed: What the deadline is about: the engine's future, and whether its worker still
            rebuilds the callable, for which it has a time of its own.
    """

    def __init__(
        self,
        call: RemoteCall,
        chunk: Payload,
        seconds: float | None,
        stop: Callable[[RemoteTask], bool],
        *,
        is_short: bool,
    ) -> None:
        self.call = call
        self.chunk = chunk
        self.seconds = seconds
        self.stop = stop
        self.is_short = is_short
        self.future = RemoteFuture(self)
        self.inner: Future[Any] | None = None
        self.timed: tuple[Future[Any], bool] | None = None
        self.deadline = Deadline(None)


class RemoteFuture(TaskFuture):
    """The future of a task, which is cancelled where the engine can cancel it."""

    def __init__(self, task: RemoteTask) -> None:
        super().__init__()
        self.task: RemoteTask | None = task
        """`None` when it has ended: nothing of it shall wait for the garbage collector."""
        self._is_sent = False
        self._cancelling = threading.RLock()  # guards _is_sent, tells once; R for callbacks

    @property
    def inner(self) -> Future[Any] | None:
        """The engine's own future; `None` if it has none, or not any more."""
        task = self.task
        return None if task is None else task.inner

    def stop(self) -> bool:
        """Stop the running task, where the engine can."""
        task = self.task
        return task is not None and task.stop(task)

    def cancel(self) -> bool:
        """Cancel the task if it does not run yet, and return whether that worked."""
        inner = self.inner
        if self.done() or (inner is not None and not inner.cancel()):
            return self.cancelled()
        with self._cancelling:
            if inner is None and self._is_sent:  # on its way to the engine, perhaps once more
                return self.cancelled()
            return self.end_cancelled()

    def may_be_sent(self) -> bool:
        """Return whether somebody waits for the task; from now on the engine has to cancel it."""
        with self._cancelling:
            self._is_sent = not self.done()
            return self._is_sent

    def end_cancelled(self) -> bool:
        """End as cancelled, and return whether that worked."""
        with self._cancelling:
            if not self.cancelled() and super().cancel():
                self.set_running_or_notify_cancel()
        return self.cancelled()

    def running(self) -> bool:
        """Return whether the engine says that the task runs."""
        inner = self.inner
        return not self.done() and inner is not None and inner.running()


class EngineFuture(SafeFuture[Any]):
    """What stands for a task of an engine whose futures are not the standard library's.

    It is told how the task goes in threads of the engine's, in any order, and more than once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.has_begun: bool = False
        """Its worker has said that it runs."""
        self.is_loading: bool = False
        """Its worker has said that it has to rebuild the callable first."""
        self.set_running_or_notify_cancel()

    def end_with(self, value: Any) -> None:
        """Take the result."""
        with suppress(InvalidStateError):
            self.set_result(value)

    def fail_with(self, error: BaseException) -> None:
        """Take what went wrong."""
        with suppress(InvalidStateError):
            self.set_exception(error)
