"""Objects compared by identity: sentinels, type variables, context variables.

A copy would break code that compares them with `is`. So an object that a worker can import travels
by name. Any other gets a token, and both sides keep one object per token.

    caller:  MISSING ──token 3──► worker: a stand-in, known as token 3
    caller:  MISSING ◄──token 3── worker: the stand-in

Guarantees:
    - An object of the caller that comes back is the same object.
"""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar
from typing import Any, Final, NewType, ParamSpec, TypeVar, TypeVarTuple

from parallel_facade._serialization.modules.importable import is_importable_name
from parallel_facade._serialization.rules.singleton_tokens import (
    object_for,
    object_or_new,
    token_for,
    token_of_received,
)
from parallel_facade._serialization.rules.type_parameters import (
    HAS_SYNTAX,
    STARS,
    TypeAliasType,
    parameter_at,
    places_of_parameters,
    reduce_alias,
    reduce_new_type,
    reduce_parameter,
)

_UNSET: Final = ("",)  # means: a context variable has no value, or no default

Sentinel: Any = getattr(builtins, "sentinel", None)
"""The built-in `sentinel` of Python 3.15; `None` before."""

SINGLETON_TYPES: Final = tuple(
    kind
    for kind in (
        *(TypeVar, NewType, ParamSpec, TypeVarTuple, TypeAliasType),
        *(Sentinel, ContextVar, object),
    )
    if kind is not None
)
"""Types of these objects. An object of another type is one if its `__reduce__` returns a name."""


class Names:
    """Where modules hold objects of `SINGLETON_TYPES`, as found at the first lookup."""

    def __init__(self) -> None:
        self._index: dict[int, tuple[str, str]] | None = None
        self._parameters: dict[int, tuple[str, str, int]] | None = None
        self.bare: set[int] = set()  # type parameters whose parts are sent separately

    def reduce(self, obj: Any) -> tuple[Any, ...]:
        """Return how to find or rebuild *obj*."""
        if self._index is None:
            self._index = {id(found): place for place, found in _globals_of_modules()}
        place = self._index.get(id(obj))
        if place is not None and is_importable_name(place[0]):
            return _with_value(obj, (object_in, place))
        if type(obj) is object and place is None:
            # Without a name: nothing outside this payload can be compared with it.
            return object, ()
        if HAS_SYNTAX and type(obj) in STARS and (known := self._place_of_parameter(obj)):
            return parameter_at, known
        recipe = _RECIPES[type(obj)](obj)
        return recipe[:2] if id(obj) in self.bare else recipe

    def _place_of_parameter(self, parameter: Any) -> tuple[str, str, int] | None:
        if self._parameters is None:
            self._parameters = places_of_parameters()
        return self._parameters.get(id(parameter))


def _globals_of_modules() -> Iterator[tuple[tuple[str, str], Any]]:
    kinds = set(SINGLETON_TYPES)
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
    """Return how to find or rebuild *obj*, whose `__reduce__` returns the global *name*.

    The side that made the object has it. The receiver may never have seen it.
    """
    module = str(getattr(obj, "__module__", "__main__"))
    if is_importable_name(module):
        return name
    if returning and (token := token_of_received(obj)):
        return by_token, (token, name)
    state = {
        **{slot: getattr(obj, slot) for slot in _slots_of(type(obj)) if hasattr(obj, slot)},
        **getattr(obj, "__dict__", {}),
    }
    return singleton, (token_for(obj), type(obj)), state, None, None, fill_singleton


def _slots_of(cls: type) -> Iterator[str]:
    for one in cls.__mro__:
        slots = one.__dict__.get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def singleton(token: str, cls: Any) -> Any:
    """Return the object known as *token*; if it is new here, make it without contents."""
    return object_or_new(token, lambda: object.__new__(cls))


def fill_singleton(obj: Any, state: dict[str, Any]) -> None:
    """Give *obj* its attributes."""
    for name, value in state.items():
        object.__setattr__(obj, name, value)


def by_token(token: str, name: str) -> Any:
    """Return the object known as *token*."""
    if (found := object_for(token)) is None:
        raise LookupError(f"the object {name} no longer exists here")
    return found


def plain_object(token: str) -> object:
    """Return the sentinel known as *token*."""
    return object_or_new(token, object)


def _reduce_sentinel(obj: Any) -> tuple[Any, ...]:
    return sentinel_object, (token_for(obj), obj.__name__, obj.__module__)


def sentinel_object(token: str, name: str, module: str) -> Any:
    """Return the sentinel known as *token*; make it if it is new here."""

    def make() -> Any:
        # A sentinel takes the module of the code that makes it, and does not let it be set.
        space = {"__name__": module}
        exec(f"made = sentinel({name!r})", space)
        return space["made"]

    return object_or_new(token, make)


def _reduce_context_variable(variable: ContextVar[Any]) -> tuple[Any, ...]:
    try:
        default = Context().run(variable.get)
    except LookupError:
        default = _UNSET
    return _with_value(variable, (context_variable, (token_for(variable), variable.name, default)))


def _with_value(obj: Any, made: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return *made* with the value that *obj* has in this context, if it is a context variable."""
    if type(obj) is not ContextVar or (value := obj.get(_UNSET)) is _UNSET:
        return made
    return (*made, (value,), None, None, set_value)


def set_value(variable: ContextVar[Any], state: tuple[Any]) -> None:
    """Set *variable* for the running call."""
    variable.set(*state)


def context_variable(token: str, name: str, default: Any) -> Any:
    """Return the context variable known as *token*; make it if it is new here."""
    return object_or_new(
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


_RECIPES: Final[dict[Any, Callable[[Any], tuple[Any, ...]]]] = {
    TypeVar: reduce_parameter,
    ParamSpec: reduce_parameter,
    TypeVarTuple: reduce_parameter,
    NewType: reduce_new_type,
    TypeAliasType: reduce_alias,
    ContextVar: _reduce_context_variable,
    Sentinel: _reduce_sentinel,
    object: lambda obj: (plain_object, (token_for(obj),)),
}
