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
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from parallel_facade._common.callback_thread import CallbackThread
from parallel_facade._common.deadlines import Clock, Deadline
from parallel_facade._common.errors import PoolClosedError
from parallel_facade._common.interrupt_safety import SafeCondition
from parallel_facade._common.threads import new_thread
from parallel_facade._serialization.encoder import Payload
from parallel_facade._worker.outcomes import Received
from parallel_facade.backends.base import WorkerLost
from parallel_facade.backends.process.channel_selector import ChannelSelector, Event
from parallel_facade.backends.process.crash_errors import (
    START_ATTEMPTS,
    InitializerError,
    garbage_error,
    start_error,
)
from parallel_facade.backends.process.descriptor_handover import send_descriptors
from parallel_facade.backends.process.protocol import GarbageError, Message, MessageType
from parallel_facade.backends.process.reaper import Reaper
from parallel_facade.backends.process.scheduler import LARGE_CALL_BYTES, TaskScheduler
from parallel_facade.backends.process.starting.exit_codes import exit_reason
from parallel_facade.backends.process.startup_stderr import StartupStderr, pass_on
from parallel_facade.backends.process.task_control import TaskControl
from parallel_facade.backends.process.task_stopper import TaskStopper
from parallel_facade.backends.process.tasks import CallHandle, SentCall, Task
from parallel_facade.backends.process.work_stealing import WorkStealer
from parallel_facade.backends.process.worker_handle import WorkerHandle
from parallel_facade.backends.process.worker_loss import WorkerLoss

_log = logging.getLogger("parallel_facade")


