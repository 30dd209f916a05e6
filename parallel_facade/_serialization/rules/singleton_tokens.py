"""Tokens for objects compared by identity: which object here is which on the other side.

Guarantees:
    - Each side has one object per token; the side that made an object gets the same object back.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

MOST_KNOWN: Final = 20_000
"""Objects that are remembered. Programs have few sentinels; one that makes a sentinel for each call
must not make its workers grow. The one that was not used for longest is forgotten;
if it comes again, it is a new object."""

_known: OrderedDict[str, Any] = OrderedDict()  # token → object, on either side
_tokens: dict[int, str] = {}  # id of an object in _known → its token
_received: set[str] = set()  # tokens of objects that the other side made


def token_for(obj: Any) -> str:
    """Return the token of *obj*; make one on first use."""
    if (token := _tokens.get(id(obj))) is None:
        return remember(obj, os.urandom(12).hex())
    _note_use(token)
    return token


def token_of_received(obj: Any) -> str:
    """Return the token of *obj* if the other side made *obj*; else an empty string."""
    token = _tokens.get(id(obj), "")
    return token if token in _received and _known[token] is obj else ""


def object_for(token: str) -> Any:
    """Return the object known as *token*, or `None`."""
    _note_use(token)
    return _known.get(token)


def object_or_new(token: str, make: Callable[[], Any]) -> Any:
    """Return the object known as *token*; if it is new here, make it with *make*."""
    if token not in _known:
        receive(make(), token)
    _note_use(token)
    return _known[token]


def receive(obj: Any, token: str) -> None:
    """Register *token* as the token of *obj*, a copy of the other side's object."""
    remember(obj, token)
    _received.add(token)


def remember(obj: Any, token: str) -> str:
    """Register *token* as the token of *obj* on this side."""
    _known[token] = obj
    _tokens[id(obj)] = token
    if len(_known) > MOST_KNOWN:
        old, forgotten = _known.popitem(last=False)
        _tokens.pop(id(forgotten), None)
        _received.discard(old)
    return token


def _note_use(token: str) -> None:
    with suppress(KeyError):  # it is not known, or another thread has just made it forgotten
        _known.move_to_end(token)
