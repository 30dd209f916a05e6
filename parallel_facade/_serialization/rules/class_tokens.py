"""Tokens for classes: they say which class here is which class on the other side.

A class that travels by value gets a token. The side that rebuilds the class remembers the token.
An instance that is sent back names the token, and arrives as an instance of the original class.

    caller:  Point ──token 7──► worker: a copy of Point, known as token 7
    caller:  Point ◄──token 7── worker: an instance of token 7

Guarantees:
    - `class_for(token_for(cls)) is cls` on the side that owns *cls*, as long as *cls* lives.
    - A token does not keep its class alive.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final

from parallel_facade._serialization.modules.state import worker

_lock = threading.RLock()  # guards the two tables; reentrant: garbage collection may run forget
_tokens: dict[int, tuple[weakref.ref[type], str]] = {}
_classes: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()
_TOKEN_BYTES: Final = 12


def token_for(cls: type) -> str:
    """Return the token of *cls*; make one on first use."""
    with _lock:
        known = known_token(cls)
        return known if known is not None else remember(cls, os.urandom(_TOKEN_BYTES).hex())


def known_token(cls: type) -> str | None:
    """Return the token of *cls* if it has one."""
    # By identity: a metaclass may define __eq__ and __hash__, which must not run here.
    entry = _tokens.get(id(cls))
    return entry[1] if entry is not None and entry[0]() is cls else None


def remember(cls: type, token: str) -> str:
    """Register *token* as the token of *cls* on this side."""
    key = id(cls)

    def forget(reference: weakref.ref[type]) -> None:
        with _lock:
            # The id may already belong to a new class, with an entry of its own.
            if (entry := _tokens.get(key)) is not None and entry[0] is reference:
                del _tokens[key]
                if _classes.get(entry[1]) is None:  # not made again meanwhile, by another thread
                    worker.forget_class(entry[1])

    with _lock:
        _tokens[key] = weakref.ref(cls, forget), token
        _classes[token] = cls
    return token


def class_for(token: str) -> type | None:
    """Return the class known here as *token*, if it still exists."""
    return _classes.get(token)


def _reset_lock_after_fork() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    # Another thread may hold the lock during a fork; in the child, nothing releases it.
    os.register_at_fork(after_in_child=_reset_lock_after_fork)
