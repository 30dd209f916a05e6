"""Every error that the library itself raises.

ParallelFacadeError
├── BackendLostError     (ConnectionError) a cluster cannot be reached, or has no workers
├── ConfigurationError   (ValueError)     a setting is unknown or impossible
├── PoolClosedError      (RuntimeError)   a pool was used after it was closed
├── RemoteError          (RuntimeError)   stands for an exception that could not be rebuilt here
├── SerializationError   (TypeError)      an object cannot travel to or from a worker
├── TaskTimeoutError     (TimeoutError, multiprocessing.TimeoutError)   a call or task ran too long
└── WorkerCrashedError   (concurrent.futures.BrokenExecutor)   a worker died while it held a task

The last two are in `task_errors`, because their bases take long to import.

Errors raised by the user's function are re-raised with their own type and are not in this tree.
Each error in this tree can be pickled, and keeps its fields.
"""

from __future__ import annotations

from typing import Any


class ParallelFacadeError(Exception):
    """Base of every error that the library itself raises.

    >>> try:
    ...     pmap(abs, [1], workers=0)
    ... except ParallelFacadeError as error:
    ...     print(type(error).__name__)
    ConfigurationError
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild without `__init__`: pickle would not pass its keyword-only fields."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    cls: type[ParallelFacadeError], args: tuple[object, ...], fields: dict[str, object]
) -> ParallelFacadeError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(fields)
    return error


class BackendLostError(ParallelFacadeError, ConnectionError):
    """Raised when a cluster cannot be reached, was lost, or has had no worker for too long.

    >>> issubclass(BackendLostError, ConnectionError)
    True
    """


class ConfigurationError(ParallelFacadeError, ValueError):
    """Raised when a setting is unknown, has a bad value, or asks for more than a back-end can do.

    >>> try:
    ...     configure(retries=-1)
    ... except ConfigurationError as error:
    ...     print(error)
    retries=-1 in configure() is not valid; expected a whole number of at least 0
    """


class PoolClosedError(ParallelFacadeError, RuntimeError):
    """Raised when a pool is used after it was closed.

    >>> with Pool(backend="serial") as pool:
    ...     pass
    >>> try:
    ...     pool.pmap(abs, [1])
    ... except PoolClosedError as error:
    ...     print("closed")
    closed
    """


class RemoteError(ParallelFacadeError, RuntimeError):
    """Raised instead of an exception whose own class could not be rebuilt in this process.

    Attributes:
        type_name: The qualified name of the exception's class.
        remote_traceback: The traceback in the worker, as text.

    >>> RemoteError("gone", type_name="plugin.Lost", remote_traceback="").type_name
    'plugin.Lost'
    """

    def __init__(self, message: str, *, type_name: str, remote_traceback: str) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.remote_traceback = remote_traceback


class SerializationError(ParallelFacadeError, TypeError):
    """Raised when a callable, an argument or a result cannot travel to or from a worker.

    Attributes:
        path: The part that cannot travel, for example ``"func.__self__._lock"`` or ``"item 3"``.
        offenders: All parts that cannot travel, as `explain` lists them; empty if not known.

    >>> try:
    ...     pmap(list, [(x for x in "ab")], backend="process")
    ... except SerializationError as error:
    ...     print(error.path)
    item 0
    """

    def __init__(self, message: str, *, path: str, offenders: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.path = path
        self.offenders = offenders


class RemoteTraceback(Exception):  # noqa: N818 - it is shown as text, never raised
    """Shows a worker's traceback as the cause of the exception that the worker sent."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


def described(error: BaseException) -> str:
    """Return the type and message of *error*, even if its own code fails."""
    name, message = type(error).__qualname__, message_of(error)
    return f"{name}: {message}" if message else name


def message_of(error: BaseException) -> str:
    """Return the message of *error*, even if its own code fails."""
    try:
        return str(error)
    except BaseException as exc:
        return f"(its message cannot be shown: {type(exc).__qualname__})"


for _cls in (ParallelFacadeError, *ParallelFacadeError.__subclasses__()):
    # So that tracebacks and logs show these classes under the names that users import.
    _cls.__module__ = "parallel_facade"
