"""The thread that talks to all workers.

    submit ─► pending ─► idle link ──TASK──► worker
    (any thread)          │   ▲                │
    future ◄── resolve ◄──┘   └──── REPORT ◄───┘        end of a channel = death of its worker
               (switchboard thread, no lock held)

Guarantees:
    - Each task is begun by one worker at most, and its future is resolved exactly once.
    - A worker holds one task at a time, so its death costs that task alone.
    - Futures are resolved with no lock held; nothing of the user's is decoded or called here.
    - No send or receive ever waits: a stopped worker or a full channel holds nobody up.

Assumes:
    - A pool starts a new process, which is announced by `adopt`, for each one that ends.
"""

from __future__ import annotations

import itertools
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from parallel_facade._deadlines import Clock, Deadline
from parallel_facade._errors import PoolClosedError, TaskTimeoutError, WorkerCrashedError
from parallel_facade.backends._frames import CALL_NUMBER, Frame, Kind
from parallel_facade.backends._journal import Progress, offer
from parallel_facade.backends._link import CallHandle, Link, Task

START_ATTEMPTS: Final = 3
"""Workers in a row that may die before they serve; then the next would most likely die as well."""

LARGE_CALL_BYTES: Final = 1 << 16
"""A smaller callable is forgotten with the next message from any worker: to wake this thread and
all workers for it would cost more than a small call itself."""

EXIT_PATIENCE: Final = 1.0
"""Seconds between the end of a channel and the end of its process, after which we end it."""


