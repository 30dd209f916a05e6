"""Threads of this library, and variables that belong to one thread.

If `sys.flags.thread_inherit_context` is set, as in free-threaded Pythons, a thread starts with a
copy of the context of the thread that starts it. The guarantees hold there also.

Guarantees:
    - A `ThreadVariable` has its value in the thread that set it, and where a context was passed on
      explicitly (`asyncio.to_thread`, an asyncio task), but not in threads started meanwhile.
    - A thread of this library sees no context variables of the thread that started it, and keeps
      none alive.
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
        name: Shown when a context is inspected.
        default: The value if none was set.
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
        """Set the value in this context; return a token for `reset`."""
        return self._set.set((_key_of_this_thread() if INHERITS else None, value))

    def reset(self, token: Token[tuple[object, T] | None]) -> None:
        """Restore the previous value."""
        self._set.reset(token)


def _key_of_this_thread() -> object:
    # Not the thread's ident, which a later thread may reuse.
    try:
        key: object = _this_thread.key
    except AttributeError:
        key = _this_thread.key = object()
    return key


def _is_inherited(key: object) -> bool:
    """Return whether a value set by the thread with *key* is here only by inheritance."""
    if key is getattr(_this_thread, "key", None):
        return False
    own = getattr(threading.current_thread(), "_context", None)
    if not isinstance(own, Context):
        return False
    # A context that was passed on explicitly is entered inside the thread's own context. The probe
    # is seen in the thread's own context only if that is the current context.
    token = _probe.set(mark := object())
    try:
        return own.get(_probe) is mark
    finally:
        _probe.reset(token)


def new_thread(
    target: Callable[..., object], *args: Any, name: str, daemon: bool = True
) -> threading.Thread:
    """Return a new thread of this library, not started.

    Args:
        target: The function that it runs.
        *args: The arguments for *target*.
        name: Its purpose; the thread's name is the library's name, then this.
        daemon: Whether the program may end while it runs.
    """
    options = {"context": Context()} if INHERITS else {}
    return cast("Callable[..., threading.Thread]", threading.Thread)(
        target=target, args=args, name=f"parallel_facade-{name}", daemon=daemon, **options
    )
