"""Threads of ours, and what is of one thread alone.

Where `sys.flags.thread_inherit_context` is set, as it is in free-threaded Pythons, a thread starts
with a copy of the context of the thread that starts it. There, too:

Guarantees:
    - A `ThreadVariable` has a value in the thread that set it and where a context was handed on in
      so many words (`asyncio.to_thread`, a task of asyncio), not in threads started meanwhile.
    - A thread of ours sees no context variables of whoever happened to start it, and keeps none.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextvars import Context, ContextVar, Token
from typing import Any, Final, Generic, TypeVar, cast

T = TypeVar("T")

INHERITS: Final = bool(getattr(sys.flags, "thread_inherit_context", False))
"""Whether a new thread starts with a copy of the context of the thread that starts it."""

_this_thread = threading.local()
_probe: ContextVar[object] = ContextVar("parallel_facade_probe")


class ThreadVariable(Generic[T]):
    """A context variable that new threads do not inherit.

    Args:
        name: For whoever looks at a context.
        default: The value where none was set.
    """

    def __init__(self, name: str, default: T) -> None:
        self._default = default
        self._set: ContextVar[tuple[object, T] | None] = ContextVar(name, default=None)

    def get(self) -> T:
        """Return the value in this context."""
        if (found := self._set.get()) is None:
            return self._default
        return self._default if INHERITS and _is_inherited(found[0]) else found[1]

    def set(self, value: T) -> Token[tuple[object, T] | None]:
        """Set the value in this context; return what `reset` takes."""
        return self._set.set((_key_of_this_thread() if INHERITS else None, value))

    def reset(self, token: Token[tuple[object, T] | None]) -> None:
        """Give the value of before back."""
        self._set.reset(token)


def _key_of_this_thread() -> object:
    # Not its number, which a later thread may have again.
    try:
        key: object = _this_thread.key
    except AttributeError:
        key = _this_thread.key = object()
    return key


def _is_inherited(key: object) -> bool:
    """Return whether what the thread with *key* set is here by inheritance alone."""
    if key is getattr(_this_thread, "key", None):
        return False
    own = getattr(threading.current_thread(), "_context", None)
    if not isinstance(own, Context):
        return False
    # A context that was handed on is entered inside the thread's own. What is set now is seen in
    # the thread's own one only if that is the current one.
    token = _probe.set(mark := object())
    try:
        return own.get(_probe) is mark
    finally:
        _probe.reset(token)


def new_thread(
    target: Callable[..., object], *args: Any, name: str, daemon: bool = True
) -> threading.Thread:
    """Return a thread of ours, not started.

    Args:
        target: What it runs.
        *args: What *target* is called with.
        name: Of its purpose; it follows ours.
        daemon: Whether the program may end while it runs.
    """
    options = {"context": Context()} if INHERITS else {}
    return cast("Callable[..., threading.Thread]", threading.Thread)(
        target=target, args=args, name=f"parallel_facade-{name}", daemon=daemon, **options
    )
