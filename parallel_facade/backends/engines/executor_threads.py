"""Chunks in the threads of a `ThreadPoolExecutor`, and help for those that it never gets to.

A task may make a call from a thread of its own, on the same executor, and wait for it:

    1. task    runs in each thread of the executor, and waits for the results of its own thread
    2. thread  submits chunks, which no thread of the executor will take before those tasks end

So while nothing runs of what a thread has submitted, a helper thread runs it, a chunk at a time.

Guarantees:
    - A chunk runs once, in the executor or in a helper.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final

from parallel_facade._common.deadlines import Deadline
from parallel_facade._common.polling_thread import PollingThread
from parallel_facade._common.threads import new_thread
from parallel_facade.backends.base import TaskFuture

PATIENCE: Final = 0.1
"""Seconds that the chunks of a thread may wait while none of them runs."""

MOST_WATCHED: Final = 1000
"""Futures of one thread that are looked after: it waits for one of the last."""


class ThreadFuture(TaskFuture):
    """The future of a chunk in a thread of an executor, which alone can cancel it.

    Args:
        executor: Runs it.
        run: Runs the chunk, and returns its report.
    """

    def __init__(self, executor: Executor, run: Callable[[], Any]) -> None:
        super().__init__()
        self._run = run
        self._is_helped = False
        # `None` once it has ended: its callbacks refer to this object.
        self._inner: Future[Any] | None = executor.submit(run)
        self._inner.add_done_callback(self._end_as)

    def cancel(self) -> bool:
        """Cancel the chunk if it does not run yet; return whether that worked."""
        inner = self._inner
        return self.cancelled() if inner is None else inner.cancel() and self.cancelled()

    def running(self) -> bool:
        """Return whether the chunk runs."""
        inner = self._inner
        return self._is_helped or (inner is not None and inner.running())

    def run_in_helper(self) -> None:
        """Take the chunk back from the executor, unless it runs by now, and run it in a thread."""
        inner = self._inner
        self._is_helped = True  # first: cancelling calls `_end_as`
        if inner is None or not inner.cancel():
            self._is_helped = False
            return
        try:
            new_thread(self._help, name="helper").start()
        except RuntimeError as exc:  # the system has no more threads
            refused: Future[Any] = Future()
            refused.set_exception(exc)
            self._end_helped(refused)

    def _help(self) -> None:
        helped: Future[Any] = Future()
        try:
            helped.set_result(self._run())
        except BaseException as exc:
            helped.set_exception(exc)
        self._end_helped(helped)

    def _end_helped(self, helped: Future[Any]) -> None:
        self._is_helped = False
        self._end_as(helped)

    def _end_as(self, inner: Future[Any]) -> None:
        if inner.cancelled() and self._is_helped:
            return
        self._inner = None
        if inner.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
        elif (error := inner.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(inner.result())


class Helper:
    """Runs a waiting chunk of each thread that has none running."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _futures
        self._futures: dict[int, list[ThreadFuture]] = {}  # by the id of the submitting thread
        self._starved: dict[int, Deadline] = {}  # submitters without a running chunk
        self._polling = PollingThread(self._poll, name="helper")

    def watch(self, future: ThreadFuture) -> None:
        """Look after *future*, which the current thread has submitted.

        No task waits for what the main thread does next, so that one needs no help.
        """
        if threading.current_thread() is threading.main_thread():
            return
        with self._lock:
            mine = self._futures.get(threading.get_ident(), [])
            # A new list, since the polling thread may be reading the old one.
            self._futures[threading.get_ident()] = [*mine[-MOST_WATCHED:], future]
        self._polling.wake()

    def _poll(self) -> float | None:
        with self._lock:
            futures = dict(self._futures)
        running, starving = [], {}
        for submitter, mine in futures.items():
            pending = [future for future in mine if not future.done()]
            if any(future.running() for future in pending):
                running.append(submitter)
            elif pending:
                starving[submitter] = pending[0]
        self._starved = {one: self._starved.get(one) or Deadline(PATIENCE) for one in starving}
        for submitter, end in self._starved.items():
            if end.has_passed():
                starving[submitter].run_in_helper()
        return PATIENCE if running or starving else self._forget(futures)

    def _forget(self, ended: dict[int, list[ThreadFuture]]) -> float | None:
        """Forget the submitters whose futures have *ended*; poll again if there are new ones."""
        with self._lock:
            is_new = any(self._futures[one] != futures for one, futures in ended.items())
            if not is_new and len(self._futures) == len(ended):
                self._futures = {}
                return None
        return PATIENCE
