"""The verbs: each borrows a warm pool and forwards the call to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from parallel_facade._configuration.settings import settings_among

if TYPE_CHECKING:
    from parallel_facade._api.results import ResultIterator
    from parallel_facade._api.signatures import (
        BackendLike,
        ErrorTypes,
        LazyOptions,
        MapOptions,
        ProgressLike,
    )
    from parallel_facade._dispatch.async_result import AsyncResult

A = TypeVar("A")
B = TypeVar("B")
R = TypeVar("R")


@overload
def pmap(
    func: Callable[[A], R],
    iterable: Iterable[A],
    /,
    *,
    return_exceptions: Literal[False] = ...,
    **options: Unpack[MapOptions],
) -> list[R]: ...
@overload
def pmap(
    func: Callable[[A], R],
    iterable: Iterable[A],
    /,
    *,
    return_exceptions: bool,
    **options: Unpack[MapOptions],
) -> list[R | Exception]: ...
@overload
def pmap(
    func: Callable[[A, B], R],
    iterable: Iterable[A],
    iterable2: Iterable[B],
    /,
    *,
    return_exceptions: Literal[False] = ...,
    **options: Unpack[MapOptions],
) -> list[R]: ...
@overload
def pmap(
    func: Callable[[A, B], R],
    iterable: Iterable[A],
    iterable2: Iterable[B],
    /,
    *,
    return_exceptions: bool,
    **options: Unpack[MapOptions],
) -> list[R | Exception]: ...
@overload
def pmap(
    func: Callable[..., R],
    iterable: Iterable[object],
    iterable2: Iterable[object],
    iterable3: Iterable[object],
    /,
    *iterables: Iterable[object],
    return_exceptions: Literal[False] = ...,
    **options: Unpack[MapOptions],
) -> list[R]: ...
@overload
def pmap(
    func: Callable[..., R],
    iterable: Iterable[object],
    iterable2: Iterable[object],
    iterable3: Iterable[object],
    /,
    *iterables: Iterable[object],
    return_exceptions: bool,
    **options: Unpack[MapOptions],
) -> list[R | Exception]: ...
def pmap(
    func: Callable[..., object],
    /,
    *iterables: Iterable[object],
    backend: BackendLike | None = None,
    workers: int | None = None,
    chunksize: int | None = None,
    timeout: float | None = None,
    task_timeout: float | None = None,
    retries: int | None = None,
    retry_delay: float | None = None,
    retry_on: ErrorTypes = (),
    return_exceptions: bool = False,
    progress: ProgressLike | None = None,
    seed: int | None = None,
    strict: bool = False,
    serializer: str | None = None,
) -> list[Any]:
    """Apply *func* to each item in parallel and return the results in order.

    Several iterables are zipped; the map ends with the shortest of them. An option that is `None`
    takes the configured value.

    Args:
        func: Any callable: a lambda, a closure, a bound method, a function from a notebook.
        *iterables: An iterable for each argument of *func*; all are read before anything runs.
        backend: Where to run: ``"process"``, ``"thread"``, ``"serial"``, a cluster such as
            ``"dask:tcp://HOST:8786"``, an executor, or a `Pool`.
        workers: Maximum number of workers.
        chunksize: Items that one worker begins together; the default is 1. The number of items in
            one message depends on their measured run time.
        timeout: Seconds for the whole call.
        task_timeout: Seconds for one item, from the moment it starts. After that its worker is
            stopped, together with the processes that the item has started. On executors, and on
            clusters other than Ray, the item is abandoned and its code may continue to run. The
            thread and serial back-ends refuse this option.
        retries: Additional attempts for items lost to a crash or a *task_timeout*; `None` takes
            the configured value, which is 0 by default.
        retry_delay: Seconds between two attempts at an item; other items continue meanwhile.
        retry_on: Exception classes for which *retries* also applies.
        return_exceptions: Return an exception at its item's position instead of raising it.
        progress: `True` for a bar, a string for a bar with this description, or a callable that
            takes a `Progress`.
        seed: Start an independent random stream for each item index, in `random`, `numpy.random`
            and `rng`, so that results do not depend on back-end, workers or chunks. Refused where
            tasks share a process: on threads, on executors, on Dask workers with several threads.
        strict: Raise `ValueError` if the iterables differ in length.
        serializer: ``"dill"``, or ``"pickle"`` for the standard library only.

    Raises:
        ConfigurationError: An option has a bad value, or the back-end cannot honour it.
        SerializationError: *func*, an item or a result cannot travel.
        TaskTimeoutError: *timeout* or *task_timeout* has expired.
        WorkerCrashedError: A worker died.
        BackendLostError: A cluster cannot be reached, or has no workers.

    An exception that *func* raises is raised here unchanged: the exception of the failed item with
    the lowest index, with the worker's traceback as its cause and the item in a note. Every error
    that ends the call has an attribute *partial_results*: a dictionary that maps the index of each
    item that had ended to its result.

    >>> pmap(lambda x: x * x, range(5))
    [0, 1, 4, 9, 16]
    >>> pmap(pow, [2, 3], [5, 2])
    [32, 9]
    """
    given = settings_among(locals())
    from parallel_facade._api.results import collect
    from parallel_facade._api.shared_pools import borrow

    borrowed = borrow(given, retry_on=retry_on, return_exceptions=return_exceptions)
    try:
        run = borrowed.pool._map(borrowed.options, func, iterables, strict=strict)
        return collect(run)
    finally:
        borrowed.give_back()


@overload
def imap(
    func: Callable[[A], R],
    iterable: Iterable[A],
    /,
    *,
    return_exceptions: Literal[False] = ...,
    **options: Unpack[LazyOptions],
) -> ResultIterator[R]: ...
@overload
def imap(
    func: Callable[[A], R],
    iterable: Iterable[A],
    /,
    *,
    return_exceptions: bool,
    **options: Unpack[LazyOptions],
) -> ResultIterator[R | Exception]: ...
@overload
def imap(
    func: Callable[[A, B], R],
    iterable: Iterable[A],
    iterable2: Iterable[B],
    /,
    *,
    return_exceptions: Literal[False] = ...,
    **options: Unpack[LazyOptions],
) -> ResultIterator[R]: ...
@overload
def imap(
    func: Callable[[A, B], R],
    iterable: Iterable[A],
    iterable2: Iterable[B],
    /,
    *,
    return_exceptions: bool,
    **options: Unpack[LazyOptions],
) -> ResultIterator[R | Exception]: ...
@overload
def imap(
    func: Callable[..., R],
    iterable: Iterable[object],
    iterable2: Iterable[object],
    iterable3: Iterable[object],
    /,
    *iterables: Iterable[object],
    return_exceptions: Literal[False] = ...,
    **options: Unpack[LazyOptions],
) -> ResultIterator[R]: ...
@overload
def imap(
    func: Callable[..., R],
    iterable: Iterable[object],
    iterable2: Iterable[object],
    iterable3: Iterable[object],
    /,
    *iterables: Iterable[object],
    return_exceptions: bool,
    **options: Unpack[LazyOptions],
) -> ResultIterator[R | Exception]: ...
def imap(
    func: Callable[..., object],
    /,
    *iterables: Iterable[object],
    ordered: bool = True,
    buffersize: int | None = None,
    backend: BackendLike | None = None,
    workers: int | None = None,
    chunksize: int | None = None,
    timeout: float | None = None,
    task_timeout: float | None = None,
    retries: int | None = None,
    retry_delay: float | None = None,
    retry_on: ErrorTypes = (),
    return_exceptions: bool = False,
    progress: ProgressLike | None = None,
    seed: int | None = None,
    strict: bool = False,
    serializer: str | None = None,
) -> ResultIterator[Any]:
    """Apply *func* lazily: read items only as results are taken.

    The iterables may be endless. They are read in the thread that asks for results. Closing or
    dropping the iterator cancels the items that have not started. The iterator also works in
    ``async for``.

    Args:
        func: Any callable, as in `pmap`.
        *iterables: An iterable for each argument of *func*.
        ordered: Yield results in the order of the items. If false, yield them as tasks end.
        buffersize: Maximum number of items read and not yet yielded. `None` allows two messages
            per worker, which is two items until their run time has been measured. The serial
            back-end reads one item at a time.
        backend: As in `pmap`.
        workers: As in `pmap`.
        chunksize: As in `pmap`.
        timeout: Seconds from this call to the last result.
        task_timeout: As in `pmap`.
        retries: As in `pmap`.
        retry_delay: As in `pmap`.
        retry_on: As in `pmap`.
        return_exceptions: Yield an exception at its item's position and continue.
        progress: As in `pmap`.
        seed: As in `pmap`.
        strict: As in `pmap`.
        serializer: As in `pmap`.

    Raises:
        ConfigurationError: An option has a bad value, or the back-end cannot honour it.
        SerializationError: *func*, an item or a result cannot travel.
        TaskTimeoutError: *timeout* or *task_timeout* has expired.
        WorkerCrashedError: A worker died.
        BackendLostError: A cluster cannot be reached, or has no workers.

    >>> import itertools
    >>> next(imap(abs, itertools.count(-3)))
    3
    """
    given = settings_among(locals())
    from parallel_facade._api.shared_pools import borrow

    borrowed = borrow(given, retry_on=retry_on, return_exceptions=return_exceptions)
    try:
        return borrowed.pool._lazy_map(
            borrowed.options,
            func,
            iterables,
            ordered=ordered,
            buffersize=buffersize,
            strict=strict,
            on_close=borrowed.give_back,
        )
    except BaseException:
        borrowed.give_back()
        raise


def apply_async(
    func: Callable[..., R],
    /,
    args: Iterable[object] = (),
    kwds: Mapping[str, object] | None = None,
    *,
    callback: Callable[[R], object] | None = None,
    error_callback: Callable[[BaseException], object] | None = None,
    backend: BackendLike | None = None,
    workers: int | None = None,
    timeout: float | None = None,
    task_timeout: float | None = None,
    retries: int | None = None,
    retry_delay: float | None = None,
    retry_on: ErrorTypes = (),
    seed: int | None = None,
    serializer: str | None = None,
) -> AsyncResult[R]:
    """Call ``func(*args, **kwds)`` in a worker and return its future at once.

    The serial back-end runs the call before this function returns. A call that has not ended when
    the program exits is abandoned.

    Args:
        func: Any callable, as in `pmap`.
        args: Positional arguments of *func*.
        kwds: Keyword arguments of *func*.
        callback: Called with the value, in the callback thread.
        error_callback: Called with the exception, in the same thread.
        backend: As in `pmap`.
        workers: As in `pmap`.
        timeout: Seconds until the result fails with a `TaskTimeoutError`.
        task_timeout: As in `pmap`.
        retries: As in `pmap`.
        retry_delay: As in `pmap`.
        retry_on: As in `pmap`.
        seed: Start the random stream of item index 0, as in `pmap`.
        serializer: As in `pmap`.

    Raises:
        ConfigurationError: An option has a bad value, or the back-end cannot honour it.
        SerializationError: *func* or an argument cannot travel.
        BackendLostError: A cluster cannot be reached, or has no workers.

    >>> apply_async(divmod, (7, 2)).get()
    (3, 1)
    """
    given = {**settings_among(locals()), "chunksize": 1}
    from parallel_facade._api.shared_pools import borrow
    from parallel_facade._dispatch.prepare_call import callbacks

    when_done = callbacks(callback, error_callback)
    borrowed = borrow(given, retry_on=retry_on)
    try:
        return borrowed.pool._call(
            borrowed.options,
            func,
            args,
            kwds,
            when_done=when_done,
            on_end=borrowed.give_back,
        )
    except BaseException:
        borrowed.give_back()
        raise
