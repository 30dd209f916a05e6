"""Which object here is which object there, for what is itself and nothing else.

Guarantees:
    - Both sides have one object for a token, and the side that made it gets its own back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

_known: dict[str, Any] = {}  # token → object, on either side; they are few and small
_tokens: dict[int, str] = {}  # id of an object in _known → its token
_received: set[str] = set()  # tokens of objects that the other side has made


def token_for(obj: Any) -> str:
    """Return the token of *obj*, making one on first use."""
    return _tokens.get(id(obj)) or remember(obj, os.urandom(12).hex())


def token_of_received(obj: Any) -> str:
    """Return the token of *obj* if the other side has made it; else nothing."""
    token = _tokens.get(id(obj), "")
    return token if token in _received and _known[token] is obj else ""


def known_as(token: str) -> Any:
    """Return the object known as *token*, or `None`."""
    return _known.get(token)


def known_or(token: str, make: Callable[[], Any]) -> Any:
    """Return the object known as *token*, which *make* returns if it is new here."""
    if token not in _known:
        receive(make(), token)
    return _known[token]


def receive(obj: Any, token: str) -> None:
    """Make *token* the name of *obj*, a copy of what the other side has."""
    remember(obj, token)
    _received.add(token)


def remember(obj: Any, token: str) -> str:
    """Make *token* the name of *obj* on this side."""
    _known[token] = obj
    _tokens[id(obj)] = token
    return token
