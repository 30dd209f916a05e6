"""A call and its tasks, as the caller keeps them while an engine runs them.

    RemoteFuture, which the caller waits for ◄── RemoteTask ──► the engine's own future,
                                                                else an EngineFuture

Guarantees:
    - A future is cancelled once, and its waiters are notified once.
    - A task that the caller knows to be cancelled is not sent any more.
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
    """A call that an engine runs.

    Attributes:
        call_id: Its id, by which workers recognize it.
        payload: Its bytes.
        stored: The reference from the engine's store; `None` if there is no store.
        times_sent: How many chunks of it were sent, if there is no store.
        on_record: Takes the relayed records of its tasks.
    """

    def __init__(self, payload: bytes, stored: Any) -> None:
        self.call_id: str = new_call_id()
        self.payload = payload
        self.stored = stored
        self.times_sent = 0
        self.on_record: Callable[[bytes], object] = ignore


class RemoteTask:
    """A chunk that is waiting, being sent, or in the engine.

    Attributes:
        call: The call to apply.
        chunk: The chunk to apply it to.
        seconds: How long it may run; `None` for no limit.
        stop: Stops it while it runs; returns whether the engine can.
        is_short: Whether it may wait in the engine behind another task.
        future: The future that the caller waits for.
        inner: The engine's own future; `None` while there is none.
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
        self.future: RemoteFuture = RemoteFuture(self)
        self.inner: Future[Any] | None = None
        self.timed: tuple[Future[Any], bool] | None = None
        self.deadline: Deadline = Deadline(None)


class RemoteFuture(TaskFuture):
    """The future of a task; it can be cancelled if the engine can cancel the task."""

    def __init__(self, task: RemoteTask) -> None:
        super().__init__()
        self.task: RemoteTask | None = task
        """`None` when it has ended, so that nothing of it waits for the garbage collector."""
        self._is_sent = False
        self._cancelling = threading.RLock()  # guards _is_sent, notifies once; R for callbacks

    @property
    def inner(self) -> Future[Any] | None:
        """The engine's own future; `None` before it exists and after the task has ended."""
        task = self.task
        return None if task is None else task.inner

    def stop(self) -> bool:
        """Stop the running task, where the engine can."""
        task = self.task
        return task is not None and task.stop(task)

    def cancel(self) -> bool:
        """Cancel the task if it does not run yet; return whether that worked."""
        inner = self.inner
        if self.done() or (inner is not None and not inner.cancel()):
            return self.cancelled()
        with self._cancelling:
            if inner is None and self._is_sent:  # being sent to the engine, perhaps again
                return self.cancelled()
            return self.end_cancelled()

    def may_be_sent(self) -> bool:
        """Return whether the task has not ended; then only the engine can cancel it from now on."""
        with self._cancelling:
            self._is_sent = not self.done()
            return self._is_sent

    def end_cancelled(self) -> bool:
        """End as cancelled; return whether that worked."""
        with self._cancelling:
            if not self.cancelled() and super().cancel():
                self.set_running_or_notify_cancel()
        return self.cancelled()

    def running(self) -> bool:
        """Return whether the engine says that the task runs."""
        inner = self.inner
        return not self.done() and inner is not None and inner.running()


class EngineFuture(SafeFuture[Any]):
    """The future of a task, for an engine that does not use the standard library's futures.

    Threads of the engine update it, in any order, and more than once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.has_begun: bool = False
        """Whether the worker has reported that the task runs."""
        self.is_loading: bool = False
        """Its worker has said that it has to rebuild the callable first."""
        self.set_running_or_notify_cancel()

    def end_with(self, value: Any) -> None:
        """Set the result, unless the future has ended."""
        with suppress(InvalidStateError):
            self.set_result(value)

    def fail_with(self, error: BaseException) -> None:
        """Set the error, unless the future has ended."""
        with suppress(InvalidStateError):
            self.set_exception(error)