class Switchboard:
    """Hands tasks to workers and their reports to futures.

    Args:
        start_body: The first message to each worker.
        on_gone: Called, in the switchboard's thread, for each worker that has to be replaced.
        on_broken: Called there once, when workers cannot be started.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self,
        start_body: bytes,
        on_gone: Callable[[], object],
        on_broken: Callable[[], object],
        clock: Clock = time.monotonic,
    ) -> None:
        self._start_body = start_body
        self._on_gone = on_gone
        self._on_broken = on_broken
        self._clock = clock
        # Guards all state below, and writing to links. Reentrant: a collection may run anywhere,
        # and in it the user's __del__, which may call us.
        self._lock = threading.RLock()
        self._links: set[Link] = set()
        self._idle: deque[Link] = deque()
        self._pending: deque[Task] = deque()
        self._running = 0
        self._dropped: deque[CallHandle] = deque()
        self._settled = threading.Condition(self._lock)  # nothing is pending or running any more
        self._broken: BaseException | None = None
        self._starts_failed = 0
        self._closing = False
        self._numbers = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._bell, self._bell_button = socket.socketpair()
        self._bell.setblocking(False)
        self._bell_button.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ, None)
        self._news: deque[Link] = deque()  # links whose interest in the selector has to change
        self._thread = threading.Thread(
            target=self._run, name="parallel_facade-switchboard", daemon=True
        )
        self._thread.start()

    # ── called from any thread ────────────────────────────────────────────────────────────────

    def put(self, payload: bytes) -> CallHandle:
        """Return a handle for a call; each worker is sent the payload when it first needs it."""
        return CallHandle(next(self._numbers), payload)

    def submit(self, task: Task) -> None:
        """Run *task* on the next idle worker."""
        with self._lock:
            if self._broken is not None:
                raise self._broken
            if self._closing:
                raise PoolClosedError("the process back-end is closed")
            self._pending.append(task)
            self._hand_out()

    def drop(self, handle: CallHandle) -> None:
        """Tell the workers that know the call to forget it, soon."""
        # Only noted here: a dropped iterator is closed by a collection, which may run in this very
        # class, between two lines that hold the lock.
        self._dropped.append(handle)
        if len(handle.payload) >= LARGE_CALL_BYTES:
            self._ring()

    def stop(self, future: Future[Any], error: BaseException) -> None:
        """End the worker that runs the task of *future*, which then fails with *error*."""
        with self._lock:
            for link in self._links:
                if link.task is not None and link.task.future is future:
                    self._stop(link, error)

    def adopt(self, process: Any, sock: socket.socket) -> None:
        """Take over the channel of a process that was just started."""
        link = Link(process, sock, offer(sock))
        with self._lock:
            if self._closing:
                link.close()
                return
            self._links.add(link)
            self._news.append(link)
            self._send(link, Kind.START, 0, self._start_body)
        self._ring()

    def start_failed(self, reason: str, code: int | None = None) -> None:
        """Count a worker that could not start; give up when several in a row could not."""
        with self._lock:
            self._starts_failed += 1
            gives_up = self._starts_failed >= START_ATTEMPTS
        if gives_up:
            self._break(start_error(reason, code))

    def wait_until_settled(self) -> None:
        """Wait until no task is pending or running."""
        with self._settled:
            self._settled.wait_for(lambda: not self._pending and not self._running)

    def close(self) -> list[Link]:
        """Take no more tasks, give up those there are, and return the links, now closed."""
        with self._lock:
            self._closing = True
            links = list(self._links)
            given_up = [*self._pending, *(link.task for link in links if link.task is not None)]
            self._pending.clear()
            self._links.clear()
            self._idle.clear()
        self._ring()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        for link in links:
            link.close()
        for task in given_up:
            _give_up(task)
        for resource in (self._selector, self._bell, self._bell_button):
            resource.close()
        return links

    def _ring(self) -> None:
        """Wake the switchboard's thread."""
        with suppress(BlockingIOError, OSError):  # full: it wakes anyway; closed: it has ended
            self._bell_button.send(b"\0")

    # ── with the lock held ────────────────────────────────────────────────────────────────────

    def _hand_out(self) -> None:
        while self._pending and self._idle:
            task = self._pending.popleft()
            if not _is_wanted(task):
                self._notify_if_settled()
                continue
            self._give(self._idle.popleft(), task)

    def _give(self, link: Link, task: Task) -> None:
        link.task = task
        task.attempts += 1
        task.number = next(self._numbers)
        self._running += 1
        if task.call.number not in link.known_calls:
            link.known_calls.add(task.call.number)
            link.queue(Kind.CALL, task.call.number, task.call.payload)
        self._send(link, Kind.TASK, task.number, CALL_NUMBER.pack(task.call.number), task.payload)
        if task.task_timeout is not None:
            task.deadline = Deadline(task.task_timeout, clock=self._clock)
            self._ring()

    def _send(self, link: Link, kind: Kind, number: int, *body: bytes) -> None:
        link.send(kind, number, *body)
        if link.has_unsent:
            self._news.append(link)
            self._ring()

    def _take_task(self, link: Link) -> Task:
        task, link.task = link.task, None
        assert task is not None, "a worker reports only what it was given"
        self._running -= 1
        return task

    def _stop(self, link: Link, error: BaseException) -> None:
        link.stopped_for = error
        link.is_leaving = True
        link.kill()

    def _notify_if_settled(self) -> None:
        if not self._pending and not self._running:
            self._settled.notify_all()

    # ── in the switchboard's thread ───────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            self._talk()
        except BaseException as exc:
            # Whatever it is, nobody else will resolve the futures.
            self._break(exc)
            for link in list(self._links):
                if link.task is not None:
                    _fail(self._take_task(link), exc)
            raise

    def _talk(self) -> None:
        while not self._closing:
            for key, events in self._selector.select(self._seconds_to_deadline()):
                if key.data is None:
                    with suppress(BlockingIOError):
                        self._bell.recv(4096)
                else:
                    self._attend(key.data, events)
            self._stop_overdue()
            self._forget_dropped()
            self._update_interest()

    def _attend(self, link: Link, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            with self._lock:
                link.flush()
                self._news.append(link)
        if events & selectors.EVENT_READ:
            try:
                while (frame := link.read()) is not None:
                    self._hear(link, frame)
            except EOFError:
                self._bury(link)

    def _hear(self, link: Link, frame: Frame) -> None:
        if frame.kind in (Kind.REPORT, Kind.LAST_REPORT):
            self._end_task(link, frame)
        elif frame.kind == Kind.READY:
            with self._lock:
                link.is_ready = True
                self._starts_failed = 0
                self._idle.append(link)
                self._hand_out()
        elif frame.kind == Kind.FAILED:
            self._break(InitializerError(bytes(frame.body)))

    def _end_task(self, link: Link, frame: Frame) -> None:
        with self._lock:
            task = self._take_task(link)
        try:
            with self._lock:
                link.is_leaving |= frame.kind == Kind.LAST_REPORT
                if not link.is_leaving:
                    self._idle.append(link)
                    self._hand_out()
                self._notify_if_settled()
        finally:  # now it is in no list that `_run` would look through
            task.future.set_result(frame.body)

    def _bury(self, link: Link) -> None:
        """A channel has ended: its worker left, was stopped, or died."""
        self._selector.unregister(link.socket)
        with self._lock:
            self._links.discard(link)
            with suppress(ValueError):
                self._idle.remove(link)
            task = self._take_task(link) if link.task is not None else None
        progress = link.progress()
        link.close()
        code: int | None = None
        try:
            code = link.end(EXIT_PATIENCE)
        finally:  # now it is in no list that `_run` would look through
            if task is not None:
                self._end_lost(task, link.stopped_for, code, progress)
        with self._lock:
            self._notify_if_settled()
        if not link.is_ready and not link.is_leaving:
            self.start_failed(exit_reason(code), code)
        if self._broken is None and not self._closing:
            self._on_gone()

    def _end_lost(
        self,
        task: Task,
        stopped_for: BaseException | None,
        code: int | None,
        progress: Progress | None,
    ) -> None:
        """Fail *task*, whose worker has ended; or give it to another, if it was not begun."""
        was_begun = progress is None or progress.task == task.number
        if stopped_for is None and not was_begun and task.attempts < START_ATTEMPTS:
            # Its worker died of what was before, such as a callable that was dropped.
            with self._lock:
                if self._broken is None and not self._closing:
                    self._pending.appendleft(task)
                    self._hand_out()
                    return
        crash = crash_error(code)
        if progress is not None and was_begun:
            crash.position = progress.position
        task.future.set_exception(stopped_for or crash)

    def _break(self, error: BaseException) -> None:
        """Fail everything: there are no workers to be had."""
        with self._lock:
            if self._broken is not None:
                return
            self._broken = error
            failed = list(self._pending)
            self._pending.clear()
            self._notify_if_settled()
        for task in failed:
            if _is_wanted(task):
                task.future.set_exception(error)
        self._on_broken()

    def _seconds_to_deadline(self) -> float | None:
        with self._lock:
            left = [link.task.deadline.remaining() for link in self._links if link.task is not None]
        return min((seconds for seconds in left if seconds is not None), default=None)

    def _stop_overdue(self) -> None:
        with self._lock:
            for link in self._links:
                if link.task is not None and link.task.deadline.has_passed():
                    limit = link.task.task_timeout
                    self._stop(link, TaskTimeoutError(f"a task ran longer than {limit:g} seconds"))
                    link.task.deadline = Deadline(None)

    def _forget_dropped(self) -> None:
        while self._dropped:
            handle = self._dropped.popleft()
            with self._lock:
                for link in self._links:
                    if handle.number in link.known_calls:
                        link.known_calls.discard(handle.number)
                        self._send(link, Kind.FORGET, handle.number)

    def _update_interest(self) -> None:
        """Tell the selector of new links, and of links that have or no longer have more to send."""
        with self._lock:
            changed = {link for link in self._news if link in self._links}
            self._news.clear()
            wishes = [(link, link.has_unsent) for link in changed]
        for link, wants_to_send in wishes:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wants_to_send else 0)
            if link.socket in self._selector.get_map():
                self._selector.modify(link.socket, events, link)
            else:
                self._selector.register(link.socket, events, link)

    @property
    def broken(self) -> BaseException | None:
        """Why no worker can be had, if that is so."""
        return self._broken


