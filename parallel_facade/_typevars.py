"""Type variables and new types by value: pickle only knows their names.

Guarantees:
    - One that comes back is the caller's own object, since generic classes compare by identity.
"""

from __future__ import annotations

import secrets
import sys
from typing import Any, NewType, TypeVar

from parallel_facade._importable import is_importable_name

_known: dict[str, Any] = {}  # token → object, on either side; they are few and small
_tokens: dict[int, str] = {}  # id of an object in _known → its token


def reduce_typevar(obj: Any) -> Any:
    """Return how to rebuild a `TypeVar` or `NewType`; `NotImplemented` if its name is enough."""
    module = str(obj.__module__)
    if is_importable_name(module) and getattr(sys.modules[module], obj.__name__, None) is obj:
        return NotImplemented
    if isinstance(obj, TypeVar):
        variance = {"covariant": obj.__covariant__, "contravariant": obj.__contravariant__}
        parts = (*obj.__constraints__,), {"bound": obj.__bound__, **variance}
    else:
        parts = (obj.__supertype__,), {}
    return typevar_by_token, (_token_for(obj), type(obj), obj.__name__, module, *parts)


def typevar_by_token(  # noqa: PLR0917 - pickle passes arguments by position
    token: str, kind: Any, name: str, module: str, args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Return the object known as *token*, made if it is new here."""
    if (known := _known.get(token)) is not None:
        return known
    made = kind(name, *args, **options)
    made.__module__ = module
    _remember(made, token)
    return made


def _token_for(obj: Any) -> str:
    return _tokens.get(id(obj)) or _remember(obj, secrets.token_hex(12))


def _remember(obj: Any, token: str) -> str:
    _known[token] = obj
    _tokens[id(obj)] = token
    return token


KINDS = (TypeVar, NewType)
