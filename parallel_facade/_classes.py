"""Classes by value: a skeleton that everything may point to, then its attributes.

    (define_class, (token, scope, metaclass, bases, body), (scope, attributes), fill_class)

Guarantees:
    - A worker makes one class per token; a later call brings its attributes up to date in place.
    - The side that owns a class never has it changed by what comes back.
"""

from __future__ import annotations

import enum
import types
from typing import Any, Final

from parallel_facade._errors import SerializationError
from parallel_facade._identity import class_for, known_token, remember, token_for
from parallel_facade._methods import mangle

NOT_CARRIED: Final = frozenset({"__dict__", "__weakref__", "_abc_impl", "__slots__"})
"""Made anew by the interpreter for each class, or given to the skeleton."""

ENUM_MACHINERY: Final = frozenset(
    {
        "_member_names_",
        "_member_map_",
        "_value2member_map_",
        "_hashable_values_",
        "_unhashable_values_",
        "_unhashable_values_map_",
        "_member_type_",
        "_value_repr_",
        "_new_member_",
        "_use_args_",
        "_flag_mask_",
        "_singles_mask_",
        "_all_bits_",
        "_inverted_",
        "__new__",
        "__new_member__",
    }
)
"""What `enum.EnumType` derives from the members."""

_received: dict[
    str, tuple[str, frozenset[str]]
] = {}  # token → scope of its attributes, their names


def reduce_class(cls: type, scope: str) -> tuple[Any, ...]:
    """Return how to rebuild *cls* in the call *scope*."""
    body, attributes = _split_enum(cls) if isinstance(cls, enum.EnumType) else _split_plain(cls)
    body |= {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    make = (token_for(cls), cls.__name__, type(cls), cls.__bases__, body)
    return define_class, make, (scope, attributes), None, None, fill_class


def reduce_to_token(cls: type) -> tuple[Any, ...]:
    """Return how to find *cls* on a side that knows it already."""
    return class_by_token, (token_for(cls), cls.__qualname__)


def came_from_caller(cls: type) -> bool:
    """Return whether the other side of this process's channel owns *cls*."""
    return known_token(cls) in _received


def define_class(
    token: str, name: str, metaclass: type, bases: tuple[type, ...], body: dict[str, Any]
) -> type:
    """Return the class known as *token*, made without its attributes if it is new here."""
    if (known := class_for(token)) is not None:
        return known
    cls = (
        _new_enum(metaclass, name, bases, body)
        if issubclass(metaclass, enum.EnumType)
        else types.new_class(
            name, bases, {"metaclass": metaclass}, lambda space: space.update(body)
        )
    )
    remember(cls, token)
    _received[token] = ("", frozenset())
    return cls


def fill_class(cls: type, state: tuple[str, dict[str, Any]]) -> None:
    """Make the attributes of *cls* those of the call, unless they are already, or *cls* is ours."""
    scope, attributes = state
    token = known_token(cls)
    if token is None or token not in _received or _received[token][0] == scope:
        return
    _, before = _received[token]
    _received[token] = scope, frozenset(attributes)
    # type's own methods: a metaclass may refuse or log assignments that the user never made.
    for name in before - set(attributes):
        if name in cls.__dict__:
            type.__delattr__(cls, name)
    for name, value in attributes.items():
        type.__setattr__(cls, name, value)


def class_by_token(token: str, qualname: str) -> type:
    """Return the class known as *token*."""
    if (cls := class_for(token)) is None:
        raise SerializationError(
            f"the class {qualname} that this object belongs to no longer exists here",
            path=qualname,
        )
    return cls


def _split_plain(cls: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the skeleton of *cls* needs at once, and its other attributes."""
    body: dict[str, Any] = {}
    dropped = set(NOT_CARRIED)
    if (slots := cls.__dict__.get("__slots__")) is not None:
        names = (slots,) if isinstance(slots, str) else tuple(slots)
        body["__slots__"] = slots if isinstance(slots, str | dict) else names
        dropped.update(mangle(name, cls) for name in names)
    return body, {key: value for key, value in cls.__dict__.items() if key not in dropped}


def _split_enum(cls: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    members = {name: member.value for name, member in cls.__members__.items()}
    dropped = NOT_CARRIED | ENUM_MACHINERY | members.keys()
    attributes = {key: value for key, value in cls.__dict__.items() if key not in dropped}
    return {"members": members}, attributes


def _new_enum(metaclass: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    space = metaclass.__prepare__(name, bases)
    members = body.pop("members")
    for key, value in {**body, **members}.items():
        space[key] = value
    cls: type = metaclass.__new__(metaclass, name, bases, space)
    return cls
