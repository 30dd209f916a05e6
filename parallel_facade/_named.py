"""Objects that are themselves and nothing else: sentinels, type variables, context variables.

To copy them would break what compares them with `is`. So one that a worker can import goes by its
name; any other gets a token, and both sides keep one object per token.

    caller:  MISSING ──token 3──► worker: a stand-in, known as token 3
    caller:  MISSING ◄──token 3── worker: the stand-in

Guarantees:
    - One that comes back is the caller's own object.
"""

from __future__ import annotations

import os
import sys
import types
import typing
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar
from typing import Any, Final, NewType, ParamSpec, TypeVar, TypeVarTuple

from parallel_facade._importable import is_importable_name

_known: dict[str, Any] = {}  # token → object, on either side; they are few and small
_tokens: dict[int, str] = {}  # id of an object in _known → its token
_received: set[str] = set()  # tokens of objects that the other side has made
_UNSET: Final = ("",)  # a context variable has no value, or no default

TypeAliasType: Any = getattr(typing, "TypeAliasType", None)
KINDS: Final = tuple(
    kind
    for kind in (TypeVar, NewType, ParamSpec, TypeVarTuple, TypeAliasType, ContextVar, object)
    if kind is not None
)
"""Types of such objects; what else is one says so with a `__reduce__` that returns a name."""


class Names:
    """Where the modules have the objects of `KINDS`, as it is at the first question."""

    def __init__(self) -> None:
        self._index: dict[int, tuple[str, str]] | None = None

    def reduce(self, obj: Any) -> tuple[Any, ...]:
        """Return how to find or rebuild *obj*."""
        if self._index is None:
            self._index = {id(found): place for place, found in _globals_of_modules()}
        place = self._index.get(id(obj))
        if place is not None and is_importable_name(place[0]):
            return _with_value(obj, (object_in, place))
        if type(obj) is object and place is None:
            # Of no name: nothing outside of this payload can be compared with it.
            return object, ()
        return _RECIPES[type(obj)](obj)


def _globals_of_modules() -> Iterator[tuple[tuple[str, str], Any]]:
    kinds = set(KINDS)
    for module_name, module in list(sys.modules.items()):
        if type(module) is types.ModuleType:
            for name, value in list(vars(module).items()):
                if type(value) in kinds:
                    yield (module_name, name), value


def object_in(module: str, name: str) -> Any:
    """Return the global *name* of *module*."""
    __import__(module)
    return getattr(sys.modules[module], name)


def reduce_singleton(obj: Any, name: str, *, returning: bool) -> Any:
    """Return how to find or rebuild *obj*, whose `__reduce__` calls it by a global *name*.

    Its maker has it. Whoever it is sent to may be a worker that has not got it yet.
    """
    module = str(getattr(obj, "__module__", "__main__"))
    if is_importable_name(module):
        return name
    token = _tokens.get(id(obj))
    if returning and token in _received and _known[token] is obj:
        return by_token, (token, name)
    state = {
        **{slot: getattr(obj, slot) for slot in _slots_of(type(obj)) if hasattr(obj, slot)},
        **getattr(obj, "__dict__", {}),
    }
    return singleton, (_token_for(obj), type(obj)), state, None, None, fill_singleton


def _slots_of(cls: type) -> Iterator[str]:
    for one in cls.__mro__:
        slots = one.__dict__.get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def singleton(token: str, cls: Any) -> Any:
    """Return the object known as *token*, made without contents if it is new here."""
    return _known_or(token, lambda: object.__new__(cls))


def fill_singleton(obj: Any, state: dict[str, Any]) -> None:
    """Give *obj* its attributes."""
    for name, value in state.items():
        object.__setattr__(obj, name, value)


def by_token(token: str, name: str) -> Any:
    """Return the object known as *token*."""
    if token not in _known:
        raise LookupError(f"the object {name} no longer exists here")
    return _known[token]


def plain_object(token: str) -> object:
    """Return the sentinel known as *token*."""
    return _known_or(token, object)


def _reduce_typevar(obj: Any) -> tuple[Any, ...]:
    options = {"covariant": obj.__covariant__, "contravariant": obj.__contravariant__}
    if getattr(obj, "__infer_variance__", False):
        options = {"infer_variance": True}
    args = getattr(obj, "__constraints__", ())
    return _reduce_typing(obj, args, {"bound": obj.__bound__, **options})


def _reduce_alias(obj: Any) -> tuple[Any, ...]:
    return _reduce_typing(obj, (obj.__value__,), {"type_params": obj.__type_params__})


def _reduce_typing(obj: Any, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
    module = str(getattr(obj, "__module__", "__main__"))
    return typing_object, (_token_for(obj), type(obj), obj.__name__, module, args, options)


def typing_object(  # noqa: PLR0917 - pickle passes arguments by position
    token: str, kind: Any, name: str, module: str, args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Return the type variable or new type known as *token*, made if it is new here."""

    def make() -> Any:
        made = kind(name, *args, **options)
        if kind is not TypeAliasType:
            made.__module__ = module
        return made

    return _known_or(token, make)


def _reduce_context_variable(variable: ContextVar[Any]) -> tuple[Any, ...]:
    try:
        default = Context().run(variable.get)
    except LookupError:
        default = _UNSET
    return _with_value(variable, (context_variable, (_token_for(variable), variable.name, default)))


def _with_value(obj: Any, made: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return *made* with the value that *obj* has in this context, if it is a context variable."""
    if type(obj) is not ContextVar or (value := obj.get(_UNSET)) is _UNSET:
        return made
    return (*made, (value,), None, None, set_value)


def set_value(variable: ContextVar[Any], state: tuple[Any]) -> None:
    """Set *variable* for the call that runs."""
    variable.set(*state)


def context_variable(token: str, name: str, default: Any) -> Any:
    """Return the context variable known as *token*, made if it is new here."""
    return _known_or(
        token,
        lambda: ContextVar(name) if default == _UNSET else ContextVar(name, default=default),
    )


def reduce_context(context: Context) -> tuple[Any, ...]:
    """Return how to rebuild *context*, with its values."""
    return new_context, (list(context.items()),)


def new_context(values: list[tuple[ContextVar[Any], Any]]) -> Context:
    """Return a context with *values*."""
    context = Context()
    for variable, value in values:
        context.run(variable.set, value)
    return context


def _known_or(token: str, make: Callable[[], Any]) -> Any:
    if token not in _known:
        _remember(make(), token)
        _received.add(token)
    return _known[token]


def _token_for(obj: Any) -> str:
    return _tokens.get(id(obj)) or _remember(obj, os.urandom(12).hex())


def _remember(obj: Any, token: str) -> str:
    _known[token] = obj
    _tokens[id(obj)] = token
    return token


_RECIPES: Final[dict[Any, Callable[[Any], tuple[Any, ...]]]] = {
    TypeVar: _reduce_typevar,
    ParamSpec: _reduce_typevar,
    TypeVarTuple: lambda obj: _reduce_typing(obj, (), {}),
    NewType: lambda obj: _reduce_typing(obj, (obj.__supertype__,), {}),
    TypeAliasType: _reduce_alias,
    ContextVar: _reduce_context_variable,
    object: lambda obj: (plain_object, (_token_for(obj),)),
}
