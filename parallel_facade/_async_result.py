"""One call in the background: the future that the user holds, and the attempts behind it.

    apply_async ─► Submission ─► Backend ─► worker
                       │ attempt by attempt       │
    AsyncResult ◄──────┴──── received ◄───────────┘     decoded when the user asks, by the asker

Guarantees:
    - An `AsyncResult` ends exactly once: with a value, an error, a time-out or a cancellation.
    - The user's objects are rebuilt in the thread that asks for them, not in the back-end's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from parallel_facade._carriers import carrier_for
from parallel_facade._delivery import Delivery
from parallel_facade._errors import PoolClosedError, TaskTimeoutError, described
from parallel_facade._exiting import freeze_daemons
from parallel_facade._interrupts import SafeFuture
from parallel_facade._notes import note_attempts
from parallel_facade._options import Options
from parallel_facade._outcomes import Failure, Report
from parallel_facade._worker import Call, Chunk
from parallel_facade.backends import Backend, WorkerLost

R = TypeVar("R")

_log = logging.getLogger("parallel_facade")

ENDED: Final = ("FINISHED", "CANCELLED", "CANCELLED_AND_NOTIFIED")
"""States of a future of `concurrent.futures` that waits for nothing any more."""


class _NotDecodedError(Exception):
    """Holds the place of an exception that nobody has asked for yet."""


class AsyncResult(SafeFuture[R], Generic[R]):
    """The result of `apply_async`, now or later.

    A `concurrent.futures.Future`, so `as_completed`, `wait` and `asyncio.wrap_future` take it;
    it can be awaited; and it has the methods of `multiprocessing.pool.AsyncResult`.

    >>> from parallel_facade import apply_async
    >>> apply_async(pow, (2, 10), backend="serial").get()
    1024
    """

    def __init__(self, delivery: Delivery) -> None:
        super().__init__()
        self._pid = os.getpid()
        self._delivery = delivery
        self._submission: Submission | None = None
        self._decode: Callable[[], Report] | None = None
        self._decoding = threading.RLock()  # guards _decode, _report and the cancelling
        self._report: Report | None = None
        self._was_asked = False  # somebody was told how it ended

    def get(self, timeout: float | None = None) -> R:
        """Return the value, waiting for it.

        Args:
            timeout: Seconds to wait; `None` waits for ever. The task goes on after that.

        Raises:
            TaskTimeoutError: It did not end in time.
            CancelledError: It was cancelled.

        >>> from parallel_facade import apply_async
        >>> apply_async(len, ("four",), backend="serial").get(timeout=5)
        4
        """
        return self.result(timeout)

    def result(self, timeout: float | None = None) -> R:
        """Return the value, waiting *timeout* seconds for it; as `get`."""
        if (failure := self._failure(timeout)) is not None:
            raise failure.to_raise()
        assert self._report is not None, "no failure, so there is a report"
        value: R = self._report.values[0]
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the task raised, waiting *timeout* seconds for it; `None` if it returned."""
        failure = self._failure(timeout)
        return None if failure is None else failure.to_raise()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task has ended, *timeout* seconds at most.

        >>> from parallel_facade import apply_async
        >>> apply_async(abs, (-1,), backend="serial").wait()
        """
        with suppress(TimeoutError, CancelledError):
            super().exception(timeout)

    def ready(self) -> bool:
        """Return whether the task has ended.

        >>> from parallel_facade import apply_async
        >>> apply_async(abs, (-1,), backend="serial").ready()
        True
        """
        return self.done()

    def successful(self) -> bool:
        """Return whether the task returned, and did not raise.

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
        """Cancel the task if it does not run yet, and return whether that worked.

        >>> from parallel_facade import apply_async
        >>> apply_async(abs, (-1,), backend="serial").cancel()
        False
        """
        submission = self._submission
        if submission is not None and not submission.cancel():
            return self.cancelled()
        return super().cancel()

    def stop(self) -> bool:
        """Cancel the task, also while it runs, and return whether that worked.

        On the process back-end its worker is stopped, with the processes that it has started, and
        replaced. Threads, the caller itself and foreign executors cannot be stopped.

        >>> from parallel_facade import apply_async
        >>> import time
        >>> result = apply_async(time.sleep, (3600,), backend="process")
        >>> result.stop(), result.cancelled()
        (True, True)
        """
        submission = self._submission
        return submission is not None and not self.done() and submission.stop()

    def running(self) -> bool:
        """Return whether the task runs now."""
        submission = self._submission
        return not self.done() and submission is not None and submission.running()

    def add_done_callback(self, fn: Callable[[Future[R]], object]) -> None:
        """Call *fn* with this result when it is there, in the thread for callbacks."""
        if getattr(fn, "__module__", None) == "asyncio.futures":
            # It only wakes its event loop: `await` waits for no callback that blocks.
            super().add_done_callback(fn)
            return
        super().add_done_callback(lambda _: self._delivery.deliver(fn, self))

    def __await__(self) -> Generator[Any, None, R]:
        """Wait in a coroutine; cancelling that cancels the task, if it does not run yet."""
        return asyncio.wrap_future(self).__await__()

    def _has_failed(self) -> bool:
        """Return whether the task, which has ended, raised; without asking what."""
        return super().exception() is not None

    def __del__(self) -> None:
        # Nobody can ask any more. While the interpreter ends, logging may be gone already.
        if getattr(self, "_was_asked", True) or sys.is_finalizing() or not self.done():
            return
        if not self.cancelled() and (what := self._failure_as_text()):
            _log.error("a call in the background failed, and nobody asked for it:\n%s", what)

    def _failure_as_text(self) -> str:
        """Return what went wrong, if anything, without rebuilding objects of the user's."""
        error = super().exception()
        if isinstance(error, _NotDecodedError):
            return self._tell_failure()
        is_ours_to_tell = error is not None and not isinstance(error, PoolClosedError)
        return described(error) if is_ours_to_tell and error is not None else ""

    def _failure(self, timeout: float | None) -> Failure | None:
        """Wait, and return what went wrong."""
        if self._pid != os.getpid() and self._state not in ENDED:  # its lock may be held for ever
            raise PoolClosedError(
                f"the result belongs to process {self._pid}, from which this process was forked"
            )
        try:
            error = super().exception(timeout)
            self._was_asked = True
            if isinstance(error, PoolClosedError):
                freeze_daemons()
        except CancelledError:
            freeze_daemons()
            raise
        except TimeoutError:
            raise TaskTimeoutError(f"no result after {timeout:g} seconds") from None
        if error is not None and not isinstance(error, _NotDecodedError):
            return Failure(error)
        failure = self._decoded().failures.get(0)
        if failure is not None and isinstance(failure.error, StopIteration):
            # It cannot be set on an asyncio future, which would wait for ever.
            instead = RuntimeError("the function raised StopIteration")
            instead.__cause__ = failure.error
            return Failure(instead)
        return failure

    def _decoded(self) -> Report:
        with self._decoding:
            if self._report is None:
                assert self._decode is not None, "it has ended with a report"
                self._report = self._decode()
                self._decode = None
            return self._report

    def _end_with(
        self, decode: Callable[[], Report], tell_failure: Callable[[], str] | None
    ) -> None:
        """End with a report, which *decode* returns when somebody asks.

        Args:
            decode: Rebuilds the report.
            tell_failure: Returns the failure in it as text; `None` if there is none.
        """
        self._decode = decode
        self._tell_failure = tell_failure or str
        with suppress(InvalidStateError):  # a time-out or a cancellation came first
            if tell_failure is not None:
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


