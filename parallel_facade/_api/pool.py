"""`Pool`: owns the workers of a back-end for a limited time.

    Pool ──owns──► Backend (workers)      one MapRun or BackgroundCall per call ──► Backend
      └──owns──► CallbackThread (callbacks)

Guarantees:
    - Every option is checked before any part of the call reaches a worker.
    - `close` leaves no worker, thread or file; closing twice is fine, later use is an error.
    - Inside a worker, calls run in that worker: never more workers than were asked for.
"""

from __future__ import annotations

import functools
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from parallel_facade._api.open_backend import PoolOptions, backend_name, resolve_once
from parallel_facade._api.pool_calls import PoolCalls
from parallel_facade._api.results import ResultIterator, collect, collect_async
from parallel_facade._api.signatures import PoolMapOptions
from parallel_facade._common.callback_thread import CLOSE_PATIENCE
from parallel_facade._common.errors import ConfigurationError
from parallel_facade._common.shutdown import close_at_exit, forget
from parallel_facade._common.threads import new_thread
from parallel_facade._configuration.setting_types import ONLY_FOR_MAPS
from parallel_facade._dispatch.async_result import AsyncResult
from parallel_facade._dispatch.call_options import check_callable, check_positive
from parallel_facade._dispatch.prepare_call import callbacks

R = TypeVar("R")

_pools_by_token: weakref.WeakValueDictionary[str, Pool] = weakref.WeakValueDictionary()