class InitializerError(Exception):
    """An initializer raised; the exception is in *report*, for the caller's thread to decode."""

    def __init__(self, report: bytes) -> None:
        super().__init__(report)
        self.report = report


def _is_wanted(task: Task) -> bool:
    """Return whether *task* was not cancelled; from now on it cannot be."""
    return task.attempts > 0 or task.future.set_running_or_notify_cancel()


def _fail(task: Task, error: BaseException) -> None:
    if not task.future.done():
        task.future.set_exception(error)


def _give_up(task: Task) -> None:
    """Resolve the future of a task that nobody will run or report any more."""
    if not task.future.cancel():
        _fail(task, PoolClosedError("the pool was closed while the task ran"))


def crash_error(code: int | None) -> WorkerCrashedError:
    """Return the error for a task whose worker ended with exit code *code*."""
    hint = ""
    if code is not None and -code == getattr(signal, "SIGKILL", None):
        hint = (
            "\n\nHint: if nobody killed it, the system did so for lack of memory; "
            "fewer workers or smaller chunks need less."
        )
    return WorkerCrashedError(f"a worker died ({exit_reason(code)}){hint}", exitcode=code)


def start_error(reason: str, code: int | None) -> WorkerCrashedError:
    """Return the error for workers that die before they serve, or cannot be started at all."""
    return WorkerCrashedError(
        f"{START_ATTEMPTS} workers in a row died while they started ({reason})\n\n"
        "Hint: their own messages are on stderr.",
        exitcode=code,
    )


def exit_reason(code: int | None) -> str:
    """Return an exit code in words.

    >>> exit_reason(3)
    'exit code 3'
    >>> exit_reason(-9)
    'SIGKILL'
    """
    if code is None:
        return "exit code unknown"
    if code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
