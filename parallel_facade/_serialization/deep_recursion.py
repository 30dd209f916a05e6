"""Pickle deeply nested data, which may have any number of levels.

    RecursionError in the C pickler ──► retry in Python, on a thread with a large stack

Assumes:
    - One level of Python recursion uses no more than a few kilobytes of stack.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

R = TypeVar("R")

LEVELS: Final = 50_000
"""The recursion limit. Lower: only shallower data can be sent. Higher: objects that recurse without
end use more memory before they are refused."""
STACK_BYTES: Final = 256 << 20
"""Stack for that many levels; the system allocates only the part that is used."""

_lock = threading.Lock()  # guards the stack size of new threads, _users and _usual_limit
_users = 0
_usual_limit = 0
_here = threading.local()


FEW_FRAMES: Final = 100
"""A traceback has at most this many frames if the C pickler recursed, because it adds no frames."""


def is_of_pickler(error: RecursionError) -> bool:
    """Return whether *error* comes from deep data, not from code that calls itself."""
    frames, tb = 0, error.__traceback__
    while tb is not None and frames <= FEW_FRAMES:
        frames, tb = frames + 1, tb.tb_next
    return frames <= FEW_FRAMES


def with_room(function: Callable[[], R]) -> R:
    """Run *function* with room for deep recursion; return its result or raise its error."""
    if getattr(_here, "has_room", False):
        return function()
    outcome: list[Any] = []

    def run() -> None:
        _here.has_room = True
        try:
            outcome.extend((True, function()))
        except BaseException as exc:
            outcome.extend((False, exc))

    thread = _start(run)
    try:
        thread.join()
    finally:
        _leave()
    succeeded, result = outcome
    if not succeeded:
        raise result
    value: R = result
    return value


def _start(run: Callable[[], None]) -> threading.Thread:
    global _users, _usual_limit
    context = contextvars.copy_context()
    with _lock:
        if _users == 0:
            _usual_limit = sys.getrecursionlimit()
        _users += 1
        stack = threading.stack_size(STACK_BYTES)
        try:
            sys.setrecursionlimit(max(_usual_limit, LEVELS))
            thread = threading.Thread(target=context.run, args=(run,), name="parallel_facade-deep")
            thread.start()
        finally:
            threading.stack_size(stack)
    return thread


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            sys.setrecursionlimit(_usual_limit)
