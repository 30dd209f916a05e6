"""The thread that talks to all workers.

    submit ─► pending ··· idle handle ──TASK──► worker
    (any thread)           │   ▲                  │
    future ◄── resolve ◄───┘   └───── REPORT ◄────┘     end of a channel = death of its worker
               (manager thread, no lock held)

Guarantees:
    - At most one worker begins each task, and each future is resolved exactly once.
    - A worker runs one task at a time; a short task of the same call may wait in its channel. The
      death of the worker loses only the item that it was running: for each other item the outcome
      is known, or it is known that the item did not run.
    - Futures are resolved with no lock held; no user object is decoded or called here.
    - No send or receive ever waits: a stopped worker or a full channel delays nothing else.
    - Only the manager thread hands out tasks and sends. An interrupt is raised in the main thread,
      so it cannot come between two steps of that.

Assumes:
    - The pool starts a new process for each one that exits, and `adopt` is called with it.
"""

from __future__ import annotations

import itertools
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from parallel_facade._common.callback_thread import CallbackThread
from parallel_facade._common.deadlines import Clock, Deadline
from parallel_facade._common.errors import PoolClosedError, TaskTimeoutError
from parallel_facade._common.interrupt_safety import SafeCondition
from parallel_facade._common.threads import new_thread
from parallel_facade._serialization.encoder import Payload
from parallel_facade._worker.outcomes import Received
from parallel_facade.backends.base import Stage, WorkerLost
from parallel_facade.backends.process.crash_errors import (
    START_ATTEMPTS,
    crash_error,
    garbage_error,
    start_error,
)
from parallel_facade.backends.process.descriptor_handover import send_descriptors
from parallel_facade.backends.process.journal import JournalSnapshot
from parallel_facade.backends.process.protocol import GarbageError, Message, MessageType
from parallel_facade.backends.process.reaper import Reaper
from parallel_facade.backends.process.scheduler import LARGE_CALL_BYTES, TaskScheduler
from parallel_facade.backends.process.starting.exit_codes import exit_reason
from parallel_facade.backends.process.startup_stderr import StartupStderr, pass_on
from parallel_facade.backends.process.tasks import CallHandle, Task
from parallel_facade.backends.process.work_stealing import WorkStealer
from parallel_facade.backends.process.worker_handle import WorkerHandle

_log = logging.getLogger("parallel_facade")


