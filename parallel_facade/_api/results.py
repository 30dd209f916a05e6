"""The results of maps: a list for `pmap`, an iterator for `imap`, both over one `MapRun`."""

from __future__ import annotations

import collections
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from operator import length_hint
from typing import Any, Generic, TypeVar, cast

from parallel_facade._common.shutdown import park_daemon_threads
from parallel_facade._dispatch.map_run import MapRun
from parallel_facade._worker.outcomes import Failure

R = TypeVar("R")


def collect(run: MapRun) -> list[Any]:
    """Return the values of an ordered *run*, raising its first failure."""
    values: list[Any] = []
    try:
        _collect_into(values, run)
    except BaseException as exc:
        _give_up(run, values, exc)
        raise
    run.close(stop_running=False)
    return values


async def collect_async(run: MapRun) -> list[Any]:
    """Return what `collect` returns, without blocking the event loop."""
    values: list[Any] = []
    try:
        await _collect_into_async(values, run)
    except BaseException as exc:  # also when the awaiting task is cancelled
        _give_up(run, values, exc)
        raise
    run.close(stop_running=False)
    return values


async def _in_thread(action: Callable[[], object]) -> None:
    """Run *action* in a thread and wait for its end, even if the wait is cancelled."""
    import asyncio  # the caller has loaded it already; nobody else pays for it

    running = asyncio.ensure_future(asyncio.to_thread(action))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():  # there may be a second cancellation
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise


def _collect_into(values: list[Any], run: MapRun) -> None:
    run.check_ahead()
    while not run.is_over:
        _take_into(values, run)
        if run.must_wait:
            run.wait()


async def _collect_into_async(values: list[Any], run: MapRun) -> None:
    await _in_thread(run.check_ahead)
    while not run.is_over:
        _take_into(values, run)
        if run.must_wait:
            await run.wait_async()


def _take_into(values: list[Any], run: MapRun) -> None:
    """Submit chunks while there is room, and take the outcomes that have arrived."""
    run.fill()
    while (taken := run.take()) is not None:
        if isinstance(taken, Failure):
            raise taken.to_raise()
        values.extend(taken)
        run.note_taken(len(taken))


def _give_up(run: MapRun, values: list[Any], exc: BaseException) -> None:
    """Close *run* after *exc*, and attach the results so far to *exc*."""
    try:
        park_daemon_threads()
        with suppress(Exception):  # an exception may refuse attributes; the user still gets it
            exc.partial_results = {  # type: ignore[attr-defined]
                **dict(enumerate(values)),
                **run.values_not_taken(),
            }
        run.close(stop_running=_is_urgent(run, exc))
    except BaseException:  # a second Ctrl-C
        run.close(stop_running=True)
        raise


class _OverError(Exception):
    """There are no more results; distinct from a `StopIteration` of the user's function."""


class _Slices(Iterator[Iterator[R]], Generic[R]):
    """The results of `imap`, as iterators over slices of them.

    A slice that is not exhausted is returned again, so that several consumers share it.
    """

    def __init__(self, run: MapRun, on_close: Callable[[], object] | None) -> None:
        self.run = run
        self._on_close = on_close
        self._is_closed = False
        self._slice: Iterator[R] = iter(())  # outcomes taken from the run
        self._size = 0
        self._in_use = threading.Lock()  # held by the consumer that waits for a slice

    def __next__(self) -> Iterator[R]:
        if not length_hint(self._slice):
            if not self._in_use.acquire(blocking=False):
                # Raising here would also end the chain for the other consumer.
                return _refusal()
            try:
                self._wait()
            except _OverError:
                self.close()
                raise StopIteration from None
            except BaseException as exc:
                raise self._fail(exc)  # noqa: B904 - the same exception, or it is the cause
            finally:
                self._in_use.release()
        return self._slice

    async def __anext__(self) -> Iterator[R]:
        if not length_hint(self._slice):
            if not self._in_use.acquire(blocking=False):
                return _refusal()
            try:
                await self._wait_async()
            except _OverError:
                self.close()
                raise StopAsyncIteration from None
            except BaseException as exc:
                raise self._fail(exc)  # noqa: B904 - the same exception, or it is the cause
            finally:
                self._in_use.release()
        return self._slice

    @property
    def taken_of_slice(self) -> int:
        """Number of results of the current slice that the consumer has."""
        return self._size - length_hint(self._slice)

    def close(self, *, stop_running: bool = False) -> None:
        """Cancel the items that have not started; closing twice is fine."""
        if not self._is_closed:
            self._is_closed = True
            self._size = self.taken_of_slice
            collections.deque(self._slice, maxlen=0)  # also ends it for a consumer that holds it
            try:
                self.run.close(stop_running=stop_running)
            except BaseException:  # a second Ctrl-C
                self.run.close(stop_running=True)
                raise
            finally:
                if self._on_close is not None:
                    self._on_close()

    def _fail(self, exc: BaseException) -> BaseException:
        """Close after *exc*, and return the exception to raise."""
        park_daemon_threads()
        self.close(stop_running=_is_urgent(self.run, exc))
        if not isinstance(exc, StopIteration | StopAsyncIteration):
            return exc
        # Raised unchanged, it would silently end the consumer's loop; see PEP 479 on generators.
        failure = RuntimeError(f"the function raised {type(exc).__name__}")
        failure.__cause__ = exc
        return failure

    def _wait(self) -> None:
        while not self._step():
            if self.run.must_wait:
                self.run.wait()

    async def _wait_async(self) -> None:
        while not self._step():
            if self.run.must_wait:
                await self.run.wait_async()

    def _step(self) -> bool:
        """Look for a slice and return whether there is one; raise `_OverError` at the end."""
        if self._is_closed:
            raise _OverError
        self._leave_slice()
        self.run.fill()
        taken = self.run.take()
        if taken is None:
            if self.run.is_over:
                self.run.finish()
                raise _OverError
            return False
        if isinstance(taken, Failure):
            raise taken.to_raise()
        self._slice, self._size = iter(taken), len(taken)
        return True

    def _leave_slice(self) -> None:
        """Count the results of the slice as taken: the consumer has all of them."""
        taken, self._size = self.taken_of_slice, 0
        self._slice = iter(())
        self.run.note_taken(taken)


