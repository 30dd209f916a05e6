"""What the maps give: a list for `pmap`, an iterator for `imap`, both over one `Map`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import length_hint
from typing import Any, Generic, TypeVar

from parallel_facade._dispatch import Map
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
        while (taken := run.take()) is not None:
            values.extend(_values(taken, return_exceptions=return_exceptions))
            run.note_taken(1 if isinstance(taken, Failure) else len(taken))
        if run.must_wait:
            run.wait()


def _values(taken: list[Any] | Failure, *, return_exceptions: bool) -> list[Any]:
    if not isinstance(taken, Failure):
        return taken
    if return_exceptions and isinstance(taken.error, Exception):
        return [taken.error]
    raise taken.to_raise()


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
        self._slice: Iterator[R] = iter(())  # outcomes that were taken of the run
        self._slice_size = 0
        self._in_use = threading.Lock()  # held by the consumer that waits for a result

    def __iter__(self) -> ResultIterator[R]:
        """Return itself."""
        return self

    def __next__(self) -> R:
        """Return the next result, waiting for it."""
        for value in self._slice:
            return value
        self._enter()
        try:
            return self._wait_for_slice()
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
        for value in self._slice:
            return value
        self._enter()
        try:
            return await self._await_slice()
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
        return self._run.total - self._run.taken - self._taken_of_slice()

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

    def _wait_for_slice(self) -> R:
        while not self._step():
            if self._run.must_wait:
                self._run.wait()
        return next(self._slice)

    async def _await_slice(self) -> R:
        while not self._step():
            if self._run.must_wait:
                await self._run.wait_async()
        return next(self._slice)

    def _step(self) -> bool:
        """Return whether there is a result, having looked; raise `_OverError` at the end."""
        if self._is_closed:
            raise _OverError
        self._leave_slice()
        self._run.fill()
        taken = self._run.take()
        if taken is None:
            if self._run.is_over:
                self._run.finish()
                raise _OverError
            return False
        values = _values(taken, return_exceptions=self._return_exceptions)
        self._slice, self._slice_size = iter(values), len(values)
        return True

    def _leave_slice(self) -> None:
        """Count what the consumer has of the slice; to be called when it has all, or shall have."""
        taken, self._slice_size = self._taken_of_slice(), 0
        self._slice = iter(())
        self._run.note_taken(taken)

    def _taken_of_slice(self) -> int:
        return self._slice_size - length_hint(self._slice)

    def _close(self, *, stop_running: bool) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._slice, self._slice_size = iter(()), self._taken_of_slice()
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
