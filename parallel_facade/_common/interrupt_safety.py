"""Locks and futures that stay consistent if Ctrl-C comes at any moment.

`with` on a built-in lock either takes the lock or does not. `threading.Condition` is Python code:

    1. main thread  enters a condition: its `__enter__` takes the lock
    2. user         presses Ctrl-C; the interrupt is raised before `__enter__` returns
    3. any thread   waits for that lock forever

In a loop inside a `with` or `try`, CPython 3.12 and 3.13 treat some backward jumps as outside the
block:

    1. main thread  runs a loop with an `if` in it, holding a lock
    2. user         presses Ctrl-C; the interrupt is raised by a jump that counts as outside
    3. any thread   waits for that lock forever

So the package has no loop inside a `with` on a lock, nor in a `try` that has to clean up. Such a
loop has its own function, and only the call of that function is inside the block.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from types import CodeType, FrameType, MethodType
from typing import Any, Final, TypeVar

R = TypeVar("R")


class SafeCondition(threading.Condition):
    """A condition entered and left by the methods of its lock, which are not Python code."""

    _lock: Any
    __enter__ = property(lambda self: self._lock.__enter__)  # pyright: ignore[reportAssignmentType]
    __exit__ = property(lambda self: self._lock.__exit__)  # pyright: ignore[reportAssignmentType]


class SafeFuture(Future[R]):
    """A future whose lock is never left held by an interrupt.

    Assumes:
        - `concurrent.futures` guards a future with its `_condition`, and keeps its lists in
          `_waiters` and `_done_callbacks` (true from 3.8 to 3.14).
    """

    def __init__(self) -> None:
        # Without the base class's __init__: it makes a condition that would be replaced here. That
        # takes half of the time of making a future, and each small call needs two futures.
        vars(self).update(_NEW_FUTURE, _condition=SafeCondition(), _waiters=[], _done_callbacks=[])


_NEW_FUTURE: Final = vars(Future())


def raise_if_handlers(error: BaseException) -> None:
    """Raise the exception of a user's signal handler if it led to *error*, which was caught.

    A handler can raise between any two steps of the main thread, also while the user's objects are
    pickled or rebuilt. The exception is then not the fault of these objects.
    """
    if codes := _codes_of_handlers():
        for seen in _behind(error):
            if not codes.isdisjoint(_codes_in(seen)):
                raise seen


def came_from_handler(error: BaseException) -> bool:
    """Return whether a user's signal handler raised *error*."""
    return not _codes_of_handlers().isdisjoint(_codes_in(error))


def _codes_of_handlers() -> set[CodeType | None]:
    """Return the code objects of the signal handlers that may run in this thread."""
    if threading.current_thread() is not threading.main_thread():
        return set()
    return {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}


def _behind(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and the exceptions that led to it inside the ``try`` that caught it.

    An exception that the program was handling before the ``try`` is the context of all later ones.
    """
    handled = _frames_around(error)
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
        if seen is not None and seen.__traceback__ is not None:
            seen = None if seen.__traceback__.tb_frame in handled else seen


def _frames_around(error: BaseException) -> set[FrameType]:
    """Return the frames of the callers of the function that caught *error*."""
    traceback = error.__traceback__
    frame = None if traceback is None else traceback.tb_frame.f_back
    found = set()
    while frame is not None:
        found.add(frame)
        frame = frame.f_back
    return found


def _code_of(handler: Any) -> CodeType | None:
    """Return the code that runs first when *handler* is called; `None` if it is not Python code."""
    while isinstance(handler, functools.partial | MethodType):
        handler = handler.func if isinstance(handler, functools.partial) else handler.__func__
    if callable(handler) and not hasattr(handler, "__code__"):
        handler = type(handler).__call__
    code = getattr(handler, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _codes_in(error: BaseException) -> Iterator[CodeType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame.f_code
        traceback = traceback.tb_next