class ManagerThread:
    """Hands tasks to workers and their reports to futures.

    Args:
        start_body: The first message to each worker.
        captures_stderr: Whether to read what workers write to stderr before they serve.
        workers: How many workers were started at first, and how many there may be.
        on_worker_wanted: Called, in the manager thread, for each further worker.
        on_worker_exit: Called, in the manager thread, for each worker that has to be replaced.
        on_broken: Called once, in the manager thread, if workers cannot be started.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self,
        start_body: bytes,
        *,
        captures_stderr: bool,
        workers: tuple[int, int],
        on_worker_wanted: Callable[[], object],
        on_worker_exit: Callable[[], object],
        on_broken: Callable[[], object],
        clock: Clock = time.monotonic,
    ) -> None:
        self._start_body = start_body
        self._captures_stderr = captures_stderr
        self._on_worker_wanted = on_worker_wanted
        self._on_worker_exit = on_worker_exit
        self._on_broken = on_broken
        self._clock = clock
        # Guards all state below. Reentrant: garbage collection may run anywhere
        # and call the user's __del__, which may call this object.
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._selector = ChannelSelector()
        self._scheduler = TaskScheduler(self._numbers, clock, self._selector.wake)
        self._started, self._most_workers = workers
        self._stealer = WorkStealer(self._scheduler, self._lock, clock)
        self._reaper = Reaper(clock)
        self._stopper = TaskStopper(self._scheduler, self._lock, self._reaper)
        self._loss = WorkerLoss(self._scheduler, self._lock, self._reaper, self._run_elsewhere)
        self._control = TaskControl(self._stopper, self._stealer, self._selector.wake)
        self._dropped: deque[CallHandle] = deque()
        self._settled = SafeCondition(self._lock)  # nothing is pending or running any more
        self._broken: BaseException | None = None
        self._starts_failed = 0
        self._closing = False
        self._has_given_up = False
        self._stderr_thread = CallbackThread("messages")
        self._thread = new_thread(self._run, name="manager")
        self._thread.start()

    # ── called from any thread ────────────────────────────────────────────────────────────────

    def put(self, payload: Payload) -> CallHandle:
        """Return a handle for a call; each worker is sent the payload when it first needs it."""
        return CallHandle(SentCall(next(self._numbers), payload), self._control)

    def submit(self, task: Task) -> None:
        """Run *task* on the next idle worker."""
        with self._lock:
            if self._broken is not None:
                raise self._broken
            if self._closing:
                raise PoolClosedError("the process back-end is closed")
            # Else an earlier task has woken the thread or found no idle worker: a report will come.
            must_wake = not self._scheduler.pending
            self._scheduler.pending.append(task)
            must_wake |= self._lacks_workers()
        if must_wake:
            self._selector.wake()
        task.add_done_callback(self._note_cancelling)

    def drop(self, handle: CallHandle) -> None:
        """Make the workers that know the call forget it, later; its tasks are not wanted."""
        # Only noted here: garbage collection closes a dropped iterator, and may run in this very
        # class, between two lines that hold the lock.
        self._dropped.append(handle)
        may_have_orphans = self._scheduler.task_count  # see `stop_orphans`
        if (handle.payload.size >= LARGE_CALL_BYTES or may_have_orphans) and not self.runs_here():
            self._selector.wake()

    def adopt(self, process: Any, sock: socket.socket) -> None:
        """Take over the channel of a process that was just started."""
        kept = send_descriptors(sock, captures_stderr=self._captures_stderr)
        worker = WorkerHandle(process, sock, kept, self._note_unsent)
        with self._lock:
            if self._closing:
                worker.release()
                return
            self._scheduler.workers.add(worker)
            worker.channel.queue(MessageType.START, 0, self._start_body)
            self._selector.note(worker)
        self._selector.wake()

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

    def cancel_waiting(self) -> None:
        """Cancel the tasks that no worker has."""
        for task in reversed(self._scheduler.pending.copy()):
            task.cancel()

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
        self._selector.wake()
        if not self.runs_here():
            self._thread.join()
        for worker in workers:
            worker.channel.close()
        workers.extend(self._reaper.close())
        for task in (*given_up, *self._loss.tasks()):
            task.give_up()
        self._stderr_thread.close()
        self._stopper.close()
        self._loss.close()
        self._selector.close()
        return workers

    def _lacks_workers(self) -> bool:
        """Return whether there are more tasks than workers, and there may be more workers."""
        if self._started == self._most_workers:
            return False
        return self._started < self._scheduler.task_count

    # ── with the lock held ────────────────────────────────────────────────────────────────────

    def _note_unsent(self, worker: WorkerHandle) -> None:
        self._selector.note(worker)
        self._selector.wake()

    def _run_elsewhere(self, tasks: list[Task]) -> list[Task]:
        """Requeue *tasks*, which were not begun, for other workers; return those that cannot be."""
        if self._broken is not None or self._closing:
            return tasks
        # The items of a task that was taken back are already on their way, in another task.
        self._scheduler.requeue([task for task in tasks if not task.is_taken_back])
        return [task for task in tasks if task.is_taken_back]

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
            for worker in [*self._scheduler.workers, *self._loss.workers()]:
                for task in self._scheduler.take_all(worker):
                    task.fail(exc)
            raise

    def _serve_workers(self) -> None:
        while not self._closing:
            listened_at = self._clock()
            for event in self._selector.select(self._seconds_to_next()):
                self._handle(event)
            # First, so that a worker has forgotten an ended call when the next one begins.
            self._forget_dropped()
            with self._lock:
                self._scheduler.hand_out()
            if self._stealer.has_work:
                self._stealer.split_for_idle()
            while self._lacks_workers():
                self._started += 1
                self._on_worker_wanted()
            if self._scheduler.has_timed:
                self._stopper.stop_overdue(listened_at)
            self._stopper.stop_marked()
            for worker, code in self._reaper.poll_exits():
                self._finish_exit(worker, code)
            if changed := self._selector.take_changes():
                self._update_interest(changed)

    def _update_interest(self, changed: set[WorkerHandle]) -> None:
        with self._lock:
            changed &= self._scheduler.workers
        for worker in changed:
            self._selector.update(worker)

    def _handle(self, event: Event) -> None:
        if isinstance(event.source, StartupStderr):
            self._listen(event.source)
        elif event.source in self._scheduler.workers:
            worker: WorkerHandle = event.source
            if event.can_write:
                with self._lock:
                    worker.channel.flush()
                    self._selector.note(worker)
            if event.can_read or event.has_exited:  # messages may still be unread
                self._receive_all(worker)
            # If it has exited, a copy of its end of the channel may be open elsewhere.
            if event.has_exited and worker in self._scheduler.workers:
                self._lose(worker)

    def _receive_all(self, worker: WorkerHandle) -> None:
        try:
            self._receive_messages(worker)
        except EOFError:
            self._lose(worker)
        except GarbageError as exc:
            _log.error("replacing a worker whose answer cannot be read: %s", exc)
            with self._lock:
                worker.stopped_for = garbage_error(str(exc))
            self._reaper.end(worker)
            self._lose(worker)

    def _receive_messages(self, worker: WorkerHandle) -> None:
        worker.is_being_read = True
        try:
            while (message := worker.channel.read()) is not None:
                self._receive(worker, message)
        finally:
            worker.is_being_read = False

    def _lose(self, worker: WorkerHandle) -> None:
        self._selector.remove(worker)
        self._loss.note(worker)

    def _receive(self, worker: WorkerHandle, message: Message) -> None:
        if message.kind == MessageType.READY:
            with self._lock:
                worker.is_ready = True
                self._starts_failed = 0
                self._scheduler.idle.append(worker)
                self._scheduler.hand_out()
        elif message.kind == MessageType.FAILED:
            self._break(InitializerError(bytes(message.body)))
        elif message.kind == MessageType.RETURNED:
            worker.channel.take_returned(message.body)
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
        report = [*task.parts, Received(message.body, message.mapped_segments)]
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
                if stopped_for is None:
                    self._stealer.requeue_left(worker, task, report)
                self._go_on(worker)
                self._notify_if_settled()
        finally:  # now the task is in none of the lists that `_run` goes through
            if stopped_for is not None:
                task.set_exception(WorkerLost(stopped_for))
            else:
                task.set_result(report)
            for one in unbegun:
                one.leave()

    def _go_on(self, worker: WorkerHandle) -> None:
        """Continue after a task of the worker has ended; call this with the lock held."""
        if not worker.tasks and not worker.is_leaving:
            worker.lift_limit()
            self._scheduler.idle.append(worker)
        self._scheduler.hand_out()

    def _listen(self, startup_stderr: StartupStderr) -> None:
        try:
            if data := startup_stderr.read():
                self._stderr_thread.call_soon(pass_on, data)
        except EOFError:
            self._selector.drop_stderr(startup_stderr)

    def _finish_exit(self, worker: WorkerHandle, code: int | None) -> None:
        """Finish the exit of a worker that has exited, or did not exit in time after SIGKILL."""
        stderr = ""
        if worker.startup_stderr is not None:
            self._listen(worker.startup_stderr)
            self._selector.drop_stderr(worker.startup_stderr)
            stderr = worker.startup_stderr.text()
        self._loss.settle(worker, code)
        worker.release()
        with self._lock:
            self._notify_if_settled()
        if not worker.is_ready and not worker.is_leaving:
            self.start_failed(exit_reason(code), code, stderr)
        if self._broken is None and not self._closing:
            self._on_worker_exit()

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
        parts = (self._reaper, self._stopper, self._stealer)
        left = [part.seconds_to_next() for part in parts]
        return min((seconds for seconds in left if seconds is not None), default=None)

    def _forget_dropped(self) -> None:
        """Forget the calls that were dropped, and stop their remaining tasks."""
        while self._dropped:
            handle = self._dropped.popleft()
            if self._scheduler.task_count:
                self._stopper.stop_orphans(handle)
            self._stealer.allow(handle, are_allowed=False)
            with self._lock:
                self._scheduler.forget(handle)

    @property
    def broken(self) -> BaseException | None:
        """Why no worker can be started; `None` if workers can be."""
        return self._broken
