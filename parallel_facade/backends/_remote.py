"""What all engines of others have in common: they carry bytes to workers that they own.

    submit ─► RemoteTask ──_send──► engine ──► run_remote, in a worker of the engine's
                 │  ▲                              │
        future ◄─┘  └── what it came to ◄──────────┘
                 ▲
               Watch: time that is up, a cluster without workers

The callable's payload is put into the engine's store, if it has one. Else it goes with the first
chunks, and a worker that has not got it says so:

    1. caller  sends a chunk without the call, as each worker should know it by now
    2. worker  is a new one, or has forgotten it: CALL_IS_MISSING; nothing was run
    3. caller  sends the chunk again, with the call

Guarantees:
    - Each future is resolved exactly once; where the engine does not tell, by `task_timeout`.
    - The engine sees a function of this library and bytes, so its pickler never meets the user's
      objects.

Assumes:
    - The engine resolves its futures in threads of its own, or in that of who cancels them.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Final

from parallel_facade._deadlines import Clock, Deadline
from parallel_facade._errors import BackendLostError, PoolClosedError, TaskTimeoutError
from parallel_facade._far_side import CALL_IS_MISSING, Parcel, versions_here
from parallel_facade._interrupts import SafeFuture
from parallel_facade._outcomes import Received
from parallel_facade._payload import Cargo
from parallel_facade._scopes import new_scope
from parallel_facade.backends import Backend, WorkerLost, WorkerSettings
from parallel_facade.backends._watch import Watch

SENT_ALWAYS: Final = 1 << 15
"""Bytes of a call that goes with each chunk: to find out whether a worker has it costs more."""

LOOK_SECONDS: Final = 0.5
"""How often the number of workers is looked at while there are tasks."""


class RemoteCall:
    """A call as an engine has it.

    Attributes:
        scope: Its name, by which workers know it.
        payload: Its bytes.
        stored: What the engine's store gave for them; `None` where there is no store.
        times_sent: With how many chunks it went.
    """

    def __init__(self, payload: bytes, stored: Any) -> None:
        self.scope = new_scope()
        self.payload = payload
        self.stored = stored
        self.times_sent = 0


class RemoteTask:
    """A chunk on its way.

    Attributes:
        call: What to apply.
        chunk: What to apply it to.
        seconds: How long it may run; `None` for ever.
        future: What is waited for.
        inner: The engine's own; `None` while there is none.
        deadline: When its time is up; `None` while it does not run.
    """

    def __init__(self, call: RemoteCall, chunk: Cargo, seconds: float | None) -> None:
        self.call = call
        self.chunk = chunk
        self.seconds = seconds
        self.future = RemoteFuture(self)
        self.inner: Future[Any] | None = None
        self.deadline: Deadline | None = None


class RemoteFuture(SafeFuture[Any]):
    """The future of a task, which is cancelled where the engine can cancel it."""

    def __init__(self, task: RemoteTask) -> None:
        super().__init__()
        self.task = task
        self._cancelling = threading.RLock()  # so that waiters are told once; R for callbacks

    def cancel(self) -> bool:
        """Cancel the task if it does not run yet, and return whether that worked."""
        inner = self.task.inner
        if self.done() or (inner is not None and not inner.cancel()):
            return self.cancelled()
        return self.end_cancelled()

    def end_cancelled(self) -> bool:
        """End as cancelled, and return whether that worked."""
        with self._cancelling:
            if not self.cancelled() and super().cancel():
                self.set_running_or_notify_cancel()
        return self.cancelled()

    def running(self) -> bool:
        """Return whether the engine says that the task runs."""
        inner = self.task.inner
        return not self.done() and inner is not None and inner.running()


class RemoteBackend(Backend):
    """Run chunks in the workers of an engine.

    Args:
        settings: How the workers shall be.
        clock: A monotonic clock in seconds.
    """

    has_store: bool = False
    """Whether `_store` puts bytes where workers fetch them once each."""

    tells_start: bool = False
    """Whether the engine's futures know when their tasks run. Else time runs from `submit`."""

    def __init__(self, settings: WorkerSettings, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._start_timeout = settings.start_timeout
        self._versions = tuple(versions_here())
        self._lock = threading.RLock()  # guards all below; R, as a collection may run `__del__`
        self._tasks: dict[Future[Any], RemoteTask] = {}
        self._stuck: set[Future[Any]] = set()  # the engine's, of tasks that were given up
        self._slots = settings.workers
        self._closed = False
        self._lost: BaseException | None = None
        self._without_workers: Deadline | None = None
        self._watch = Watch(self._look)

    # ── what an engine does ───────────────────────────────────────────────────────────────────

    @abstractmethod
    def _send(self, function_arguments: tuple[Any, ...]) -> Future[Any]:
        """Have a worker call `run_remote` with the arguments, among which are stored things."""

    def _store(self, data: Any) -> Any:
        """Put *data* into the engine's store; return what stands for it among arguments."""
        return data

    def _end(self, inner: Future[Any]) -> bool:  # noqa: ARG002
        """End the running task of *inner*; return whether the engine can."""
        return False

    def _count(self) -> int:
        """Ask the engine how many tasks it can run at a time; raise if it is lost."""
        return self._slots

    @abstractmethod
    def _close_engine(self) -> None:
        """Let go of the engine, without waiting for tasks."""

    # ── the back-end ──────────────────────────────────────────────────────────────────────────

    @property
    def is_usable(self) -> bool:
        """Whether the engine was not lost."""
        return self._lost is None

    def capacity(self) -> int:
        """Return how many workers the engine had lately, less those that will not come back."""
        return max(0, self._slots - len(self._stuck))

    def put(self, call: Cargo | bytes) -> RemoteCall:
        """Give the call a name, and to the engine's store."""
        data = call.data if isinstance(call, Cargo) else call
        return RemoteCall(data, self._store(Parcel(data)) if self.has_store else None)

    def submit(
        self, handle: RemoteCall, chunk: Cargo | bytes, task_timeout: float | None = None
    ) -> Future[Any]:
        """Send *chunk* to the engine."""
        cargo = chunk if isinstance(chunk, Cargo) else Cargo(chunk)
        task = RemoteTask(handle, cargo, task_timeout)
        with self._lock:
            if self._closed:
                raise PoolClosedError("the pool is closed")
            if self._lost is not None:
                raise self._lost
            self._tasks[task.future] = task
        task.future.add_done_callback(self._forget)
        try:
            self._start(task)
        except BaseException:
            self._forget(task.future)
            raise
        if task_timeout is not None or self.capabilities.is_remote:
            self._watch.wake()
        return task.future

    def stop(self, future: Future[Any]) -> bool:
        """End the running task behind *future*, where the engine can."""
        with self._lock:
            task = self._tasks.get(future)
        if task is None or task.inner is None or not self._end(task.inner):
            return False
        self._fail(task, TaskTimeoutError("the task was stopped"))
        return True

    def drop(self, handle: RemoteCall) -> None:
        """Let the engine's store forget the call."""
        handle.stored = None

    def close(self, *, cancel: bool) -> None:
        """Let go of the engine: after what is in flight or, with *cancel*, at once."""
        with self._lock:
            futures = list(self._tasks)
            self._closed = True
        if cancel:
            for future in futures:
                self._give_up(future)
        else:
            for future in futures:
                with suppress(BaseException):
                    future.exception()
        self._watch.join()
        self._close_engine()

    # ── sending ───────────────────────────────────────────────────────────────────────────────

    def _start(self, task: RemoteTask, *, again: bool = False) -> None:
        call = self._call_for(task.call, again=again)
        chunk = Parcel(task.chunk.data)
        buffers = [segment.stored for segment in task.chunk.segments]
        inner = self._send((self._versions, task.call.scope, call, chunk, *buffers))
        task.inner = inner
        inner.add_done_callback(lambda inner: self._arrived(task, inner))

    def _call_for(self, call: RemoteCall, *, again: bool) -> Any:
        """Return what to send of the call with the next chunk: it, or what stands for it."""
        if call.stored is not None:
            return call.stored
        with self._lock:
            call.times_sent += 1
            is_early = call.times_sent <= self.capacity()
        is_sent = again or is_early or len(call.payload) < SENT_ALWAYS
        return Parcel(call.payload) if is_sent else None

    # ── what comes back, in any thread ────────────────────────────────────────────────────────

    def _arrived(self, task: RemoteTask, inner: Future[Any]) -> None:
        if inner.cancelled():
            task.future.end_cancelled()
        elif (error := inner.exception()) is not None:
            self._fail(task, error)
        else:
            self._take(task, inner.result())

    def _take(self, task: RemoteTask, answer: Any) -> None:
        data = answer.data if isinstance(answer, Parcel) else answer
        if len(data) == len(CALL_IS_MISSING):
            try:
                self._start(task, again=True)
            except Exception as exc:
                self._fail(task, exc)
            return
        with suppress(InvalidStateError):  # it was given up
            task.future.set_result([Received(data)])

    def _fail(self, task: RemoteTask, error: BaseException) -> None:
        with suppress(InvalidStateError):  # it was given up, or cancelled
            task.future.set_exception(WorkerLost(self.translate(error)))

    def _give_up(self, future: Future[Any]) -> None:
        if not future.cancel() and not self.stop(future):
            task: RemoteTask = future.task  # type: ignore[attr-defined]
            self._fail(task, PoolClosedError("the pool was closed before the task had ended"))

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._tasks.pop(future, None)

    # ── looking after what takes long, in the thread of the watch ─────────────────────────────

    def _look(self) -> float | None:
        with self._lock:
            tasks = list(self._tasks.values())
        if not tasks:
            return None
        self._look_at_workers(tasks)
        seconds = [LOOK_SECONDS]
        for task in tasks:
            if (left := self._seconds_left(task)) == 0:
                self._time_out(task)
            elif left is not None:
                seconds.append(left)
        return min(seconds)

    def _seconds_left(self, task: RemoteTask) -> float | None:
        """Return how long *task* may still run; `None` if there is no limit, or it does not run."""
        if task.seconds is None or task.inner is None:
            return None
        if task.deadline is None and (not self.tells_start or self._has_begun(task.inner)):
            task.deadline = Deadline(task.seconds, clock=self._clock)
        return None if task.deadline is None else task.deadline.remaining()

    def _has_begun(self, inner: Future[Any]) -> bool:
        return inner.running()

    def _time_out(self, task: RemoteTask) -> None:
        inner = task.inner
        assert inner is not None, "it runs"
        # First, since to cancel the engine's future ends ours as cancelled.
        self._fail(task, TaskTimeoutError(f"a task took longer than {task.seconds:g} seconds"))
        if not inner.cancel() and not self._end(inner):
            self._note_stuck(inner)

    def _note_stuck(self, inner: Future[Any]) -> None:
        with self._lock:
            self._stuck.add(inner)
        inner.add_done_callback(self._note_unstuck)

    def _note_unstuck(self, inner: Future[Any]) -> None:
        with self._lock:
            self._stuck.discard(inner)

    def _look_at_workers(self, tasks: list[RemoteTask]) -> None:
        """Give up all tasks if the engine is lost, or has had no worker for too long."""
        try:
            self._slots = self._count()
        except Exception as exc:
            self._lose(tasks, self.translate(exc))
            return
        if self.capacity():
            self._without_workers = None
        elif self._without_workers is None:
            self._without_workers = Deadline(self._start_timeout, clock=self._clock)
        elif self._without_workers.has_passed():
            self._lose(tasks, self._no_workers())

    def _no_workers(self) -> BackendLostError:
        return BackendLostError(
            f"there has been no worker for {self._start_timeout:g} seconds, not counting "
            f"{len(self._stuck)} with tasks that took too long and cannot be stopped\n\n"
            "Hint: start workers, or wait longer for them: configure(start_timeout=SECONDS)."
        )

    def _lose(self, tasks: list[RemoteTask], error: BaseException) -> None:
        self._lost = error
        for task in tasks:
            self._fail(task, error)
            if task.inner is not None:
                task.inner.cancel()


def await_workers(
    count: Callable[[], int], seconds: float, sleep: Callable[[float], object] = time.sleep
) -> int:
    """Return how many workers there are, as soon as there are any; 0 if *seconds* have passed."""
    deadline = Deadline(seconds)
    while (workers := count()) == 0 and not deadline.has_passed():
        sleep(LOOK_SECONDS / 10)
    return workers
