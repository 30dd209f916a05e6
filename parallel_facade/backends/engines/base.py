"""The common base of all third-party engines: send bytes to workers that the engine owns.

    submit ─► RemoteTask ─► waiting ──send──► engine ──► run_remote, in a worker of the engine
                 │  ▲        can be cancelled here         │
        future ◄─┘  └── report or error ◄──────────────────┘
                 ▲
               PollingThread: tasks over their time-out, a cluster without workers

Most engines cannot say whether a task runs yet. So each task that was sent counts as running, and
the engine gets only as many tasks as its workers can begin; several for each worker only if they
are short.

The callable's payload is put into the engine's store, if there is one. Otherwise it goes with the
first chunks, and a worker that does not have it reports that:

    1. caller  sends a chunk without the call, because each worker should have it by now
    2. worker  is new, or has forgotten the call: it returns CALL_IS_MISSING, and runs nothing
    3. caller  sends the chunk again, with the call

Guarantees:
    - Each future is resolved exactly once; if the engine reports nothing, by `task_timeout`.
    - The engine gets a function of this library and bytes, so it never pickles the user's objects.

Assumes:
    - The engine resolves its futures in its own threads, or in the thread that cancels them.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Final
from weakref import WeakSet

from parallel_facade._common.deadlines import Clock, Deadline
from parallel_facade._common.errors import BackendLostError, PoolClosedError
from parallel_facade._common.interrupt_safety import SafeCondition
from parallel_facade._common.polling_thread import PollingThread
from parallel_facade._common.task_errors import TaskTimeoutError
from parallel_facade._serialization.buffers.object_store import OutOfBandBytes, Store, unwrapped
from parallel_facade._serialization.buffers.shared_memory import SegmentPool
from parallel_facade._serialization.encoder import Payload
from parallel_facade._worker.outcomes import Received
from parallel_facade._worker.remote_entry import CALL_IS_MISSING, versions_here
from parallel_facade.backends.base import LOAD_PATIENCE, Backend, TaskFuture, WorkerSettings
from parallel_facade.backends.engines.tasks import (
    EngineFuture,
    RemoteCall,
    RemoteFuture,
    RemoteTask,
)

SENT_ALWAYS: Final = 1 << 15
"""A call of fewer bytes goes with each chunk: finding out whether a worker has it costs more."""
POLL_SECONDS: Final = 0.5
"""Seconds between two polls of the number of workers while there are tasks."""


class RemoteBackend(Backend):
    """Run chunks in the workers of an engine.

    Args:
        settings: The settings of the workers.
        clock: A monotonic clock in seconds.
    """

    has_store: bool = False
    """Whether `store` puts bytes where each worker fetches them only once."""

    is_paced: bool = True
    """Whether the engine gets only as many tasks as its workers can begin."""

    def __init__(self, settings: WorkerSettings, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._start_timeout = settings.start_timeout
        self._versions = tuple(versions_here())
        if self.has_store:
            self.segment_pool: SegmentPool | Store | None = Store(
                lambda data: self.store(OutOfBandBytes(data))
            )
        self._lock = threading.RLock()  # guards all below; R: garbage collection may run `__del__`
        self._idle = SafeCondition(self._lock)  # there are no tasks
        self._tasks: dict[RemoteFuture, RemoteTask] = {}
        self._waiting: deque[RemoteTask] = deque()
        self._in_engine = 0
        # The engine's futures of given-up tasks: those that still run, and those yet to be ended.
        self._never_ending: set[Future[Any]] | WeakSet[Future[Any]] = set()
        self._unwanted: deque[Future[Any]] = deque()
        self._slots = settings.workers
        self._closed = False
        self._engine_is_open = True
        self._lost: BaseException | None = None
        self._without_workers: Deadline | None = None
        self._supervisor = PollingThread(self._poll)

    # ── what an engine implements ─────────────────────────────────────────────────────────────

    @abstractmethod
    def send(self, function_arguments: tuple[Any, ...]) -> Future[Any]:
        """Make a worker call `run_remote` with the arguments; some come from `store`."""

    def store(self, data: Any) -> Any:
        """Put *data* into the engine's store; return the argument that refers to it."""
        return data

    def end(self, inner: Future[Any]) -> bool:  # noqa: ARG002
        """End the running task of *inner*; return whether the engine can do that."""
        return False

    def find_workers(self, seconds: float) -> bool:
        """Wait for workers; return whether there are any within *seconds*."""
        deadline = Deadline(seconds, clock=self._clock)
        while (slots := self.count()) == 0 and not deadline.has_passed():
            time.sleep(POLL_SECONDS / 10)
        self._slots = slots
        return slots > 0

    def count(self) -> int:
        """Return how many tasks the engine can run at a time; raise if it is lost."""
        return self._slots

    @abstractmethod
    def close_engine(self) -> None:
        """Release the engine, without waiting for tasks."""

    # ── the back-end ──────────────────────────────────────────────────────────────────────────

    @property
    def is_usable(self) -> bool:
        """Whether the engine was not lost."""
        return self._lost is None

    def capacity(self) -> int:
        """Return the number of workers at the last poll, minus those with stuck tasks."""
        return max(0, self._slots - len(self._never_ending))

    def put(self, call: Payload | bytes) -> RemoteCall:
        """Give the call an id, and put it into the engine's store if there is one."""
        data = call.data if isinstance(call, Payload) else call
        return RemoteCall(data, self.store(OutOfBandBytes(data)) if self.has_store else None)

    def listen(self, handle: RemoteCall, on_record: Callable[[bytes], object]) -> None:
        """Call *on_record* when a chunk has ended, with each relayed record of its tasks."""
        handle.on_record = on_record

    def submit(
        self,
        handle: RemoteCall,
        chunk: Payload | bytes,
        task_timeout: float | None = None,
        *,
        is_short: bool = False,
    ) -> TaskFuture:
        """Send *chunk* to the engine, now or as soon as a worker can begin it."""
        payload = chunk if isinstance(chunk, Payload) else Payload(chunk)
        task = RemoteTask(handle, payload, task_timeout, self._stop, is_short=is_short)
        with self._lock:
            if self._closed:
                raise PoolClosedError("the pool is closed")
            if self._lost is not None:
                raise self._lost
            self._tasks[task.future] = task
        task.future.add_done_callback(self._note_cancelling)
        if self.is_paced:
            self._waiting.append(task)
            self._hand_out()
        else:
            self._start_or_forget(task)
        if task_timeout is not None or self.capabilities.is_remote or self._never_ending:
            self._supervisor.wake()
        return task.future

    def _start_or_forget(self, task: RemoteTask) -> None:
        self._enter_engine()
        try:
            self._start(task)
        except BaseException:
            self._leave_engine()
            self._forget(task.future)
            raise

    def drop(self, handle: RemoteCall) -> None:
        """Remove the call from the engine's store."""
        handle.stored = None

    def cancel_waiting(self) -> None:
        """Cancel the tasks that the engine has not begun, as far as it can."""
        with self._lock:
            futures = list(self._tasks)
        for future in reversed(futures):  # so that none gets the place of one that is cancelled
            future.cancel()

    def close(self, *, cancel: bool) -> None:
        """Release the engine: after the tasks in flight or, with *cancel*, at once."""
        with self._lock:
            futures = list(self._tasks)
            self._closed = True
        if cancel:
            self.cancel_waiting()
            for future in futures:
                self._give_up(future)
        else:
            with self._idle:
                self._idle.wait_for(lambda: not self._tasks)
        self._supervisor.join()
        with self._lock:
            is_open, self._engine_is_open = self._engine_is_open, False
        if is_open:
            self.close_engine()

    # ── sending ───────────────────────────────────────────────────────────────────────────────

    def _hand_out(self) -> None:
        """Send the engine as many tasks as its workers can begin."""
        while (task := self._next()) is not None:
            try:
                self._start(task)
            except Exception as exc:
                self._leave_engine()
                self._fail(task, exc)

    def _next(self) -> RemoteTask | None:
        """Return the next task for the engine, if the engine has room for it."""
        with self._lock:
            self._drop_cancelled()
            if not self._waiting:
                return None
            each = self.chunks_in_flight if self._waiting[0].is_short else 1
            if self._in_engine >= each * self._slots:
                return None
            self._in_engine += 1
            return self._waiting.popleft()

    def _drop_cancelled(self) -> None:
        while self._waiting and self._waiting[0].future.done():
            self._waiting.popleft()

    def _enter_engine(self) -> None:
        with self._lock:
            self._in_engine += 1

    def _leave_engine(self) -> None:
        with self._lock:
            self._in_engine -= 1

    def _start(self, task: RemoteTask, *, again: bool = False) -> None:
        """Send *task*, unless its future has ended.

        It may be given up while it is being sent:

            1. this method  stores the engine's future, then checks whether the task has ended
            2. `stop`       marks the task as ended, then looks for the engine's future
            3. supervisor   ends it: this may be a thread of the engine, which must not call it
        """
        if not task.future.may_be_sent():
            self._leave_engine()
            return
        call = self._call_for(task.call, again=again)
        chunk = OutOfBandBytes(task.chunk.data)
        buffers = [one.stored for one in task.chunk.segments]
        private = self.capabilities.has_private_state
        inner = self.send((self._versions, private, task.call.call_id, call, chunk, *buffers))
        task.inner = inner
        inner.add_done_callback(lambda inner: self._arrived(task, inner))
        if task.future.done() and not inner.done():
            self._unwanted.append(inner)
            self._supervisor.wake()

    def _call_for(self, call: RemoteCall, *, again: bool) -> Any:
        """Return the call to send with the next chunk: a reference, its bytes, or `None`."""
        if call.stored is not None:
            return call.stored
        with self._lock:
            call.times_sent += 1
            is_early = call.times_sent <= self.capacity()
        is_sent = again or is_early or len(call.payload) < SENT_ALWAYS
        return OutOfBandBytes(call.payload) if is_sent else None

    # ── results, in any thread ────────────────────────────────────────────────────────────────

    def _arrived(self, task: RemoteTask, inner: Future[Any]) -> None:
        self._leave_engine()
        self._settle(task, inner)
        if self.is_paced:
            self._hand_out()

    def _settle(self, task: RemoteTask, inner: Future[Any]) -> None:
        task.inner = None
        if inner.cancelled():
            task.future.end_cancelled()
        elif (error := inner.exception()) is not None:
            self._fail(task, error)
        else:
            self._take(task, inner.result())

    def _take(self, task: RemoteTask, answer: Any) -> None:
        records, report = answer if isinstance(answer, tuple) else ((), answer)
        for record in records:
            task.call.on_record(record)
        data = unwrapped(report)
        if len(data) == len(CALL_IS_MISSING):
            self._start_again(task)
            return
        with suppress(InvalidStateError):  # it was given up
            task.future.set_result([Received(data)])
        self._forget(task.future)

    def _start_again(self, task: RemoteTask) -> None:
        self._enter_engine()
        try:
            self._start(task, again=True)
        except Exception as exc:
            self._leave_engine()
            self._fail(task, exc)

    def _fail(self, task: RemoteTask, error: BaseException) -> None:
        with suppress(InvalidStateError):  # it was given up, or cancelled
            task.future.set_exception(self.translate(error))
        self._forget(task.future)

    def _stop(self, task: RemoteTask) -> bool:
        """Stop the running *task*, where the engine can."""
        if not self.capabilities.can_stop_running_task:
            return False
        task.future.end_cancelled()  # first: the engine may report its end at once
        if (inner := task.inner) is not None:
            return self.end(inner)
        # If it is being sent, it is ended as soon as the engine has it.
        return bool(task.future.cancelled())

    def _give_up(self, future: RemoteFuture) -> None:
        if future.cancel():
            return
        task = future.task
        if task is not None:
            inner = task.inner
            self._fail(task, PoolClosedError("the pool was closed before the task had ended"))
            if inner is not None:
                self.end(inner)

    def _note_cancelling(self, future: Any) -> None:
        if future.cancelled():
            self._forget(future)

    def _forget(self, future: RemoteFuture) -> None:
        """Release a task that has ended, after all its waiters were notified."""
        with self._idle:
            self._tasks.pop(future, None)
            if not self._tasks:
                self._idle.notify_all()
        future.task = None

    # ── long tasks and lost workers, in the supervisor thread ─────────────────────────────────

    def _poll(self) -> float | None:
        self._end_unwanted()
        with self._lock:
            tasks = list(self._tasks.values())
        if not tasks:
            self._without_workers = None
            return None
        self._poll_workers(tasks)
        seconds = [POLL_SECONDS]
        for task in tasks:
            if (inner := task.inner) is None:
                continue
            if (left := self._seconds_left(task, inner)) == 0:
                self._time_out(task, inner)
            elif left is not None:
                seconds.append(left)
        return min(seconds)

    def _end_unwanted(self) -> None:
        while self._unwanted:
            inner = self._unwanted.popleft()
            with suppress(Exception):  # the engine is lost, and the task with it
                _ = inner.cancel() or self.end(inner)

    def _seconds_left(self, task: RemoteTask, inner: Future[Any]) -> float | None:
        """Return how long *inner* may still run; `None` without a limit or before it begins."""
        if task.seconds is None:
            return None
        if not _has_begun(inner):
            return None
        is_loading = isinstance(inner, EngineFuture) and inner.is_loading
        # No deadline yet, or that of a worker without the call, or with the call rebuilt by now.
        if task.timed != (inner, is_loading):
            seconds = LOAD_PATIENCE if is_loading else task.seconds
            task.timed, task.deadline = (inner, is_loading), Deadline(seconds, clock=self._clock)
        return task.deadline.remaining()

    def _time_out(self, task: RemoteTask, inner: Future[Any]) -> None:
        if task.inner is not inner:  # it has just ended
            return
        # First, because cancelling the engine's future ends ours as cancelled.
        what = "rebuilding a callable" if task.timed == (inner, True) else "a task"
        limit = task.deadline.seconds
        self._fail(task, TaskTimeoutError(f"{what} took longer than {limit:g} seconds"))
        if not inner.cancel() and not self.end(inner):
            self._note_never_ending(inner)

    def _note_never_ending(self, inner: Future[Any]) -> None:
        with self._lock:
            self._never_ending.add(inner)
        inner.add_done_callback(self._note_ended_late)

    def _note_ended_late(self, inner: Future[Any]) -> None:
        with self._lock:
            self._never_ending.discard(inner)

    def _poll_workers(self, tasks: list[RemoteTask]) -> None:
        """Give up all tasks if the engine is lost, or has had no worker for too long."""
        try:
            self._slots = self.count()
        except Exception as exc:
            self._lose(tasks, self.translate(exc))
            return
        if self.is_paced:
            self._hand_out()
        if self.capacity():
            self._without_workers = None
        elif self._without_workers is None:
            self._without_workers = Deadline(self._start_timeout, clock=self._clock)
        elif self._without_workers.has_passed():
            self._lose(tasks, self._no_workers())

    def _no_workers(self) -> BackendLostError:
        return BackendLostError(
            f"no worker was free for {self._start_timeout:g} seconds; "
            f"{len(self._never_ending)} still run tasks that took too long and cannot be stopped"
            "\n\n"
            "Hint: start workers, or wait longer for them: configure(start_timeout=SECONDS)."
        )

    def _lose(self, tasks: list[RemoteTask], error: BaseException) -> None:
        self._lost = error
        for task in tasks:
            inner = task.inner
            self._fail(task, error)
            if inner is not None:
                inner.cancel()


def _has_begun(inner: Future[Any]) -> bool:
    return inner.has_begun if isinstance(inner, EngineFuture) else inner.running()
