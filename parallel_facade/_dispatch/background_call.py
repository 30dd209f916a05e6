"""One background call: its attempts, its time limit and its end.

    apply_async ─► BackgroundCall ─► Backend ─► worker
                       │ attempt by attempt       │
    AsyncResult ◄──────┴──── _arrived ◄───────────┘

Guarantees:
    - The last attempt, a time-out or a cancellation ends the result, and the callable is dropped.
    - None of the user's code runs in the back-end's thread: failures that may be retried are
      decoded in the thread for decisions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Final

from parallel_facade._common.callback_thread import CallbackThread
from parallel_facade._common.task_errors import TaskTimeoutError
from parallel_facade._console.replay import ignore
from parallel_facade._dispatch.async_result import AsyncResult
from parallel_facade._dispatch.attempts import Attempts
from parallel_facade._dispatch.call_options import Options
from parallel_facade._dispatch.call_trace import trace_call
from parallel_facade._dispatch.codecs import Codec, codec_for
from parallel_facade._dispatch.delayed_action import DelayedAction
from parallel_facade._dispatch.sent_call import place_call
from parallel_facade._worker.outcomes import ChunkReport
from parallel_facade._worker.run_chunk import Call, Chunk
from parallel_facade.backends.base import Backend, TaskFuture, WorkerLost
from parallel_facade.backends.kept_calls import are_plain_arguments


class BackgroundCall:
    """One background call, with all its attempts.

    Args:
        backend: Runs it.
        call: The callable, in the form ``"call"``.
        arguments: Positional arguments and keywords.
        options: The options of the call.
        callback_thread: Runs callbacks.
        decisions: The thread that decodes failures, to see whether they are retried. It is not the
            callback thread, where a callback may wait for this very result.
    """

    def __init__(
        self,
        backend: Backend,
        call: Call,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
        options: Options,
        *,
        callback_thread: CallbackThread,
        decisions: CallbackThread,
    ) -> None:
        self._backend = backend
        self._options = options
        self._decisions = decisions
        self._trace = trace_call(call.func, backend, max(1, backend.capacity()))
        self._codec: Codec = self._trace.traced(codec_for(backend, options))
        self._handle = place_call(
            backend, self._codec, call, lambda: are_plain_arguments(arguments)
        )
        try:
            self._payload = self._codec.pack_chunk(Chunk(0, [arguments]))
        except BaseException:
            self._trace.note_end()
            backend.drop(self._handle)
            raise
        self._attempts = Attempts(options.settings.retries, options.retry_on)
        self._delay: DelayedAction | None = None  # until the next attempt
        self._alarm: DelayedAction | None = None
        self._inner: TaskFuture  # the current attempt, from the first on
        self.result: AsyncResult[Any] = AsyncResult(callback_thread)
        backend.listen(self._handle, self._trace.listener(self.result._receive))

    def start(self, on_end: Callable[[], object] | None = None) -> None:
        """Start the first attempt and the time limit.

        Args:
            on_end: Called once, when the result has ended, in the thread that ends it.
        """
        self.result._attach(self)
        timeout = self._options.settings.timeout
        try:
            self._attempt()
            # Not for a back-end that runs the call in `submit`: the call has already ended.
            if timeout is not None and not self._backend.capabilities.runs_in_caller:
                self._alarm = DelayedAction(timeout, self._expire)
                self._alarm.start()
                if self._handle is None:  # it has ended before there was an alarm to cancel
                    self._alarm.cancel()
        except BaseException:
            self._end()
            raise
        if on_end is not None:
            Future.add_done_callback(self.result, lambda _: on_end())

    def cancel(self) -> bool:
        """Cancel the current attempt if it does not run yet."""
        if self._cancel_delay():
            self._end()
            self.result._cancelled()
            return True
        return self._inner.cancel()

    def _cancel_delay(self) -> bool:
        """Cancel the delay and the attempt after it; return whether there was a delay."""
        return self._delay is not None and self._delay.cancel()

    def stop(self) -> bool:
        """Stop the current attempt if the back-end can; the result is then cancelled."""
        if self.cancel():
            return True
        # If the attempt has already ended, a retry may be about to follow; this prevents it.
        if not self._inner.stop() and not self._inner.done():
            return False
        self.result._cancelled()
        return self.result.cancelled()

    def running(self) -> bool:
        """Return whether an attempt runs now."""
        return self._inner.running()

    def _attempt(self) -> None:
        self._trace.note_submitted(0)
        try:
            self._inner = self._backend.submit(
                self._handle, self._payload, self._options.settings.task_timeout
            )
        except Exception as exc:
            raise self._backend.translate(exc) from exc.__cause__
        self._inner.add_done_callback(self._arrived)

    def _arrived(self, inner: Future[Any]) -> None:
        """Handle the end of an attempt, in a thread of the back-end."""
        if inner.cancelled() or _was_stopped(inner):
            self._end()
            self.result._cancelled()
            return
        error, received = _received(inner)
        if error is not None:
            self._trace.note_lost(0, 1, self._backend.translate(error))
        may_have_failed = error is not None or self._codec.has_failures(received)
        if may_have_failed and self._attempts.are_left(0):
            self._decisions.call_soon(self._decide, inner)
        else:
            self._settle(inner)

    def _decide(self, inner: Future[Any]) -> None:
        """Retry, or end the result with the failure."""
        if self.result.done() or (error := self._retried_error(inner)) is None:
            self._settle(inner)
            return
        self._attempts.use(0, error)
        if not (delay := self._options.settings.retry_delay):
            self._attempt_again()
            return
        self._delay = DelayedAction(delay, lambda: self._decisions.call_soon(self._attempt_again))
        self._delay.start()

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
            if self.result.done():  # its time has passed since the check
                self._give_up_attempt()

    def _retried_error(self, inner: Future[Any]) -> BaseException | None:
        """Return the error of the attempt if it is to be retried; else `None`."""
        error, received = _received(inner)
        if error is not None:
            return self._backend.translate(error)
        error = self._codec.unpack(received).failures[0].error
        return error if self._attempts.is_retried(error) else None

    def _settle(self, inner: Future[Any]) -> None:
        self._end()
        error, received = _received(inner)
        if error is not None:
            translated = self._backend.translate(error)
            self._attempts.note(0, translated)
            self.result._fail_with(translated)
            return
        codec = self._codec
        self.result._end_with(
            functools.partial(_unpacked, codec, received, self._attempts),
            (lambda: codec.first_failure(received)) if codec.has_failures(received) else None,
        )

    def _expire(self) -> None:
        seconds = self._options.settings.timeout
        self.result._fail_with(TaskTimeoutError(f"the call did not end within {seconds:g} seconds"))
        if self._cancel_delay():
            self._end()
        else:
            self._give_up_attempt()

    def _give_up_attempt(self) -> None:
        if not self._inner.cancel():
            self._inner.stop()

    def _end(self) -> None:
        self._trace.note_end()
        if self._alarm is not None:
            self._alarm.cancel()
        # Break reference cycles: a failure that nobody asks for is logged when its result is
        # deleted, and that must not wait for the garbage collector.
        self._inner = ENDED
        self.result._attach(None)
        handle, self._handle = self._handle, None
        if handle is not None:
            # A thread that the task has left behind may still send records.
            self._backend.listen(handle, ignore)
            self._backend.drop(handle)
            self._codec.forget_callable()


ENDED: Final = TaskFuture()
"""Replaces an attempt that nothing waits for any more."""

ENDED.set_result(None)


def _unpacked(codec: Codec, received: Any, attempts: Attempts) -> ChunkReport:
    """Return the report; each failure in it has notes on how earlier *attempts* ended."""
    report = codec.unpack(received)
    for failure in report.failures.values():
        attempts.note(0, failure.error)
    return report


def _was_stopped(inner: Future[Any]) -> bool:
    """Return whether *inner* was stopped on request; it may arrive before `stop` returns."""
    error, _ = _received(inner)
    return isinstance(error, WorkerLost) and isinstance(error.error, CancelledError)


def _received(inner: Future[Any]) -> tuple[BaseException | None, Any]:
    """Return why *inner* has no report, or else the report as it was received."""
    error = inner.exception()
    if isinstance(error, WorkerLost) and error.parts:
        # Its worker died after the call had ended, and before it could report that.
        return None, list(error.parts)
    return (error, None) if error is not None else (None, inner.result())