# Users see it in tracebacks and in help() under the name they import it by.
AsyncResult.__module__ = "parallel_facade"


class Submission:
    """One call in the background, with all its attempts.

    Args:
        backend: Runs it.
        call: The callable, in the form ``"call"``.
        arguments: Positional arguments and keywords.
        options: How.
        delivery: Where callbacks are run.
        decisions: Where failures are decoded, to see whether they are retried. Not in the thread
            for callbacks, where a callback may wait for this very result.
    """

    def __init__(
        self,
        backend: Backend,
        call: Call,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
        options: Options,
        *,
        delivery: Delivery,
        decisions: Delivery,
    ) -> None:
        self._backend = backend
        self._options = options
        self._decisions = decisions
        self._carrier = carrier_for(backend, options.serializer)
        packed_call = self._carrier.pack_call(call)
        self._cargo = self._carrier.pack_chunk(Chunk(0, [arguments]))
        self._handle = backend.put(packed_call)
        self._earlier: list[str] = []  # how earlier attempts ended
        self._deciding = threading.Lock()  # guards _delay
        self._delay: threading.Timer | None = None  # until the next attempt
        self._alarm: threading.Timer | None = None
        self._inner: Future[Any] = Future()
        self.result: AsyncResult[Any] = AsyncResult(delivery)

    def start(self, on_end: Callable[[], object] | None = None) -> None:
        """Make the first attempt, and start the clock.

        Args:
            on_end: Called once, after the last attempt, in a thread of the back-end's.
        """
        self.result._submission = self
        try:
            self._attempt()
            self._start_clock()
        except BaseException:
            self._end()
            raise
        if on_end is not None:
            Future.add_done_callback(self.result, lambda _: on_end())

    def _start_clock(self) -> None:
        # Not for a back-end that is done when it returns.
        if self._options.timeout is None or self._backend.capabilities.runs_in_caller:
            return
        seconds = min(self._options.timeout, threading.TIMEOUT_MAX)
        self._alarm = threading.Timer(seconds, self._expire)
        self._alarm.daemon = True
        self._alarm.start()
        if self._handle is None:  # it has ended meanwhile, and there was no alarm to cancel
            self._alarm.cancel()

    def cancel(self) -> bool:
        """Cancel the current attempt if it does not run yet."""
        if self._cancel_delay():
            self._end()
            self.result._cancelled()
            return True
        return self._inner.cancel()

    def _cancel_delay(self) -> bool:
        """Let no attempt follow the delay; return whether there was one."""
        with self._deciding:
            delay, self._delay = self._delay, None
        if delay is None:
            return False
        delay.cancel()
        return True

    def stop(self) -> bool:
        """End the current attempt if the back-end can; the result is cancelled then."""
        if self.cancel():
            return True
        # An attempt that has ended may be about to be followed by another; not then.
        if not self._backend.stop(self._inner) and not self._inner.done():
            return False
        self.result._cancelled()
        return self.result.cancelled()

    def running(self) -> bool:
        """Return whether an attempt runs now."""
        return self._inner.running()

    def _attempt(self) -> None:
        try:
            self._inner = self._backend.submit(
                self._handle, self._cargo, self._options.task_timeout
            )
        except Exception as exc:
            raise self._backend.translate(exc) from exc.__cause__
        self._inner.add_done_callback(self._arrived)

    def _arrived(self, inner: Future[Any]) -> None:
        """An attempt has ended; this runs in a thread of the back-end's."""
        if inner.cancelled():
            self._end()
            self.result._cancelled()
        elif len(self._earlier) < self._options.retries and self._may_have_failed(inner):
            self._decisions.deliver(self._decide, inner)
        else:
            self._settle(inner)

    def _may_have_failed(self, inner: Future[Any]) -> bool:
        error, received = _received(inner)
        return error is not None or self._carrier.has_failures(received)

    def _decide(self, inner: Future[Any]) -> None:
        """Retry, or settle with the failure."""
        if self.result.done() or (error := self._retried_error(inner)) is None:
            self._settle(inner)
            return
        self._earlier.append(described(error))
        if not self._options.retry_delay:
            self._attempt_again()
            return
        with self._deciding:
            self._delay = threading.Timer(self._options.retry_delay, self._after_delay)
            self._delay.daemon = True
            self._delay.start()

    def _after_delay(self) -> None:
        with self._deciding:
            delay, self._delay = self._delay, None
        if delay is not None:  # not cancelled meanwhile
            self._decisions.deliver(self._attempt_again)

    def _attempt_again(self) -> None:
        if self.result.done():
            self._end()
            return
        try:
            self._attempt()
        except BaseException as exc:
            self._end()
            self.result._fail_with(exc)
        else:
            if self.result.done():  # its time has passed since we looked
                self._give_up_attempt()

    def _retried_error(self, inner: Future[Any]) -> BaseException | None:
        """Return what the attempt failed with, if there shall be another."""
        error, received = _received(inner)
        if error is not None:
            return self._backend.translate(error)
        error = self._carrier.unpack(received).failures[0].error
        return error if isinstance(error, self._options.retry_on) else None

    def _settle(self, inner: Future[Any]) -> None:
        self._end()
        error, received = _received(inner)
        if error is not None:
            told = self._backend.translate(error)
            note_attempts(told, self._earlier)
            self.result._fail_with(told)
            return
        carrier = self._carrier
        self.result._end_with(
            lambda: self._unpacked(received),
            (lambda: carrier.first_failure(received)) if carrier.has_failures(received) else None,
        )

    def _unpacked(self, received: Any) -> Report:
        report = self._carrier.unpack(received)
        for failure in report.failures.values():
            note_attempts(failure.error, self._earlier)
        return report

    def _expire(self) -> None:
        seconds = self._options.timeout
        self.result._fail_with(TaskTimeoutError(f"the call did not end within {seconds:g} seconds"))
        if self._cancel_delay():
            self._end()
        else:
            self._give_up_attempt()

    def _give_up_attempt(self) -> None:
        if not self._inner.cancel():
            self._backend.stop(self._inner)

    def _end(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        handle, self._handle = self._handle, None
        if handle is not None:
            self._backend.drop(handle)


def _received(inner: Future[Any]) -> tuple[BaseException | None, Any]:
    """Return why *inner* has no report, or else the report as it was received."""
    error = inner.exception()
    if isinstance(error, WorkerLost) and error.parts:
        # Its worker died after the call, and before it could say so.
        return None, list(error.parts)
    return (error, None) if error is not None else (None, inner.result())