def _refusal() -> Iterator[Any]:
    """Return an iterator that raises once, for a second consumer."""
    return map(_refuse, [None])


def _refuse(_: None) -> None:
    raise ValueError("this iterator is already waiting for a result, in another consumer")


class ResultIterator(chain[R], Generic[R]):
    """The results of `imap`: an iterator, an asynchronous iterator, and a context manager.

    Closing it, leaving its ``with`` block or dropping it cancels the items that have not started.
    If the inputs have a length, `len()` returns the number of results still to come.

    >>> from parallel_facade import imap
    >>> with imap(abs, [-1, -2, -3], backend="serial") as results:
    ...     next(results), len(results)
    (1, 2)
    """

    # A chain of slices, so that a million tiny results need no Python code for each.
    _slices: _Slices[R]

    def __new__(
        cls,
        run: MapRun,
        *,
        on_close: Callable[[], object] | None = None,
    ) -> ResultIterator[R]:
        slices: _Slices[R] = _Slices(run, on_close)
        made: Any = cls.from_iterable(slices)
        made._slices = slices
        return cast("ResultIterator[R]", made)

    def __aiter__(self) -> ResultIterator[R]:
        """Return the iterator itself."""
        return self

    async def __anext__(self) -> R:
        """Return the next result, without blocking the event loop."""
        return next(await self._slices.__anext__())

    def __len__(self) -> int:
        """Return how many results are still to come.

        Raises:
            TypeError: The inputs have no length.
        """
        run = self._slices.run
        if run.total is None:
            raise TypeError("the number of results is not known: an input has no length")
        return run.total - run.taken - self._slices.taken_of_slice

    def __length_hint__(self) -> int:
        """Return how many results are still to come; 0 if that is not known."""
        return 0 if self._slices.run.total is None else len(self)

    def __bool__(self) -> bool:
        """Return `True`, like any iterator, however many results are left."""
        return True

    def __enter__(self) -> ResultIterator[R]:
        """Return the iterator itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the iterator."""
        self.close()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # Dropping the iterator is the usual way to end early: a `break` in a `for` loop does it.
        # When the interpreter exits, there is nothing left to close, and nothing to close it with.
        if hasattr(self, "_slices") and not _is_finalizing():
            self.close()

    def close(self) -> None:
        """Cancel the items that have not started; closing twice is fine.

        >>> from parallel_facade import imap
        >>> results = imap(abs, [-1, -2], backend="serial")
        >>> results.close()
        >>> list(results)
        []
        """
        self._slices.close()

    async def aclose(self) -> None:
        """Cancel the items that have not started, as `close` does.

        >>> import asyncio
        >>> from parallel_facade import imap
        >>> asyncio.run(imap(abs, [-1], backend="serial").aclose())
        """
        self.close()


# Tracebacks and help() show the name under which users import it.
ResultIterator.__module__ = "parallel_facade"


def _is_urgent(run: MapRun, exc: BaseException) -> bool:
    """Return whether running tasks must be stopped: time is up, or the caller is interrupted."""
    return run.is_too_late or not isinstance(exc, Exception)
