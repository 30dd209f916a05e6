"""The thread that talks to all workers.

    submit ─► pending ··· idle link ──TASK──► worker
    (any thread)           │   ▲                │
    future ◄── resolve ◄───┘   └──── REPORT ◄───┘       end of a channel = death of its worker
               (switchboard thread, no lock held)

Guarantees:
    - Each task is begun by one worker at most, and its future is resolved exactly once.
    - A worker runs one task at a time; a short one of the same call may wait in its channel. The
      death of the worker costs the item that it was running: of the others the outcomes are known,
      or it is known that they were not run.
    - Futures are resolved with no lock held; nothing of the user's is decoded or called here.
    - No send or receive ever waits: a stopped worker or a full channel holds nobody up.
    - Only the switchboard's thread hands out tasks and sends: an interrupt, which is raised in the
      main thread, comes between no two steps of that.

Assumes:
    - A pool starts a new process, which is announced by `adopt`, for each one that ends.
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

from parallel_facade._common.callback_thread import Delivery
from parallel_facade._common.deadlines import Clock, Deadline
from parallel_facade._common.errors import PoolClosedError, TaskTimeoutError
from parallel_facade._common.interrupt_safety import SafeCondition
from parallel_facade._common.threads import new_thread
from parallel_facade._serialization.encoder import Cargo
from parallel_facade._worker.outcomes import Received
from parallel_facade.backends.base import Stage, WorkerLost
from parallel_facade.backends.process.crash_errors import (
    START_ATTEMPTS,
    crash_error,
    garbage_error,
    start_error,
)
from parallel_facade.backends.process.descriptor_handover import give
from parallel_facade.backends.process.journal import Progress
from parallel_facade.backends.process.protocol import Frame, GarbageError, Kind
from parallel_facade.backends.process.reaper import Departures
from parallel_facade.backends.process.scheduler import LARGE_CALL_BYTES, Desk
from parallel_facade.backends.process.starting.exit_codes import exit_reason
from parallel_facade.backends.process.startup_stderr import StartMessages, pass_on
from parallel_facade.backends.process.work_stealing import Looks
from parallel_facade.backends.process.worker_handle import CallHandle, Link, Task

_log = logging.getLogger("parallel_facade")


class Switchboard:
    """Hands tasks to workers and their reports to futures.

    Args:
        start_body: The first message to each worker.
        hears_start: Whether to listen to what workers write to stderr before they serve.
        on_gone: Called, in the switchboard's thread, for each worker that has to be replaced.
        on_broken: Called there once, when workers cannot be started.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self,
        start_body: bytes,
        hears_start: bool,
        on_gone: Callable[[], object],
        on_broken: Callable[[], object],
        clock: Clock = time.monotonic,
    ) -> None:
        self._start_body = start_body
        self._hears_start = hears_start
        self._on_gone = on_gone
        self._on_broken = on_broken
        self._clock = clock
        # Guards all state below. Reentrant: a collection may run anywhere,
        # and in it the user's __del__, which may call us.
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._desk = Desk(self._numbers, clock, self._note_unsent, self._ring)
        self._looks = Looks(self._desk, self._lock, clock)
        self._dropped: deque[CallHandle] = deque()
        self._settled = SafeCondition(self._lock)  # nothing is pending or running any more
        self._lost: dict[Link, list[Task]] = {}  # tasks whose worker's process is yet to end
        self._broken: BaseException | None = None
        self._starts_failed = 0
        self._closing = False
        self._has_given_up = False
        self._selector = selectors.DefaultSelector()
        self._bell, self._bell_button = socket.socketpair()
        self._bell.setblocking(False)
        self._bell_button.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ, None)
        self._news: deque[Link] = deque()  # links whose interest in the selector has to change
        self._to_end: deque[Link] = deque()  # links whose worker shall end
        self._departures = Departures(clock)
        self._messages = Delivery("messages")
        self._thread = new_thread(self._run, name="switchboard")
        self._thread.start()

    # ── called from any thread ────────────────────────────────────────────────────────────────

    def put(self, payload: Cargo) -> CallHandle:
        """Return a handle for a call; each worker is sent the payload when it first needs it."""
        return CallHandle(next(self._numbers), payload)

    def submit(self, task: Task) -> None:
        """Run *task* on the next idle worker."""
        with self._lock:
            if self._broken is not None:
                raise self._broken
            if self._closing:
                raise PoolClosedError("the process back-end is closed")
            # Who waits longer has rung, or there was no worker for it; then a report will come.
            is_first = not self._desk.pending
            self._desk.add(task)
        if is_first:
            self._ring()
        task.future.add_done_callback(self._note_cancelling)

    def drop(self, handle: CallHandle) -> None:
        """Have the workers that know the call forget it, in time; its tasks are not wanted."""
        # Only noted here: a dropped iterator is closed by a collection, which may run in this very
        # class, between two lines that hold the lock.
        self._dropped.append(handle)
        may_have_orphans = self._desk.has_tasks  # see `_end_orphans`
        if (handle.payload.size >= LARGE_CALL_BYTES or may_have_orphans) and not self.runs_here():
            self._ring()

    def stop(self, future: Future[Any], error: BaseException) -> bool:
        """End the worker that runs the task of *future*, which then fails with *error*."""
        with self._lock:
            if (link := self._desk.runner_of(future)) is None:
                return False
            link.may_run_again = False
            self._end(link, error)
        self._ring()
        return True

    def outcomes_so_far(self, future: Future[Any]) -> list[bytes]:
        """Return what the task of *future* is done with; see `Looks`."""
        return self._looks.outcomes_so_far(future)

    def take_back(self, future: Future[Any]) -> int | None:
        """Let an idle worker have what the task of *future* has not begun; see `Looks`."""
        return self._looks.take_back(future)

    def adopt(self, process: Any, sock: socket.socket) -> None:
        """Take over the channel of a process that was just started."""
        link = Link(process, sock, give(sock, hears_stderr=self._hears_start))
        with self._lock:
            if self._closing:
                link.release()
                return
            self._desk.links.add(link)
            link.queue(Kind.START, 0, self._start_body)
            self._news.append(link)
        self._ring()

    def start_failed(self, reason: str, code: int | None = None, said: str = "") -> None:
        """Count a worker that could not start; give up when several in a row could not."""
        with self._lock:
            self._starts_failed += 1
            gives_up = self._starts_failed >= START_ATTEMPTS
        if gives_up:
            self._break(start_error(reason, code, said))

    def wait_until_settled(self) -> None:
        """Wait until no task is pending or running, or nobody wants to wait any more."""
        with self._settled:
            self._settled.wait_for(self._is_settled)

    def give_up(self) -> None:
        """End all waiting for tasks, now and later."""
        with self._settled:
            self._has_given_up = True
            self._settled.notify_all()

    def runs_here(self) -> bool:
        """Return whether the current thread is the switchboard's."""
        return threading.current_thread() is self._thread

    def close(self) -> list[Link]:
        """Take no more tasks, give up those there are, and return the links, now closed.

        The caller waits for their processes to end, and releases them.
        """
        with self._settled:
            self._closing = True
            links = list(self._desk.links)
            given_up = list(self._desk.all_tasks())
            self._desk.clear()
            self._settled.notify_all()
        self._ring()
        if not self.runs_here():
            self._thread.join()
        for link in links:
            link.close()
        links.extend(self._departures.close())
        for task in (*given_up, *itertools.chain.from_iterable(self._lost.values())):
            task.give_up()
        self._messages.close()
        # Files of theirs close when the last reference goes, which ours to this may be.
        for holder in (self._news, self._to_end, self._lost):
            holder.clear()
        for resource in (self._selector, self._bell, self._bell_button):
            resource.close()
        return links

    def _ring(self) -> None:
        """Wake the switchboard's thread."""
        with suppress(BlockingIOError, OSError):  # full: it wakes anyway; closed: it has ended
            self._bell_button.send(b"\0")

    # ── with the lock held ────────────────────────────────────────────────────────────────────

    def _note_unsent(self, link: Link) -> None:
        self._news.append(link)
        self._ring()

    def _run_elsewhere(self, tasks: list[Task]) -> list[Task]:
        """Give *tasks*, which were not begun, to other workers; return those that cannot be."""
        if self._broken is not None or self._closing:
            return tasks
        # What was taken back is on its way already, as another task.
        self._desk.requeue([task for task in tasks if not task.is_taken_back])
        return [task for task in tasks if task.is_taken_back]

    def _end(self, link: Link, error: BaseException) -> None:
        """Have the worker behind *link* ended, whose task then fails with *error*."""
        link.stopped_for = error
        self._to_end.append(link)

    def _is_settled(self) -> bool:
        if self._closing or self._has_given_up:
            return True
        return self._desk.is_clear

    def _notify_if_settled(self) -> None:
        if self._is_settled():
            self._settled.notify_all()

    def _note_cancelling(self, future: Future[Any]) -> None:
        if future.cancelled():
            with self._lock:
                self._notify_if_settled()

    # ── in the switchboard's thread ───────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            self._talk()
        except BaseException as exc:
            # Whatever it is, nobody else will resolve the futures.
            self._break(exc)
            for link in [*self._desk.links, *self._lost]:
                for task in self._desk.take_all(link):
                    task.fail(exc)
            raise

    def _talk(self) -> None:
        while not self._closing:
            listened_at = self._clock()
            for key, events in self._selector.select(self._seconds_to_next()):
                if key.data is None:
                    with suppress(BlockingIOError):
                        self._bell.recv(4096)
                elif isinstance(key.data, StartMessages):
                    self._listen(key.data)
                elif key.data in self._desk.links and key.fd == key.data.end_fd:
                    self._note_end(key.data)
                elif key.data in self._desk.links:
                    self._attend(key.data, events)
            with self._lock:
                self._desk.hand_out()
            if self._desk.has_timed:
                self._stop_overdue(listened_at)
            self._end_stopped()
            for link, code in self._departures.tend():
                self._bury(link, code)
            self._forget_dropped()
            if self._news:
                self._update_interest()

    def _attend(self, link: Link, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            with self._lock:
                link.flush()
                self._news.append(link)
        if events & selectors.EVENT_READ:
            try:
                self._hear_all(link)
            except EOFError:
                self._lose(link)
            except GarbageError as exc:
                _log.error("a worker is replaced, since what it sent cannot be taken: %s", exc)
                with self._lock:
                    link.stopped_for = garbage_error(str(exc))
                self._departures.end(link)
                self._lose(link)

    def _hear_all(self, link: Link) -> None:
        link.is_heard_now = True
        try:
            while (frame := link.read()) is not None:
                self._hear(link, frame)
        finally:
            link.is_heard_now = False

    def _note_end(self, link: Link) -> None:
        """A worker's process has ended; what it had sent is still to be read."""
        self._attend(link, selectors.EVENT_READ)
        if link in self._desk.links:  # a copy of its end of the channel lives on somewhere
            self._lose(link)

    def _hear(self, link: Link, frame: Frame) -> None:
        if frame.kind == Kind.READY:
            with self._lock:
                link.is_ready = True
                self._starts_failed = 0
                self._desk.free(link)
                self._desk.hand_out()
        elif frame.kind == Kind.FAILED:
            self._break(InitializerError(bytes(frame.body)))
        elif frame.kind == Kind.RETURNED:
            link.take_returned(frame.body)
        elif frame.kind == Kind.REMARK:
            self._pass_on_remark(link, frame)
        elif link.task is None or link.task.number != frame.number:
            raise GarbageError(f"{frame.kind.name} of a task that the worker does not have")
        elif frame.kind == Kind.PART:
            link.task.parts.append(Received(frame.body, frame.loans))
        elif frame.kind == Kind.STARTED:
            with self._lock:
                link.task.deadline = Deadline(link.task.task_timeout, clock=self._clock)
        else:
            self._end_task(link, frame)

    def _pass_on_remark(self, link: Link, frame: Frame) -> None:
        # A thread that a task has left behind may still say something.
        if link.task is not None and link.task.number == frame.number:
            link.task.call.hear(bytes(frame.body))

    def _end_task(self, link: Link, frame: Frame) -> None:
        with self._lock:
            task = self._desk.take(link)
        stopped_for = None
        unbegun: list[Task] = []
        try:
            with self._lock:
                # The end of a task that was to be stopped, but was faster, is as good as any. Once
                # the worker was told to end it takes no other task.
                stopped_for = link.stopped_for if link.is_leaving else None
                link.stopped_for = None
                link.may_run_again = True
                link.is_leaving |= frame.kind == Kind.LAST_REPORT
                if frame.kind == Kind.LAST_REPORT:
                    unbegun = self._run_elsewhere(self._desk.take_all(link))
                self._go_on(link)
                self._notify_if_settled()
        finally:  # now it is in no list that `_run` would look through
            if stopped_for is not None:
                task.future.set_exception(WorkerLost(stopped_for))
            else:
                task.future.set_result([*task.parts, Received(frame.body, frame.loans)])
            for one in unbegun:
                one.leave()

    def _go_on(self, link: Link) -> None:
        """A task of the worker has ended; with the lock held."""
        if not link.tasks and not link.is_leaving:
            link.resume()
            self._desk.free(link)
        self._desk.hand_out()

    def _listen(self, messages: StartMessages) -> None:
        try:
            if data := messages.read():
                self._messages.deliver(pass_on, data)
        except EOFError:
            self._selector.unregister(messages.fd)

    def _lose(self, link: Link) -> None:
        """A channel has ended: its worker left, was stopped, or died."""
        self._selector.unregister(link.socket)
        if link.end_fd is not None:
            self._selector.unregister(link.end_fd)
        with self._lock:
            self._desk.remove(link)
            if link.tasks:
                self._lost[link] = list(link.tasks)
        link.close()
        self._departures.see_off(link)

    def _bury(self, link: Link, code: int | None) -> None:
        """The process behind a channel that has ended is gone, or as good as."""
        said = ""
        if link.messages is not None:
            with suppress(KeyError):  # its end was seen
                self._listen(link.messages)
                self._selector.unregister(link.messages.fd)
            said = link.messages.said()
        if self._lost.pop(link, None) is not None:
            self._end_lost(link, code)
        link.release()
        with self._lock:
            self._notify_if_settled()
        if not link.is_ready and not link.is_leaving:
            self.start_failed(exit_reason(code), code, said)
        if self._broken is None and not self._closing:
            self._on_gone()

    def _end_lost(self, link: Link, code: int | None) -> None:
        """Fail the tasks of a worker that has ended; or give to another what was not begun."""
        with self._lock:
            tasks = self._desk.take_all(link)
        progress = _progress(link)
        # Its worker died of what was before, such as a callable that was dropped. What waited
        # behind another task has not tried this worker at all.
        again = [
            task
            for place, task in enumerate(tasks)
            if task.stage_in(progress) is Stage.CALLABLE
            and link.may_run_again
            and (place > 0 or task.attempts < START_ATTEMPTS)
        ]
        with self._lock:
            refused = self._run_elsewhere(again)
        error = link.stopped_for or crash_error(code)
        for task in tasks:
            if task not in again or task in refused:
                stage = task.stage_in(progress)
                parts = task.parts
                if progress is not None and stage is Stage.ITEMS:
                    parts = task.parts_so_far(progress)
                task.future.set_exception(WorkerLost(error, stage, tuple(parts)))

    def _break(self, error: BaseException) -> None:
        """Fail everything: there are no workers to be had."""
        with self._lock:
            if self._broken is not None:
                return
            self._broken = error
            failed = list(self._desk.pending)
            self._desk.pending.clear()
            self._notify_if_settled()
        for task in failed:
            if task.is_wanted():
                task.future.set_exception(error)
        self._on_broken()

    def _seconds_to_next(self) -> float | None:
        if self._to_end:
            return 0
        seconds = self._departures.seconds_to_next()
        if not self._desk.has_timed:
            return seconds
        with self._lock:
            tasks = list(filter(None, map(_task_of, self._desk.links)))
        left = [seconds, *(task.deadline.remaining() for task in tasks)]
        return min((one for one in left if one is not None), default=None)

    def _stop_overdue(self, listened_at: float) -> None:
        """Have those tasks ended whose time was up when we last listened.

        Not those whose time is up now:

        1. switchboard  listens, and hears nothing
        2. worker       says that it has rebuilt the callable, just in time
        3. switchboard  is late to look at the clock, since the machine is busy
        """
        for link in list(self._desk.links):
            with self._lock:
                self._stop_if_overdue(link, listened_at)

    def _stop_if_overdue(self, link: Link, listened_at: float) -> None:
        if link.task is not None and link.task.deadline.is_before(listened_at):
            limit = link.task.deadline.seconds
            what = "a task" if limit == link.task.task_timeout else "rebuilding a callable"
            self._end(link, TaskTimeoutError(f"{what} took longer than {limit:g} seconds"))
            link.task.deadline = Deadline(None)

    def _end_stopped(self) -> None:
        while self._to_end:
            link = self._to_end.popleft()
            with self._lock:
                # Its task may have ended meanwhile, and then the worker is another's.
                if link.stopped_for is None or link.is_leaving or link not in self._desk.links:
                    continue
                link.is_leaving = True
            self._departures.end(link)

    def _forget_dropped(self) -> None:
        """Forget the calls that were dropped, and end what is left of them."""
        while self._dropped:
            handle = self._dropped.popleft()
            if self._desk.has_tasks:
                self._end_orphans(handle)
            with self._lock:
                self._desk.forget(handle)

    def _end_orphans(self, handle: CallHandle) -> None:
        """End the tasks of a call whose caller does not know of them.

        1. main thread  submits a task, which a worker begins
        2. user         presses Ctrl-C; the interrupt is raised before `submit` has returned
        3. caller       stops the tasks that it knows, and drops the call
        """
        with self._lock:
            tasks = list(self._desk.all_tasks())
        for task in tasks:
            if task.call is handle and not task.future.cancel():
                self.stop(task.future, PoolClosedError("the call was given up"))

    def _update_interest(self) -> None:
        """Tell the selector of new links, and of links that have or no longer have more to send."""
        with self._lock:
            changed = self._desk.links.intersection(self._news)
            self._news.clear()
        for link in changed:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.has_unsent else 0)
            if link.socket in self._selector.get_map():
                self._selector.modify(link.socket, events, link)
            else:
                self._selector.register(link.socket, events, link)
                if link.end_fd is not None:
                    self._selector.register(link.end_fd, selectors.EVENT_READ, link)
                if link.messages is not None:
                    self._selector.register(link.messages.fd, selectors.EVENT_READ, link.messages)

    @property
    def broken(self) -> BaseException | None:
        """Why no worker can be had, if that is so."""
        return self._broken


class InitializerError(Exception):
    """An initializer raised; the exception is in *report*, for the caller's thread to decode."""

    def __init__(self, report: bytes) -> None:
        super().__init__(report)
        self.report = report


def _task_of(link: Link) -> Task | None:
    return link.task


def _progress(link: Link) -> Progress | None:
    """Return how far the worker came, if that can be known."""
    try:
        return link.progress()
    except Exception:  # a task has written over its worker's journal
        _log.exception("the journal of a worker cannot be read")
        return None
