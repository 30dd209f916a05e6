"""What the maps give: a list for `pmap`, an iterator for `imap`, both over one `Map`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

from parallel_facade._dispatch import Map, Outcome
from parallel_facade._exiting import freeze_daemons
from parallel_facade._outcomes import Failure

R = TypeVar("R")


def collect(run: Map, *, return_exceptions: bool) -> list[Any]:
    """Return the values of an ordered *run*, raising its first failure."""
    values: list[Any] = []
    try:
        _collect_into(values, run, return_exceptions=return_exceptions)
    except BaseException as exc:
        try:
            freeze_daemons()
            with suppress(Exception):  # an exception may refuse attributes, and stays the user's
                exc.partial_results = {  # type: ignore[attr-defined]
                    **dict(enumerate(values)),
                    **run.values_not_taken(),
                }
            run.close(stop_running=_is_urgent(run, exc))
        except BaseException:  # a second Ctrl-C
            run.close(stop_running=True)
            raise
        raise
    run.close(stop_running=False)
    return values


def _collect_into(values: list[Any], run: Map, *, return_exceptions: bool) -> None:
    run.check_ahead()
    while not run.is_over:
        run.fill()
        while (outcome := run.take()) is not None:
            values.append(_value(outcome, return_exceptions=return_exceptions))
        if run.must_wait:
            run.wait()


def _value(outcome: Outcome, *, return_exceptions: bool) -> Any:
    if not isinstance(outcome, Failure):
        return outcome.value
    if return_exceptions and isinstance(outcome.error, Exception):
        return outcome.error
    raise outcome.to_raise()


class _OverError(Exception):
    """There is no further result; told apart from a `StopIteration` of the user's function."""


class ResultIterator(Iterator[R], Generic[R]):
    """The results of `imap`: an iterator, an asynchronous iterator, and a context manager.

    Closing it, leaving its ``with`` block or dropping it cancels what has not run. `len()` gives
    the results still to come, where the inputs have a length.

    >>> from parallel_facade import imap
    >>> with imap(abs, [-1, -2, -3], backend="serial") as results:
    ...     next(results), len(results)
    (1, 2)
    """

    def __init__(
        self,
        run: Map,
        *,
        return_exceptions: bool,
        on_close: Callable[[], object] | None = None,
    ) -> None:
        self._run = run
        self._return_exceptions = return_exceptions
        self._on_close = on_close
        self._is_closed = False
        self._in_use = threading.Lock()  # held by the consumer that waits for a result

    def __iter__(self) -> ResultIterator[R]:
        """Return itself."""
        return self

    def __next__(self) -> R:
        """Return the next result, waiting for it."""
        self._enter()
        try:
            return self._given(self._wait_for_outcome())
        except _OverError:
            self.close()
        except BaseException as exc:
            raise self._fail(exc)  # noqa: B904 - it is the same one, or has it as its cause
        finally:
            self._in_use.release()
        raise StopIteration

    def __aiter__(self) -> ResultIterator[R]:
        """Return itself."""
        return self

    async def __anext__(self) -> R:
        """Return the next result, letting the event loop go on."""
        self._enter()
        try:
            return self._given(await self._await_outcome())
        except _OverError:
            self.close()
        except BaseException as exc:
            raise self._fail(exc)  # noqa: B904 - it is the same one, or has it as its cause
        finally:
            self._in_use.release()
        raise StopAsyncIteration

    def __len__(self) -> int:
        """Return how many results are still to come.

        Raises:
            TypeError: The inputs have no length.
        """
        if self._run.total is None:
            raise TypeError("the number of results is not known: an input has no length")
        return self._run.total - self._run.taken

    def __length_hint__(self) -> int:
        """Return how many results are still to come, 0 if that is not known."""
        return 0 if self._run.total is None else len(self)

    def __bool__(self) -> bool:
        """Return `True`, as any iterator does, however many results are left."""
        return True

    def __enter__(self) -> ResultIterator[R]:
        """Return itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        # Dropping the iterator is the usual way to end early: a `break` in a `for` loop does it.
        # When the interpreter ends there is nothing left to close, nor to close it with.
        if not getattr(self, "_is_closed", True) and not sys.is_finalizing():
            self.close()

    def close(self) -> None:
        """Cancel what has not run; closing twice is fine.

        >>> from parallel_facade import imap
        >>> results = imap(abs, [-1, -2], backend="serial")
        >>> results.close()
        >>> list(results)
        []
        """
        self._close(stop_running=False)

    async def aclose(self) -> None:
        """Cancel what has not run, as `close`."""
        self.close()

    def _enter(self) -> None:
        """Keep a second consumer out."""
        if not self._in_use.acquire(blocking=False):
            raise ValueError("this iterator is already waiting for a result, in another consumer")

    def _fail(self, exc: BaseException) -> BaseException:
        """Close after *exc*, and return what to raise."""
        freeze_daemons()
        self._close(stop_running=_is_urgent(self._run, exc))
        if not isinstance(exc, StopIteration | StopAsyncIteration):
            return exc
        # Raised as it is, the loop would take it for the end, as PEP 479 says of generators.
        failure = RuntimeError(f"the function raised {type(exc).__name__}")
        failure.__cause__ = exc
        return failure

    def _wait_for_outcome(self) -> Outcome:
        while (outcome := self._step()) is None:
            if self._run.must_wait:
                self._run.wait()
        return outcome

    async def _await_outcome(self) -> Outcome:
        while (outcome := self._step()) is None:
            if self._run.must_wait:
                await self._run.wait_async()
        return outcome

    def _step(self) -> Outcome | None:
        """Return the next outcome if it is there; raise `_OverError` at the end."""
        if self._is_closed:
            raise _OverError
        self._run.fill()
        outcome = self._run.take()
        if outcome is None and self._run.is_over:
            self._run.finish()
            raise _OverError
        return outcome

    def _given(self, outcome: Outcome) -> R:
        value: R = _value(outcome, return_exceptions=self._return_exceptions)
        return value

    def _close(self, *, stop_running: bool) -> None:
        if not self._is_closed:
            self._is_closed = True
            try:
                self._run.close(stop_running=stop_running)
            except BaseException:  # a second Ctrl-C
                self._run.close(stop_running=True)
                raise
            finally:
                if self._on_close is not None:
                    self._on_close()


# Users see it in tracebacks and in help() under the name they import it by.
ResultIterator.__module__ = "parallel_facade"


def _is_urgent(run: Map, exc: BaseException) -> bool:
    """Return whether tasks that run must be ended too: the caller is out of time, or leaves."""
    return run.is_too_late or not isinstance(exc, Exception)
