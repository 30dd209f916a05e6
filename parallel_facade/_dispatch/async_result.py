"""The future of one background call, which the user holds.

    BackgroundCall ── report ──► AsyncResult ── value or error ──► waiting code, and callbacks

Guarantees:
    - An `AsyncResult` ends exactly once: with a value, an error, a time-out or a cancellation.
    - The user's objects are rebuilt in the thread that asks for them, not in the back-end's thread.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final, Generic, Protocol, TypeVar

from parallel_facade._common.callback_thread import CallbackThread
from parallel_facade._common.errors import PoolClosedError, described
from parallel_facade._common.interrupt_safety import SafeFuture
from parallel_facade._common.shutdown import park_daemon_threads
from parallel_facade._common.task_errors import TaskTimeoutError
from parallel_facade._console.replay import show_all
from parallel_facade._worker.outcomes import ChunkReport, Failure

R = TypeVar("R")

_log = logging.getLogger("parallel_facade")

FILTERS_IN_CONTEXT: Final = bool(getattr(sys.flags, "context_aware_warnings", False))

ENDED: Final = ("FINISHED", "CANCELLED", "CANCELLED_AND_NOTIFIED")
"""States of a `concurrent.futures` future that has ended."""


class _NotDecodedError(Exception):
    """Placeholder for an exception that nobody has asked for yet."""


class RunningCall(Protocol):
    """What a result asks of the call that is to fill it."""

    def cancel(self) -> bool:
        """Cancel the call if it does not run yet; return whether that worked."""
        ...

    def stop(self) -> bool:
        """Stop the call, also while it runs; return whether that worked."""
        ...

    def running(self) -> bool:
        """Return whether the call runs now."""
        ...


class AsyncResult(SafeFuture[R], Generic[R]):
    """The result of `apply_async`, now or later.

    A `concurrent.futures.Future`, so `as_completed`, `wait` and `asyncio.wrap_future` take it;
    it can be awaited; and it has the methods of `multiprocessing.pool.AsyncResult`.

    >>> from parallel_facade import apply_async
    >>> apply_async(pow, (2, 10), backend="serial").get()
    1024
    """

    def __init__(self, callback_thread: CallbackThread) -> None:
        super().__init__()
        self._pid = os.getpid()
        self._callback_thread = callback_thread
        self._call: RunningCall | None = None  # `None`: not started, or ended
        self._decode: Callable[[], ChunkReport] | None = None
        self._decoding = threading.RLock()  # guards _decode, _report and cancelling
        self._report: ChunkReport | None = None
        self._failure_is_known = False  # whether its outcome was asked for
        self._records: deque[bytes] = deque()  # from the task, not shown yet
        self._showing = threading.RLock()  # held while they are shown; R: a handler may ask us
        # If `catch_warnings` is kept in the context, warnings are shown in the caller's context.
        self._context = copy_context() if FILTERS_IN_CONTEXT else None

    def get(self, timeout: float | None = None) -> R:
        """Return the value, waiting for it.

        Args:
            timeout: Seconds to wait; `None` waits for ever. The task goes on after a time-out.

        Raises:
            TaskTimeoutError: It did not end in time.
            CancelledError: It was cancelled.

        >>> from parallel_facade import apply_async
        >>> apply_async(len, ("four",), backend="serial").get(timeout=5)
        4
        """
        return self.result(timeout)

    def result(self, timeout: float | None = None) -> R:
        """Return the value, waiting *timeout* seconds for it; the same as `get`.

        >>> from parallel_facade import apply_async
        >>> apply_async(len, ("four",), backend="serial").result()
        4
        """
        if (failure := self._failure(timeout)) is not None:
            raise failure.to_raise()
        assert self._report is not None, "it has not failed"
        value: R = self._report.values[0]
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the task's exception, waiting *timeout* seconds for it; `None` if it returned.

        >>> from parallel_facade import apply_async
        >>> apply_async(divmod, (1, 0), backend="serial").exception()
        ZeroDivisionError('integer division or modulo by zero')
        """
        failure = self._failure(timeout)
        return None if failure is None else failure.to_raise()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task has ended, *timeout* seconds at most.

        >>> from parallel_facade import apply_async
        >>> apply_async(abs, (-1,), backend="serial").wait()
        """
        self._check_process()
        try:
            super().exception(timeout)
        except (TimeoutError, CancelledError) as exc:
            if not _is_from_waiting(exc):
                raise

    def ready(self) -> bool:
        """Return whether the task has ended.

        >>> from parallel_facade import apply_async
        >>> apply_async(abs, (-1,), backend="serial").ready()
        True
        """
        return self.done()

    def successful(self) -> bool:
        """Return whether the task returned without raising.

        Raises:
            ValueError: It has not ended.

        >>> from parallel_facade import apply_async
        >>> apply_async(abs, (-1,), backend="serial").successful()
        True
        """
        if not self.done():
            raise ValueError(f"{self!r} has not ended")
        return not self.cancelled() and self.exception() is None

    def cancel(self) -> bool:
        """Cancel the task if it does not run yet; return whether that worked.

        >>> from parallel_facade import apply_async
        >>> apply_async(abs, (-1,), backend="serial").cancel()
        False
        """
        call = self._call
        if call is None or not call.cancel():  # `None`: it has ended, or is ending
            return self.cancelled()
        return super().cancel()

    def stop(self) -> bool:
        """Cancel the task, even while it runs; return whether that worked.

        The process back-end stops the task's worker, with the processes that the worker has
        started, and replaces it. Ray also stops the task. A task in a thread, in the caller itself,
        in an executor or in another cluster cannot be stopped.

        >>> from parallel_facade import apply_async
        >>> import time
        >>> result = apply_async(time.sleep, (3600,), backend="process")
        >>> result.stop(), result.cancelled()
        (True, True)
        """
        call = self._call
        return call is not None and not self.done() and call.stop()

    def running(self) -> bool:
        """Return whether the task runs now.

        >>> from parallel_facade import apply_async
        >>> apply_async(abs, (-1,), backend="serial").running()
        False
        """
        call = self._call
        return not self.done() and call is not None and call.running()

    def add_done_callback(self, fn: Callable[[Future[R]], object]) -> None:
        """Call *fn* with this result when it has ended, in the callback thread.

        >>> from parallel_facade import apply_async
        >>> import queue
        >>> ended = queue.SimpleQueue()
        >>> apply_async(abs, (-1,), backend="thread").add_done_callback(ended.put)
        >>> ended.get().result()
        1
        """
        if getattr(fn, "__module__", None) == "asyncio.futures":
            # It only wakes its event loop, so `await` need not wait for callbacks that block.
            super().add_done_callback(fn)
            return
        super().add_done_callback(lambda _: self._callback_thread.call_soon(fn, self))

    def __await__(self) -> Generator[Any, None, R]:
        """Wait in a coroutine; cancelling the coroutine cancels the task, even while it runs."""
        return self._awaited().__await__()

    async def _awaited(self) -> R:
        import asyncio  # loaded already in a program that uses it; others need not wait for it

        try:
            return await asyncio.wrap_future(self)
        except asyncio.CancelledError:
            self.stop()
            raise

    def _get_snapshot(self) -> tuple[bool, bool, R | None, BaseException | None]:
        """Return whether it has ended, whether it was cancelled, its value, and its error.

        From Python 3.15 on, asyncio calls this instead of `exception` and `result`.
        """
        if not self.done() or self.cancelled():
            return self.done(), self.cancelled(), None, None
        error = self.exception()
        return True, False, self.result() if error is None else None, error

    def __repr__(self) -> str:
        if not self.done() or self.cancelled():
            return super().__repr__()
        # The base class holds placeholders instead of the value or error, and rebuilding those may
        # run the user's code.
        how = "raised" if self._has_failed() else "returned"
        return f"<{type(self).__name__} at {id(self):#x} state=finished {how}>"

    def _has_failed(self) -> bool:
        """Return whether the task, which has ended, raised; do not rebuild the exception."""
        return super().exception() is not None

    _is_finalizing = staticmethod(sys.is_finalizing)
    """Kept here: in the end, Python takes the names of modules away."""

    def __del__(self) -> None:
        # Nobody can ask any more. While the interpreter ends, logging may already be torn down.
        is_ending = self._is_finalizing()
        if getattr(self, "_failure_is_known", True) or is_ending or not self.done():
            return
        if not self.cancelled() and (what := self._failure_as_text()):
            _log.error("a background call failed, and its result was never requested:\n%s", what)

    def _failure_as_text(self) -> str:
        """Return the failure as text, empty for none, without rebuilding the user's objects."""
        error = super().exception()
        if isinstance(error, _NotDecodedError):
            return self._describe_failure()
        is_worth_logging = error is not None and not isinstance(error, PoolClosedError)
        return described(error) if is_worth_logging and error is not None else ""

    def _attach(self, call: RunningCall | None) -> None:
        """Note which call is to fill this result; `None` for none any more."""
        self._call = call

    def _note_known_failure(self) -> None:
        """Note that its failure is known, so that it is not logged."""
        self._failure_is_known = True

    def _check_process(self) -> None:
        if self._pid != os.getpid() and self._state not in ENDED:  # its lock may be held for ever
            raise PoolClosedError(
                f"the result belongs to process {self._pid}, from which this process was forked"
            )

    def _failure(self, timeout: float | None) -> Failure | None:
        """Wait, and return the failure; `None` if there is none."""
        self._check_process()
        try:
            error = super().exception(timeout)
            self._show_records()
            self._failure_is_known = True
            if isinstance(error, PoolClosedError):
                park_daemon_threads()
        except CancelledError:
            park_daemon_threads()
            raise
        except TimeoutError as exc:
            if not _is_from_waiting(exc):
                raise
            raise TaskTimeoutError(f"no result after {timeout:g} seconds") from None
        if error is not None and not isinstance(error, _NotDecodedError):
            return Failure(error)
        failure = self._decoded().failures.get(0)
        if failure is not None and isinstance(failure.error, StopIteration):
            # StopIteration cannot be set on an asyncio future, which would then wait for ever.
            instead = RuntimeError("the function raised StopIteration")
            instead.__cause__ = failure.error
            return Failure(instead)
        return failure

    def _receive(self, record: bytes) -> None:
        """Take a record; it is shown soon in the callback thread, or by a thread that waits."""
        self._records.append(record)
        if self._context is None:
            self._callback_thread.call_soon(self._show_records)
        else:
            self._callback_thread.call_soon(self._context.copy().run, self._show_records)

    def _show_records(self) -> None:
        with self._showing:
            show_all(self._records)

    def _decoded(self) -> ChunkReport:
        with self._decoding:
            if self._report is None:
                assert self._decode is not None, "it has not failed"
                self._report = self._decode()
                self._decode = None
            return self._report

    def _end_with(
        self, decode: Callable[[], ChunkReport], describe_failure: Callable[[], str] | None
    ) -> None:
        """End with a report, which *decode* returns when it is asked for.

        Args:
            decode: Rebuilds the report.
            describe_failure: Returns the report's failure as text; `None` if it has no failure.
        """
        self._decode = decode
        self._describe_failure = describe_failure or str
        with suppress(InvalidStateError):  # a time-out or a cancellation came first
            if describe_failure is not None:
                self.set_exception(_NotDecodedError())
            else:
                self.set_result(None)  # type: ignore[arg-type]  # result() reads the report

    def _cancelled(self) -> None:
        with self._decoding:
            if not self.cancelled() and super().cancel():
                self.set_running_or_notify_cancel()

    def _fail_with(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.set_exception(error)


def _is_from_waiting(error: BaseException) -> bool:
    """Return whether the wait itself raised *error*, not a signal handler that interrupted it."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_code is Future.exception.__code__


# Users see it in tracebacks and in help() under the name they import it by.
AsyncResult.__module__ = "parallel_facade"
