"""The process back-end: pathos owns the processes, the manager thread talks to them.

    ServingPool (pathos)
        │ starts and replaces processes; each of them takes one call of `serve`
        ▼
    serve ══ private channel ══ ManagerThread ── submit / future

Two processes start with the pool, and others when there are more tasks than processes.

Guarantees:
    - `close` returns whatever the workers do; after it, no process, thread or file of this
      back-end is left.
    - A worker that exits is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from parallel_facade._common.error_notes import note_initializer
from parallel_facade._configuration.settings import default_start_method
from parallel_facade._serialization.buffers.object_store import Store
from parallel_facade._serialization.buffers.shared_memory import CAN_SHARE, SegmentPool
from parallel_facade._serialization.encoder import Payload
from parallel_facade._worker.outcomes import decode_report
from parallel_facade.backends.base import (
    Backend,
    Capabilities,
    Splitting,
    WorkerLost,
    WorkerSettings,
)
from parallel_facade.backends.kept_calls import KeptCalls
from parallel_facade.backends.process.crash_errors import InitializerError
from parallel_facade.backends.process.descriptor_handover import CAN_SEND_DESCRIPTORS
from parallel_facade.backends.process.manager_thread import ManagerThread
from parallel_facade.backends.process.process_tree import ProcessTree
from parallel_facade.backends.process.serving_pool import ServingPool
from parallel_facade.backends.process.starting.launcher import FIRST_WORKERS, WorkerContext
from parallel_facade.backends.process.starting.lifecycle_thread import LifecycleThread
from parallel_facade.backends.process.tasks import CallHandle, Task
from parallel_facade.backends.process.thread_limits import check_inner_threads_of_forks
from parallel_facade.backends.process.worker_handle import WorkerHandle
from parallel_facade.backends.process.worker_loop import serve, start_body

LEAVE_PATIENCE: Final = 5.0
"""Seconds that an idle worker has to exit by itself, including its exit handlers."""


class ProcessBackend(Backend):
    """Run chunks in processes of this machine."""

    capabilities: Capabilities = Capabilities(
        needs_serialization=True,
        survives_crashes=True,
        tells_what_ran=True,
        has_children=True,
        can_stop_running_task=True,
        can_time_tasks=True,
        has_private_state=True,
        can_initialize=True,
        can_recycle=True,
        can_limit_threads=True,
        can_take_back=True,
        can_queue=True,
    )

    def __init__(self, settings: WorkerSettings) -> None:
        self._workers = settings.workers
        initializer = settings.initializer
        assert not callable(initializer), "it crosses a border, as a payload"
        start_method = settings.start_method or default_start_method()
        if settings.must_limit_threads and start_method == "fork":
            check_inner_threads_of_forks(settings.inner_threads)
        self._segment_pool = SegmentPool() if CAN_SHARE and CAN_SEND_DESCRIPTORS else None
        self.segment_pool: SegmentPool | Store | None = self._segment_pool
        self.kept_calls = KeptCalls(lambda handle: self._manager.drop(handle))  # noqa: PLW0108
        self._pool = ServingPool()
        # In the caller's own thread: with start method "fork", workers are copies of it.
        self._context = WorkerContext(
            start_method,
            self._workers,
            lambda *made: self._manager.adopt(*made),  # noqa: PLW0108 - it is made later
            lambda error: self._manager.start_failed(f"{type(error).__name__}: {error}"),
            serve.__module__,
        )
        try:
            self._lifecycle = LifecycleThread(
                lambda: self._open(settings), self._release, self._start_another
            )
        except BaseException:
            self._context.close()
            raise
        self._lifecycle.open()

    def _open(self, settings: WorkerSettings) -> None:
        import psutil  # noqa: F401 - now: when a worker must be ended, files may have run out

        first_workers = min(self._workers, FIRST_WORKERS)
        self._manager = ManagerThread(
            start_body(settings),
            captures_stderr=settings.initializer is not None,
            workers=(first_workers, self._workers),
            on_worker_wanted=self._lifecycle.request_growth,
            on_worker_exit=self._pool.serve_once,
            on_broken=self._pool.end,
        )
        self._pool.open(self._workers, self._context)
        self._context.is_open = True
        for _ in range(first_workers):
            self._pool.serve_once()

    @property
    def is_usable(self) -> bool:
        """Whether workers can be started."""
        return self._manager.broken is None

    def capacity(self) -> int:
        """Return how many worker processes there may be."""
        return self._workers

    def put(self, call: Payload | bytes) -> CallHandle:
        """Store the call's payload for the workers that will need it."""
        return self._manager.put(_as_payload(call))

    def listen(self, handle: CallHandle, on_record: Callable[[bytes], object]) -> None:
        """Call *on_record* with each record of the call as soon as a worker sends it."""
        handle.on_record = on_record

    def submit(
        self,
        handle: CallHandle,
        chunk: Payload | bytes,
        task_timeout: float | None = None,
        *,
        is_short: bool = False,
        splitting: Splitting | None = None,
    ) -> Task:
        """Send *chunk* to the next idle worker; a short one may wait in a busy worker's channel."""
        task = Task(
            handle,
            _as_payload(chunk),
            task_timeout,
            is_short=is_short and task_timeout is None,
            splitting=splitting,
        )
        try:
            self._manager.submit(task)
        except InitializerError as exc:
            raise self.translate(exc) from None
        return task

    def allow_splits(self, handle: CallHandle, *, are_allowed: bool) -> None:
        """Let idle workers run parts of the call's running chunks, or no longer."""
        handle.control.allow_splits(handle, are_allowed=are_allowed)

    def translate(self, error: BaseException) -> BaseException:
        """Return the exception of the user's initializer, or the error that explains a crash."""
        if isinstance(error, InitializerError):
            raised = decode_report([error.report]).failures[0].to_raise()
            note_initializer(raised)
            return raised
        return error.error if isinstance(error, WorkerLost) else error

    def drop(self, handle: CallHandle) -> None:
        """Let the workers forget the call."""
        self._manager.drop(handle)

    def cancel_waiting(self) -> None:
        """Cancel the chunks that no worker has."""
        self._manager.cancel_waiting()

    def close(self, *, cancel: bool) -> None:
        """Stop the workers: after the chunks in flight or, with *cancel*, at once."""
        if cancel:
            self._manager.give_up()
        if self.runs_here():
            # Garbage collection runs the user's `__del__` in this thread: waiting would deadlock.
            self._lifecycle.request_close()
            return
        try:
            self._manager.wait_until_settled()
        finally:  # also after Ctrl-C
            self._manager.give_up()
            self._lifecycle.close()

    def runs_here(self) -> bool:
        """Return whether the current thread is the manager thread or the lifecycle thread."""
        return self._manager.runs_here() or self._lifecycle.runs_here()

    def _release(self) -> None:
        if self._pool.is_made:
            self._manager.wait_until_settled()
        # The pool first: while it is open, it replaces every worker that exits. If it could not be
        # made, the manager thread may not exist.
        self._pool.end()
        if hasattr(self, "_manager"):
            _join_or_kill(self._manager.close())
        self._pool.clear()
        self._context.close()
        del self._context
        if self._segment_pool is not None:
            self._segment_pool.close()

    def _start_another(self) -> None:
        if not self.is_usable:
            return
        try:
            self._context.start_another()
            self._pool.serve_once()
        except Exception as exc:  # our own bug: the lifecycle thread must still end the pool
            self._manager.start_failed(f"{type(exc).__name__}: {exc}")


def _as_payload(packed: Payload | bytes) -> Payload:
    """Return *packed* as a `Payload`; it is bytes where buffers cannot be shared."""
    return packed if isinstance(packed, Payload) else Payload(packed)


def _join_or_kill(workers: list[WorkerHandle]) -> None:
    """Wait for idle workers to exit; kill the others with their process trees."""
    busy = [
        ProcessTree(worker.process.pid)
        for worker in workers
        if worker.task is not None or worker.is_initializing
    ]
    for tree in busy:
        tree.kill()
    for worker in workers:
        if not worker.is_ready:
            # It has started no process, and is not suspended first: until it has its parent-death
            # watch, a suspended worker would outlive a caller that is killed at that moment.
            worker.process.kill()
    for worker in workers:
        worker.process.end(LEAVE_PATIENCE)
        worker.release()
