"""The options of one call, checked against the capabilities of its back-end."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import types
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from parallel_facade._common.errors import ConfigurationError
from parallel_facade._configuration.setting_table import Config
from parallel_facade._configuration.settings import is_forced
from parallel_facade.backends.base import Capabilities

ErrorTypes = tuple[type[BaseException], ...]


class Options(NamedTuple):
    """What one call was asked to do; see `parallel_facade.pmap` for each option.

    Attributes:
        settings: The settings of the call, with `None` for a time limit of infinity.
        retry_on: Exceptions of the function that are retried.
        return_exceptions: Put an exception in its item's place.
    """

    settings: Config
    retry_on: ErrorTypes
    return_exceptions: bool


class Requirement(NamedTuple):
    """An option, the capability that it needs, and the message if that is missing."""

    option: str
    capability: str
    reason: str


REQUIREMENTS = (
    Requirement("task_timeout", "can_time_tasks", "cannot stop a task that runs"),
    Requirement("seed", "has_private_state", "may share one random state among its workers"),
    Requirement("inner_threads", "can_limit_threads", "does not start its workers itself"),
    Requirement("start_method", "has_children", "starts no processes of its own"),
    Requirement("initializer", "can_initialize", "does not start its workers itself"),
    Requirement("max_tasks_per_worker", "can_recycle", "cannot replace its workers"),
    Requirement("max_memory_per_worker", "can_recycle", "cannot replace its workers"),
)


LEFT_OUT: Final = frozenset(
    {"task_timeout", "inner_threads", "start_method"}
    | {"max_tasks_per_worker", "max_memory_per_worker"}
)
"""Options that a forced back-end may ignore."""


def check_capabilities(name: str, capabilities: Capabilities, **wanted: object) -> None:
    """Raise `ConfigurationError` for an option that the back-end called *name* cannot honour."""
    for requirement in REQUIREMENTS:
        value = wanted.get(requirement.option)
        if value is None or getattr(capabilities, requirement.capability):
            continue
        # A test that forces a back-end does not know these options, and they change no result.
        if requirement.option not in LEFT_OUT or not is_forced():
            raise ConfigurationError(
                f"{requirement.option}={value!r} is not possible on the {name} back-end, "
                f"which {requirement.reason}\n\nHint: backend='process' can."
            )


def make_options(
    resolved: Config,
    *,
    retry_on: object,
    return_exceptions: object,
    workers: int | None,
) -> Options:
    """Return the options of a call from its settings and its own arguments.

    Raises:
        ConfigurationError: An option has a bad value.
    """
    limits = _or_none(resolved.timeout), _or_none(resolved.task_timeout)
    if (resolved.workers, resolved.timeout, resolved.task_timeout) != (workers, *limits):
        timeout, task_timeout = limits
        resolved = resolved._replace(workers=workers, timeout=timeout, task_timeout=task_timeout)
    return Options(
        resolved, _error_types(retry_on), check_switch("return_exceptions", return_exceptions)
    )


def _or_none(seconds: float | None) -> float | None:
    """Return *seconds*, or `None` for no limit."""
    return None if seconds is None or math.isinf(seconds) else seconds


def _error_types(value: Any) -> ErrorTypes:
    types: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
    if all(isinstance(one, type) and issubclass(one, BaseException) for one in types):
        return types
    raise ConfigurationError(
        f"retry_on={value!r} is not valid; expected an exception class or a tuple of them"
    )


def check_callable(func: object, name: str = "func") -> Callable[..., Any]:
    """Return *func*, the argument *name*; raise `TypeError` if it cannot be called."""
    if not callable(func):
        raise TypeError(f"{name} must be callable, got {func!r} of type {type(func).__qualname__}")
    flags = _code_flags(func)
    for flag, (kind, advice) in NOT_RUN_BY_CALLING.items():
        if flags & flag:
            raise TypeError(
                f"{name} must be a plain function, got the {kind} "
                f"{getattr(func, '__qualname__', func)}; {advice}"
            )
    return func


NOT_RUN_BY_CALLING: Final = {
    inspect.CO_COROUTINE: (
        "async function",
        "run it to its end in a function: lambda x: asyncio.run(f(x))",
    ),
    inspect.CO_ASYNC_GENERATOR: (
        "async generator function",
        "collect what it yields in a function that runs it with asyncio.run",
    ),
    inspect.CO_GENERATOR: (
        "generator function",
        "collect what it yields in a function: lambda x: list(f(x))",
    ),
}
"""Kinds of functions that do nothing when they are called, by the flag of their code."""


def _code_flags(func: Any) -> int:
    while type(func) is functools.partial:
        func = func.func
    if type(func) not in {types.FunctionType, types.MethodType}:
        func = getattr(type(func), "__call__", None)  # noqa: B004 - the function itself is wanted
    code = getattr(getattr(func, "__func__", func), "__code__", None)
    return int(getattr(code, "co_flags", 0))


def check_iterables(iterables: tuple[object, ...]) -> None:
    """Raise `TypeError` if there are no iterables, or one is not iterable; name its position."""
    if not iterables:
        raise TypeError("expected at least one iterable after func")
    for place, iterable in enumerate(iterables, start=1):
        check_iterable(iterable, f"iterable {place}")


def check_iterable(value: object, name: str) -> None:
    """Raise `TypeError` if *value*, the argument called *name*, cannot be iterated."""
    if not hasattr(type(value), "__iter__") and not hasattr(type(value), "__getitem__"):
        raise TypeError(
            f"{name} is {value!r} of type {type(value).__qualname__}, which cannot be iterated"
        )


def check_switch(name: str, value: object) -> bool:
    """Return *value* of the argument *name*, `True` or `False`."""
    if isinstance(value, bool):
        return value
    raise ConfigurationError(f"{name}={value!r} is not valid; expected True or False")


def check_positive(name: str, value: Any) -> int | None:
    """Return *value* of the argument *name*, a number of at least 1 or `None`."""
    if value is None:
        return None
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        number = operator.index(value)
        if number >= 1:
            return number
    raise ConfigurationError(
        f"{name}={value!r} is not valid; expected a whole number of at least 1"
    )