class Pool(PoolCalls, Executor):
    """The workers of one back-end, for any number of calls.

    A pool is a context manager and a `concurrent.futures.Executor`. It works wherever an executor,
    or a pool with a ``map`` method, is expected.

    Args:
        backend: The name of a back-end, a `Backend`, or a `concurrent.futures.Executor`, which the
            pool does not shut down; `None` takes the configured value.
        workers: Maximum number of workers; `None` takes the configured value or, if there is none,
            all workers of a cluster or an executor.
        start_method: ``"forkserver"``, ``"spawn"`` or ``"fork"``, for processes; `None` takes the
            configured value.
        initializer: Called once in each new worker. Tasks see the globals that it sets for as long
            as the worker lives.
        initargs: Arguments of *initializer*.
        max_tasks_per_worker: Replace a worker after this many items, checked at the end of a
            chunk; `None` means never.
        max_memory_per_worker: Replace a worker if its resident memory, in bytes, is above this at
            the end of a chunk; `None` means never.
        inner_threads: Threads that libraries such as BLAS and OpenMP use in each worker process;
            0 sets no limit; `None` takes the configured value, by default the worker's share of
            the CPUs.
        serializer: ``"dill"``, or ``"pickle"`` for the standard library only; `None` takes the
            configured value.

    Raises:
        ConfigurationError: A setting has a bad value, or the back-end cannot honour it.

    >>> with Pool(backend="thread", workers=2) as pool:
    ...     pool.pmap(lambda x: x * x, range(4))
    [0, 1, 4, 9]
    """

    def __init__(
        self,
        backend: Any = None,
        workers: int | None = None,
        *,
        start_method: str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        max_tasks_per_worker: int | None = None,
        max_memory_per_worker: int | None = None,
        inner_threads: int | None = None,
        serializer: str | None = None,
    ) -> None:
        settings = {
            "backend": backend,
            "workers": workers,
            "start_method": start_method,
            "inner_threads": inner_threads,
            "serializer": serializer,
        }
        config = resolve_once(settings)
        if initializer is None and initargs:
            raise ConfigurationError(f"initargs={initargs!r} needs an initializer")
        if initializer is not None:
            initializer = functools.partial(check_callable(initializer, "initializer"), *initargs)
        self._open(
            config,
            PoolOptions(
                start_method,
                inner_threads,
                initializer,
                check_positive("max_tasks_per_worker", max_tasks_per_worker),
                check_positive("max_memory_per_worker", max_memory_per_worker),
                serializer,
            ),
        )

    def _note_open(self) -> None:
        close_at_exit(self, type(self._backend))
        _pools_by_token[self._token] = self

    # ── the three verbs ───────────────────────────────────────────────────────────────────────

    @overload
    def pmap(
        self,
        func: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        return_exceptions: Literal[False] = ...,
        **options: Unpack[PoolMapOptions],
    ) -> list[R]: ...
    @overload
    def pmap(
        self,
        func: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        return_exceptions: bool,
        **options: Unpack[PoolMapOptions],
    ) -> list[R | Exception]: ...
    def pmap(
        self,
        func: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        return_exceptions: bool = False,
        retry_on: Any = (),
        strict: bool = False,
        **settings: Any,
    ) -> list[Any]:
        """Apply *func* to each item in parallel and return the results in order.

        Takes the options of `parallel_facade.pmap`, except those that the pool fixes.

        >>> with Pool(backend="thread", workers=2) as pool:
        ...     pool.pmap(pow, [2, 3], [5, 2])
        [32, 9]
        """
        options = self._options(settings, retry_on, return_exceptions=return_exceptions)
        run = self._map(options, func, iterables, strict=strict)
        return collect(run)

    @overload
    async def amap(
        self,
        func: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        return_exceptions: Literal[False] = ...,
        **options: Unpack[PoolMapOptions],
    ) -> list[R]: ...
    @overload
    async def amap(
        self,
        func: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        return_exceptions: bool,
        **options: Unpack[PoolMapOptions],
    ) -> list[R | Exception]: ...
    async def amap(
        self,
        func: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        return_exceptions: bool = False,
        retry_on: Any = (),
        strict: bool = False,
        **settings: Any,
    ) -> list[Any]:
        """Apply *func* as `pmap` does, as a coroutine: the event loop continues meanwhile.

        Inputs are read and results rebuilt in the event loop's thread. Cancelling the asyncio task
        that awaits this coroutine stops the running tasks, if the back-end can. On the serial
        back-end, the items also run in the event loop's thread.

        >>> import asyncio
        >>> async def main():
        ...     with Pool(backend="thread", workers=2) as pool:
        ...         return await pool.amap(pow, [2, 3], [5, 2])
        >>> asyncio.run(main())
        [32, 9]
        """
        options = self._options(settings, retry_on, return_exceptions=return_exceptions)
        run = self._map(options, func, iterables, strict=strict)
        return await collect_async(run)

    def imap(
        self,
        func: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        buffersize: int | None = None,
        return_exceptions: bool = False,
        retry_on: Any = (),
        strict: bool = False,
        on_close: Callable[[], object] | None = None,
        **settings: Any,
    ) -> ResultIterator[R]:
        """Apply *func* lazily: read items only as results are taken.

        Takes the options of `parallel_facade.imap`, except those that the pool fixes, and
        *on_close*, which is called once when the iterator ends or is closed.

        >>> import itertools
        >>> with Pool(backend="thread", workers=2) as pool:
        ...     next(pool.imap(abs, itertools.count(-3)))
        3
        """
        return self._lazy_map(
            self._options(settings, retry_on, return_exceptions=return_exceptions),
            func,
            iterables,
            ordered=ordered,
            buffersize=buffersize,
            strict=strict,
            on_close=on_close,
        )

    def apply_async(
        self,
        func: Callable[..., R],
        /,
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        *,
        callback: Callable[[R], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        retry_on: Any = (),
        on_end: Callable[[], object] | None = None,
        **settings: Any,
    ) -> AsyncResult[R]:
        """Call ``func(*args, **kwds)`` in a worker and return its future at once.

        Takes the options of `parallel_facade.apply_async`, except those that the pool fixes, and
        *on_end*, which is called once when the task has ended, in a thread of the back-end.

        >>> with Pool(backend="thread", workers=1) as pool:
        ...     pool.apply_async(divmod, (7, 2)).get()
        (3, 1)
        """
        for name in ONLY_FOR_MAPS:
            if settings.get(name) is not None:
                raise ConfigurationError(f"{name}={settings[name]!r} has no meaning for one call")
        options = self._options({**settings, "chunksize": 1}, retry_on, return_exceptions=False)
        when_done = callbacks(callback, error_callback)
        return self._call(options, func, args, kwds, when_done=when_done, on_end=on_end)

    # ── the Executor ──────────────────────────────────────────────────────────────────────────

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> AsyncResult[R]:
        """Call ``fn(*args, **kwargs)`` in a worker, as `concurrent.futures.Executor.submit` does.

        >>> with Pool(backend="thread", workers=1) as pool:
        ...     pool.submit(int, "ff", base=16).result()
        255
        """
        return self.apply_async(fn, args, kwargs)

    @overload
    def map(
        self,
        fn: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        buffersize: int | None = ...,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[PoolMapOptions],
    ) -> Iterator[R]: ...
    @overload
    def map(
        self,
        fn: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        buffersize: int | None = ...,
        return_exceptions: bool,
        **options: Unpack[PoolMapOptions],
    ) -> Iterator[R | Exception]: ...
    def map(  # pyright: ignore[reportIncompatibleMethodOverride]  # the base takes fn by name
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        buffersize: int | None = None,
        return_exceptions: bool = False,
        retry_on: Any = (),
        strict: bool = False,
        **settings: Any,
    ) -> Iterator[Any]:
        """Start applying *fn* to each item and return an iterator over the results, in order.

        Works as `concurrent.futures.Executor.map`: the inputs are read at once, unless *buffersize*
        is given, and dropping the iterator cancels the items that have not started. Also takes the
        options of `pmap`.

        >>> with Pool(backend="thread", workers=2) as pool:
        ...     list(pool.map(abs, [-1, 2]))
        [1, 2]
        """
        if buffersize is not None:
            return self.imap(
                fn,
                *iterables,
                buffersize=buffersize,
                return_exceptions=return_exceptions,
                retry_on=retry_on,
                strict=strict,
                **settings,
            )
        options = self._options(settings, retry_on, return_exceptions=return_exceptions)
        run = self._map(options, fn, iterables, strict=strict, submits_all=True)
        results: ResultIterator[Any] = ResultIterator(run)
        run.check_ahead()
        run.fill()
        return results

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, stop_running: bool = False
    ) -> None:
        """Close the pool, as `concurrent.futures.Executor.shutdown` does.

        Args:
            wait: Whether to wait for the accepted calls; if false, a thread waits for them.
            cancel_futures: Whether to cancel the calls that have not started; those that run go on
                to their end.
            stop_running: Whether to abandon the calls that run, too, as `close(cancel=True)` does.

        >>> pool = Pool(backend="serial")
        >>> pool.shutdown()
        """
        if cancel_futures:
            self._is_shut = True
            self._backend.cancel_waiting()
        if wait:
            self.close(cancel=stop_running)
        else:
            new_thread(lambda: self.close(cancel=stop_running), name="close", daemon=False).start()

    # ── closing ───────────────────────────────────────────────────────────────────────────────

    def close(self, *, cancel: bool = False) -> None:
        """Release the workers; closing twice is fine, and the second call waits for the first.

        Args:
            cancel: Abandon the calls that have not ended, instead of waiting for them.

        >>> pool = Pool(backend="thread", workers=1)
        >>> pool.close()
        """
        with self._lock:
            already_closed, self._closed = self._closed, True
        if self._pid != os.getpid():
            return
        # A callback must not wait for the close that waits for callbacks.
        if already_closed and self._callback_thread.runs_here():
            return
        # Also if it is closed already: an interrupt may have cut the first close short.
        self._backend.close(cancel=cancel)
        patience = 0 if self._backend.runs_here() else CLOSE_PATIENCE
        self._decisions.close(patience)
        self._callback_thread.close(patience)
        forget(self)

    def release(self) -> None:
        """Stop using a back-end that belongs to somebody else, without waiting for anything.

        >>> with Pool(backend="thread", workers=1) as lender:
        ...     Pool(backend=lender).release()
        ...     lender.pmap(abs, [-1])
        [1]
        """
        with self._lock:
            self._closed = True
        forget(self)
        self._decisions.close(patience=0)
        self._callback_thread.close(patience=0)

    def __enter__(self) -> Self:
        """Return the pool."""
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        """Close the pool; if an exception ends the block, do not wait for its tasks."""
        self.close(cancel=exc_type is not None)

    def __del__(self) -> None:
        backend = getattr(self, "_backend", None)  # missing if `__init__` raised
        if backend is not None and not self._closed and backend.owns_workers:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"workers={self.workers}"
        return f"<parallel_facade.Pool {backend_name(self._backend_setting)} {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as a token: a worker gets a pool that runs calls in the worker itself."""
        return _pool_by_token, (self._token,)

    @property
    def workers(self) -> int:
        """Maximum number of workers.

        >>> with Pool(backend="thread", workers=3) as pool:
        ...     pool.workers
        3
        """
        if self._asked is None:
            return self._backend.capacity()
        return min(self._asked, self._backend.capacity())

    @property
    def is_usable(self) -> bool:
        """Whether the pool is open, in its own process, and has workers.

        >>> with Pool(backend="serial") as pool:
        ...     pool.is_usable
        True
        """
        return not self._closed and self._pid == os.getpid() and self._backend.is_usable


# Tracebacks and help() show the name under which users import it.
Pool.__module__ = "parallel_facade"


def _pool_by_token(token: str) -> Pool:
    """Return the pool in the process that made it; elsewhere, a pool that runs in the worker."""
    pool = _pools_by_token.get(token)
    if pool is None or pool._pid != os.getpid():
        pool = Pool._of(resolve_once({"backend": "serial"}), token)
        forget(pool)
    return pool