class ManagerThread:
    """Hands tasks to workers and their reports to futures.

    Args:
        start_body: The first message to each worker.
        captures_stderr: Whether to read what workers write to stderr before they serve.
        on_worker_exit: Called, in the manager thread, for each worker that has to be replaced.
        on_broken: Called there once, when workers cannot be started.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self,
        start_body: bytes,
        captures_stderr: bool,
        on_worker_exit: Callable[[], object],
        on_broken: Callable[[], object],
        clock: Clock = time.monotonic,
    ) -> None:
        self._start_body = start_body
        self._captures_stderr = captures_stderr
        self._on_worker_exit = on_worker_exit
        self._on_broken = on_broken
        self._clock = clock
        # Guards all state below. Reentrant: garbage collection may run anywhere
        # and call the user's __del__, which may call this object.
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._scheduler = TaskScheduler(self._numbers, clock, self._note_unsent, self._wake)
        self._stealer = WorkStealer(self._scheduler, self._lock, clock)
        self._dropped: deque[CallHandle] = deque()
        self._settled = SafeCondition(self._lock)  # nothing is pending or running any more
        self._lost: dict[
            WorkerHandle, list[Task]
        ] = {}  # tasks whose worker's process has not exited yet
        self._broken: BaseException | None = None
        self._starts_failed = 0
        self._closing = False
        self._has_given_up = False
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake_end = socket.socketpair()
        self._waker.setblocking(False)
        self._wake_end.setblocking(False)
        self._selector.register(self._waker, selectors.EVENT_READ, None)
        self._interest_changes: deque[WorkerHandle] = (
            deque()
        )  # workers whose interest in the selector has to change
        self._to_end: deque[WorkerHandle] = deque()  # workers to stop
        self._reaper = Reaper(clock)
        self._stderr_thread = CallbackThread("messages")
        self._thread = new_thread(self._run, name="manager")
        self._thread.start()

    # ── called from any thread ────────────────────────────────────────────────────────────────

    def put(self, payload: Payload) -> CallHandle:
        """Return a handle for a call; each worker is sent the payload when it first needs it."""
        return CallHandle(next(self._numbers), payload, self)

    def submit(self, task: Task) -> None:
        """Run *task* on the next idle worker."""
        with self._lock:
            if self._broken is not None:
                raise self._broken
            if self._closing:
                raise PoolClosedError("the process back-end is closed")
            # Else an earlier task has woken the thread or found no idle worker: a report will come.
            is_first = not self._scheduler.pending
            self._scheduler.add(task)
        if is_first:
            self._wake()
        task.add_done_callback(self._note_cancelling)

    def drop(self, handle: CallHandle) -> None:
        """Make the workers that know the call forget it, later; its tasks are not wanted."""
        # Only noted here: garbage collection closes a dropped iterator, and may run in this very
        # class, between two lines that hold the lock.
        self._dropped.append(handle)
        may_have_orphans = self._scheduler.has_tasks  # see `_end_orphans`
        if (handle.payload.size >= LARGE_CALL_BYTES or may_have_orphans) and not self.runs_here():
            self._wake()

    def stop(self, task: Task, error: BaseException) -> bool:
        """Stop the worker that runs *task*, which then fails with *error*."""
        with self._lock:
            if (worker := task.worker) is None:
                return False
            worker.may_run_again = False
            self._end(worker, error)
        self._wake()
        return True

    def progress(self, task: Task) -> list[Any]:
        """Return the outcomes of *task* so far; see `WorkStealer`."""
        return self._stealer.progress(task)

    def take_back(self, task: Task) -> int | None:
        """Offer the unstarted items of *task* to an idle worker; see `WorkStealer`."""
        return self._stealer.take_back(task)

    def adopt(self, process: Any, sock: socket.socket) -> None:
        """Take over the channel of a process that was just started."""
        worker = WorkerHandle(
            process, sock, send_descriptors(sock, captures_stderr=self._captures_stderr)
        )
        with self._lock:
            if self._closing:
                worker.release()
                return
            self._scheduler.workers.add(worker)
            worker.queue(MessageType.START, 0, self._start_body)
            self._interest_changes.append(worker)
        self._wake()

    def start_failed(self, reason: str, code: int | None = None, stderr: str = "") -> None:
        """Count a worker that could not start; give up when several in a row could not."""
        with self._lock:
            self._starts_failed += 1
            gives_up = self._starts_failed >= START_ATTEMPTS
        if gives_up:
            self._break(start_error(reason, code, stderr))

    def wait_until_settled(self) -> None:
        """Wait until no task is pending or running, or until `give_up` or `close` is called."""
        with self._settled:
            self._settled.wait_for(self._is_settled)

    def give_up(self) -> None:
        """End all waiting for tasks, now and later."""
        with self._settled:
            self._has_given_up = True
            self._settled.notify_all()

    def runs_here(self) -> bool:
        """Return whether the current thread is the manager thread."""
        return threading.current_thread() is self._thread

    def close(self) -> list[WorkerHandle]:
        """Accept no more tasks, give up existing tasks, and return the workers, channels closed.

        The caller waits for their processes to exit, and releases the workers.
        """
        with self._settled:
            self._closing = True
            workers = list(self._scheduler.workers)
            given_up = list(self._scheduler.all_tasks())
            self._scheduler.clear()
            self._settled.notify_all()
        self._wake()
        if not self.runs_here():
            self._thread.join()
        for worker in workers:
            worker.close()
        workers.extend(self._reaper.close())
        for task in (*given_up, *itertools.chain.from_iterable(self._lost.values())):
            task.give_up()
        self._stderr_thread.close()
        # Files close with the last reference to their holders, which may be one from this object.
        for holder in (self._interest_changes, self._to_end, self._lost):
            holder.clear()
        for resource in (self._selector, self._waker, self._wake_end):
            resource.close()
        return workers

    def _wake(self) -> None:
        """Wake the manager thread."""
        with suppress(BlockingIOError, OSError):  # full: it wakes anyway; closed: it has ended
            self._wake_end.send(b"\0")

    # ── with the lock held ────────────────────────────────────────────────────────────────────

    def _note_unsent(self, worker: WorkerHandle) -> None:
        self._interest_changes.append(worker)
        self._wake()

    def _run_elsewhere(self, tasks: list[Task]) -> list[Task]:
        """Requeue *tasks*, which were not begun, for other workers; return those that cannot be."""
        if self._broken is not None or self._closing:
            return tasks
        # The items of a task that was taken back are already on their way, in another task.
        self._scheduler.requeue([task for task in tasks if not task.is_taken_back])
        return [task for task in tasks if task.is_taken_back]

    def _end(self, worker: WorkerHandle, error: BaseException) -> None:
        """Mark *worker* to be stopped; its task then fails with *error*."""
        worker.stopped_for = error
        self._to_end.append(worker)

    def _is_settled(self) -> bool:
        if self._closing or self._has_given_up:
            return True
        return self._scheduler.is_clear

    def _notify_if_settled(self) -> None:
        if self._is_settled():
            self._settled.notify_all()

    def _note_cancelling(self, future: Future[Any]) -> None:
        if future.cancelled():
            with self._lock:
                self._notify_if_settled()

    # ── in the manager thread ─────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            self._serve_workers()
        except BaseException as exc:
            # Whatever the error is, no other thread will resolve the futures.
            self._break(exc)
            for worker in [*self._scheduler.workers, *self._lost]:
                for task in self._scheduler.take_all(worker):
                    task.fail(exc)
            raise

    def _serve_workers(self) -> None:
        while not self._closing:
            listened_at = self._clock()
            for key, events in self._selector.select(self._seconds_to_next()):
                if key.data is None:
                    with suppress(BlockingIOError):
                        self._waker.recv(4096)
                elif isinstance(key.data, StartupStderr):
                    self._listen(key.data)
                elif key.data in self._scheduler.workers and key.fd == key.data.end_fd:
                    self._note_end(key.data)
                elif key.data in self._scheduler.workers:
                    self._serve_worker(key.data, events)
            with self._lock:
                self._scheduler.hand_out()
            if self._scheduler.has_timed:
                self._stop_overdue(listened_at)
            self._end_stopped()
            for worker, code in self._reaper.poll_exits():
                self._finish_exit(worker, code)
            self._forget_dropped()
            if self._interest_changes:
                self._update_interest()

    def _serve_worker(self, worker: WorkerHandle, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            with self._lock:
                worker.flush()
                self._interest_changes.append(worker)
        if events & selectors.EVENT_READ:
            try:
                self._receive_all(worker)
            except EOFError:
                self._lose(worker)
            except GarbageError as exc:
                _log.error("a worker is replaced, since what it sent cannot be taken: %s", exc)
                with self._lock:
                    worker.stopped_for = garbage_error(str(exc))
                self._reaper.end(worker)
                self._lose(worker)

    def _receive_all(self, worker: WorkerHandle) -> None:
        worker.is_being_read = True
        try:
            while (message := worker.read()) is not None:
                self._receive(worker, message)
        finally:
            worker.is_being_read = False

    def _note_end(self, worker: WorkerHandle) -> None:
        """Handle the end of a worker's process; messages from it may still be unread."""
        self._serve_worker(worker, selectors.EVENT_READ)
        if worker in self._scheduler.workers:  # a copy of its end of the channel is open elsewhere
            self._lose(worker)

    def _receive(self, worker: WorkerHandle, message: Message) -> None:
        if message.kind == MessageType.READY:
            with self._lock:
                worker.is_ready = True
                self._starts_failed = 0
                self._scheduler.free(worker)
                self._scheduler.hand_out()
        elif message.kind == MessageType.FAILED:
            self._break(InitializerError(bytes(message.body)))
        elif message.kind == MessageType.RETURNED:
            worker.take_returned(message.body)
        elif message.kind == MessageType.RECORD:
            self._pass_on_record(worker, message)
        elif worker.task is None or worker.task.number != message.number:
            raise GarbageError(f"{message.kind.name} of a task that the worker does not have")
        elif message.kind == MessageType.PART:
            worker.task.parts.append(Received(message.body, message.mapped_segments))
        elif message.kind == MessageType.STARTED:
            with self._lock:
                worker.task.deadline = Deadline(worker.task.task_timeout, clock=self._clock)
        else:
            self._end_task(worker, message)

    def _pass_on_record(self, worker: WorkerHandle, message: Message) -> None:
        # A thread that an earlier task has left behind may still send records.
        if worker.task is not None and worker.task.number == message.number:
            worker.task.call.on_record(bytes(message.body))

    def _end_task(self, worker: WorkerHandle, message: Message) -> None:
        with self._lock:
            task = self._scheduler.take(worker)
        stopped_for = None
        unbegun: list[Task] = []
        try:
            with self._lock:
                # A task that was to be stopped may end before its worker is told to exit: then its
                # outcome counts. A worker that was told to exit takes no other task.
                stopped_for = worker.stopped_for if worker.is_leaving else None
                worker.stopped_for = None
                worker.may_run_again = True
                worker.is_leaving |= message.kind == MessageType.LAST_REPORT
                if message.kind == MessageType.LAST_REPORT:
                    unbegun = self._run_elsewhere(self._scheduler.take_all(worker))
                self._go_on(worker)
                self._notify_if_settled()
        finally:  # now the task is in none of the lists that `_run` goes through
            if stopped_for is not None:
                task.set_exception(WorkerLost(stopped_for))
            else:
                task.set_result([*task.parts, Received(message.body, message.mapped_segments)])
            for one in unbegun:
                one.leave()

    def _go_on(self, worker: WorkerHandle) -> None:
        """Continue after a task of the worker has ended; call this with the lock held."""
        if not worker.tasks and not worker.is_leaving:
            worker.resume()
            self._scheduler.free(worker)
        self._scheduler.hand_out()

    def _listen(self, startup_stderr: StartupStderr) -> None:
        try:
            if data := startup_stderr.read():
                self._stderr_thread.call_soon(pass_on, data)
        except EOFError:
            self._selector.unregister(startup_stderr.fd)

    def _lose(self, worker: WorkerHandle) -> None:
        """Handle the end of a channel: its worker left, was stopped, or died."""
        self._selector.unregister(worker.socket)
        if worker.end_fd is not None:
            self._selector.unregister(worker.end_fd)
        with self._lock:
            self._scheduler.remove(worker)
            if worker.tasks:
                self._lost[worker] = list(worker.tasks)
        worker.close()
        self._reaper.watch_exit(worker)

    def _finish_exit(self, worker: WorkerHandle, code: int | None) -> None:
        """Finish the exit of a worker that has exited, or did not exit in time after SIGKILL."""
        stderr = ""
        if worker.startup_stderr is not None:
            with suppress(KeyError):  # the end of its stderr was seen before
                self._listen(worker.startup_stderr)
                self._selector.unregister(worker.startup_stderr.fd)
            stderr = worker.startup_stderr.text()
        if self._lost.pop(worker, None) is not None:
            self._end_lost(worker, code)
        worker.release()
        with self._lock:
            self._notify_if_settled()
        if not worker.is_ready and not worker.is_leaving:
            self.start_failed(exit_reason(code), code, stderr)
        if self._broken is None and not self._closing:
            self._on_worker_exit()

    def _end_lost(self, worker: WorkerHandle, code: int | None) -> None:
        """Fail the tasks of a worker that has exited, or requeue those that were not begun."""
        with self._lock:
            tasks = self._scheduler.take_all(worker)
        progress = _progress(worker)
        # The worker may have died of something earlier, such as a callable that was dropped. A task
        # that waited behind another one has not tried this worker at all.
        again = [
            task
            for place, task in enumerate(tasks)
            if task.stage_in(progress) is Stage.CALLABLE
            and worker.may_run_again
            and (place > 0 or task.attempts < START_ATTEMPTS)
        ]
        with self._lock:
            refused = self._run_elsewhere(again)
        error = worker.stopped_for or crash_error(code)
        for task in tasks:
            if task not in again or task in refused:
                stage = task.stage_in(progress)
                parts = task.parts
                if progress is not None and stage is Stage.ITEMS:
                    parts = task.parts_so_far(progress)
                task.set_exception(WorkerLost(error, stage, tuple(parts)))

    def _break(self, error: BaseException) -> None:
        """Fail everything: no workers can be started."""
        with self._lock:
            if self._broken is not None:
                return
            self._broken = error
            failed = list(self._scheduler.pending)
            self._scheduler.pending.clear()
            self._notify_if_settled()
        for task in failed:
            if task.is_wanted():
                task.set_exception(error)
        self._on_broken()

    def _seconds_to_next(self) -> float | None:
        if self._to_end:
            return 0
        seconds = self._reaper.seconds_to_next()
        if not self._scheduler.has_timed:
            return seconds
        with self._lock:
            tasks = list(filter(None, map(_task_of, self._scheduler.workers)))
        left = [seconds, *(task.deadline.remaining() for task in tasks)]
        return min((one for one in left if one is not None), default=None)

    def _stop_overdue(self, listened_at: float) -> None:
        """Stop the tasks whose deadline had passed when the last poll began.

        Not those whose deadline has passed by now:

        1. manager thread  polls, and receives nothing
        2. worker          sends that it has rebuilt the callable, just in time
        3. manager thread  is late to check the clock, because the machine is busy
        """
        for worker in list(self._scheduler.workers):
            with self._lock:
                self._stop_if_overdue(worker, listened_at)

    def _stop_if_overdue(self, worker: WorkerHandle, listened_at: float) -> None:
        if worker.task is not None and worker.task.deadline.is_before(listened_at):
            limit = worker.task.deadline.seconds
            what = "a task" if limit == worker.task.task_timeout else "rebuilding a callable"
            self._end(worker, TaskTimeoutError(f"{what} took longer than {limit:g} seconds"))
            worker.task.deadline = Deadline(None)

    def _end_stopped(self) -> None:
        while self._to_end:
            worker = self._to_end.popleft()
            with self._lock:
                # Its task may have ended meanwhile; then the worker belongs to another task.
                if (
                    worker.stopped_for is None
                    or worker.is_leaving
                    or worker not in self._scheduler.workers
                ):
                    continue
                worker.is_leaving = True
            self._reaper.end(worker)

    def _forget_dropped(self) -> None:
        """Forget the calls that were dropped, and stop their remaining tasks."""
        while self._dropped:
            handle = self._dropped.popleft()
            if self._scheduler.has_tasks:
                self._end_orphans(handle)
            with self._lock:
                self._scheduler.forget(handle)

    def _end_orphans(self, handle: CallHandle) -> None:
        """Stop those tasks of a call that its caller does not know.

        1. main thread  submits a task, which a worker begins
        2. user         presses Ctrl-C; the interrupt is raised before `submit` has returned
        3. caller       stops the tasks that it knows, and drops the call
        """
        with self._lock:
            tasks = list(self._scheduler.all_tasks())
        for task in tasks:
            if task.call is handle and not task.cancel():
                self.stop(task, PoolClosedError("the call was given up"))

    def _update_interest(self) -> None:
        """Update the selector: new workers, and workers that have or no longer have unsent data."""
        with self._lock:
            changed = self._scheduler.workers.intersection(self._interest_changes)
            self._interest_changes.clear()
        for worker in changed:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.has_unsent else 0)
            if worker.socket in self._selector.get_map():
                self._selector.modify(worker.socket, events, worker)
            else:
                self._selector.register(worker.socket, events, worker)
                if worker.end_fd is not None:
                    self._selector.register(worker.end_fd, selectors.EVENT_READ, worker)
                if worker.startup_stderr is not None:
                    self._selector.register(
                        worker.startup_stderr.fd, selectors.EVENT_READ, worker.startup_stderr
                    )

    @property
    def broken(self) -> BaseException | None:
        """Why no worker can be started; `None` if workers can be."""
        return self._broken


class InitializerError(Exception):
    """An initializer raised; *report* holds the exception, which the caller's thread decodes."""

    def __init__(self, report: bytes) -> None:
        super().__init__(report)
        self.report = report


def _task_of(worker: WorkerHandle) -> Task | None:
    return worker.task


def _progress(worker: WorkerHandle) -> JournalSnapshot | None:
    """Return how far the worker came, if that can be known."""
    try:
        return worker.progress()
    except Exception:  # a task has overwritten its worker's journal
        _log.exception("the journal of a worker cannot be read")
        return None
