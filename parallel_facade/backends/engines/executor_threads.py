"""Chunks in the threads of a `ThreadPoolExecutor`, and help for those that it never gets to.

If all threads of the executor run tasks that wait for another thread, a helper runs what that
thread has submitted, a chunk at a time; see `waiting_threads`. It begins as the executor's own
threads do, by the initializer.

Guarantees:
    - A chunk runs once, in the executor or in a helper.
    - No reference to a chunk's results is left here once it has ended.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Final

from parallel_facade._common.polling_thread import PollingThread
from parallel_facade._common.threads import new_thread
from parallel_facade.backends.base import TaskFuture
from parallel_facade.backends.waiting_threads import (
    PATIENCE,
    RunningTasks,
    WaitingThreads,
)


class ThreadFuture(TaskFuture):
    """The future of a chunk in a thread of an executor, which alone can cancel it.

    Args:
        executor: Runs it.
        run: Runs the chunk, and returns its report.
    """

    def __init__(self, executor: ThreadPoolExecutor, run: Callable[[], Any]) -> None:
        super().__init__()
        self._executor = executor
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
            _initialize_as(self._executor)
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


def _initialize_as(executor: Any) -> None:
    """Begin the current thread as *executor* begins its own."""
    if (make_context := getattr(executor, "_create_worker_context", None)) is not None:
        make_context().initialize()  # since Python 3.14
    elif (initializer := executor._initializer) is not None:
        initializer(*executor._initargs)


class Helper:
    """Runs chunks of threads for which an executor's tasks wait.

    Args:
        workers: How many threads the executor has.
    """

    def __init__(self, workers: int) -> None:
        self.running: RunningTasks = RunningTasks(workers)
        self._waiting = WaitingThreads(self.running)
        # Guards _futures. Reentrant: garbage collection may end a future in any line.
        self._lock = threading.RLock()
        self._futures: dict[int, dict[ThreadFuture, None]] = {}  # by the submitting thread's id
        self._polling = PollingThread(self._poll, name="helper")

    def watch(self, future: ThreadFuture) -> None:
        """Look after *future*, which the current thread has submitted.

        No task waits for what the main thread does next, so that one needs no help.
        """
        if threading.current_thread() is threading.main_thread():
            return
        submitter = threading.get_ident()
        with self._lock:
            self._futures.setdefault(submitter, {})[future] = None
        future.add_done_callback(functools.partial(self._forget, submitter))
        self._polling.start()

    def _forget(self, submitter: int, future: Any) -> None:
        with self._lock:
            mine = self._futures.get(submitter, {})
            mine.pop(future, None)
            if not mine:
                self._futures.pop(submitter, None)

    def _poll(self) -> float | None:
        futures = {submitter: list(mine) for submitter, mine in self._futures.copy().items()}
        waiting = {
            submitter: mine[0]
            for submitter, mine in futures.items()
            if mine and not any(future.running() for future in mine)
        }
        for submitter in self._waiting.due(waiting):
            waiting[submitter].run_in_helper()
        return PATIENCE if futures else None


_helpers: Final[weakref.WeakKeyDictionary[Executor, Helper]] = weakref.WeakKeyDictionary()


def helper_of(executor: ThreadPoolExecutor) -> Helper:
    """Return the helper of *executor*, which all calls share."""
    return _helpers.setdefault(executor, Helper(executor._max_workers))
