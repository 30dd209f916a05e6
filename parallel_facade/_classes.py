"""Classes by value: a skeleton that everything may point to, then its attributes.

    skeletons of the class and of what it is made from
        → their methods, without contents → the contents, special methods first → their data

Guarantees:
    - A worker makes one class per token; a later call brings its attributes up to date in place.
    - The side that owns a class never has it changed by what comes back.
"""

from __future__ import annotations

import abc
import enum
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypedDict

from parallel_facade._errors import SerializationError
from parallel_facade._functions import fill_function, function_state
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


class _Example(TypedDict):
    """A typed dictionary, for its metaclass."""


TYPED_DICT: Final[type] = type(_Example)
"""The metaclass of typed dictionaries."""

MEMBER_MACHINERY: Final = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})
"""What `enum.EnumType` gives each member."""

MAKING: Final = frozenset({"__orig_bases__"})
"""Looked at by the hooks of `typing` while a class is made."""

EARLY_TYPES: Final = frozenset(
    {types.FunctionType, classmethod, staticmethod, property, bool, int, float, str, bytes}
)

_pinned: dict[str, dict[str, Any]] = {}  # token → attributes that the initializer set
_received: dict[
    str, tuple[str, frozenset[str]]
] = {}  # token → scope of its attributes, their names


class Step:
    """A step of rebuilding: a call that is made when its turn in the payload comes."""

    def __init__(self, function: Callable[..., object], *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the call itself."""
        return self._call


def reduce_shell(cls: type) -> tuple[Any, ...]:
    """Return how to make *cls* without its attributes, which `reduce_family` sends elsewhere."""
    body = _split(cls)[0] | {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return define_class, (token_for(cls), cls.__name__, type(cls), cls.__bases__, body)


def reduce_family(
    cls: type, family: list[type], functions: list[types.FunctionType], scope: str
) -> tuple[Any, ...]:
    """Return how to rebuild *cls* together with the classes that it is made from.

    Args:
        cls: The class.
        family: Its bases and metaclass that have not been sent, and *cls* itself, at the end.
        functions: Those of all their methods; the pickler makes them without contents at first.
        scope: The call.
    """
    split = [(member, *_split(member)[1:]) for member in family]
    ordered = sorted(functions, key=lambda function: not function.__name__.startswith("__"))
    steps = (
        [Step(put_methods, member, scope, methods) for member, methods, _ in split],
        # First those by which instances are made and compared: the contents of the others may
        # hold instances.
        [Step(fill_function, function, function_state(function)) for function in ordered],
        [Step(put_data, member, scope, data, tuple(methods)) for member, methods, data in split],
        [Step(register_virtual, member, known) for member in family if (known := _virtual(member))],
        [Step(put_member_state, member, state) for member in family if (state := _states(member))],
    )
    return (*reduce_shell(cls), steps, None, None, _rebuilt)


def methods_of(cls: type) -> list[types.FunctionType]:
    """Return the functions in the body of *cls*, out of properties, class and static methods."""
    found = []
    for attribute in _split(cls)[1].values():
        parts = (
            (attribute.fget, attribute.fset, attribute.fdel)
            if isinstance(attribute, property)
            else (getattr(attribute, "__func__", attribute),)
        )
        found += [part for part in parts if type(part) is types.FunctionType]
    return found


def _rebuilt(cls: type, steps: object) -> None:
    """Do nothing: the steps were made while they were read."""


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
        else _new_plain(metaclass, name, bases, body)
    )
    remember(cls, token)
    _received[token] = ("", frozenset())
    return cls


def put_methods(cls: type, scope: str, methods: dict[str, Any]) -> None:
    """Give *cls* its methods, which may still be without contents."""
    if _is_due(cls, scope):
        _put(cls, methods)


def put_data(cls: type, scope: str, data: dict[str, Any], methods: tuple[str, ...]) -> None:
    """Give *cls* its other attributes, and take away those that it no longer has."""
    if not _is_due(cls, scope):
        return
    token = str(known_token(cls))
    names = frozenset(data).union(methods)
    for name in _received[token][1] - names - _pinned.get(token, {}).keys():
        if name in cls.__dict__:
            type.__delattr__(cls, name)
    _put(cls, data)
    _received[token] = scope, names


def register_virtual(cls: Any, subclasses: list[type]) -> None:
    """Make *subclasses* virtual subclasses of *cls*, as they are at the caller's."""
    for subclass in subclasses:
        abc.ABCMeta.register(cls, subclass)


def put_member_state(cls: Any, states: dict[str, dict[str, Any]]) -> None:
    """Give the members of the enum *cls* the attributes that its `__init__` gave them."""
    if came_from_caller(cls):
        for name, state in states.items():
            vars(cls.__members__[name]).update(state)


@contextmanager
def pinning_attributes(scope: str) -> Iterator[None]:
    """Keep for the worker's life the class attributes that change inside the block."""
    tokens = [token for token, (filled, _) in _received.items() if filled == scope]
    watched = [(token, cls) for token in tokens if (cls := class_for(token)) is not None]
    before = [dict(cls.__dict__) for _, cls in watched]
    yield
    for (token, cls), known in zip(watched, before, strict=True):
        _pinned.setdefault(token, {}).update(
            (name, value)
            for name, value in cls.__dict__.items()
            if name not in known or known[name] is not value
        )


def _is_due(cls: type, scope: str) -> bool:
    """Return whether *cls* is a copy of the caller's class that this call has not filled."""
    token = known_token(cls)
    return token is not None and token in _received and _received[token][0] != scope


def _put(cls: type, attributes: dict[str, Any]) -> None:
    pinned = _pinned.get(str(known_token(cls)), {})
    # type's own method: a metaclass may refuse or log assignments that the user never made.
    for name, value in attributes.items():
        if name not in pinned:
            type.__setattr__(cls, name, value)


def class_by_token(token: str, qualname: str) -> type:
    """Return the class known as *token*."""
    if (cls := class_for(token)) is None:
        raise SerializationError(
            f"the class {qualname} that this object belongs to no longer exists here",
            path=qualname,
        )
    return cls


def _split(cls: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the attributes of *cls* in three parts: for its making, its methods, its data."""
    body, others = _split_enum(cls) if isinstance(cls, enum.EnumType) else _split_plain(cls)
    methods = {name: value for name, value in others.items() if _comes_early(value)}
    return body, methods, {name: value for name, value in others.items() if name not in methods}


def _comes_early(value: Any) -> bool:
    """Return whether instances may need *value* to be there when they are rebuilt."""
    return value is None or type(value) in EARLY_TYPES


def _split_plain(cls: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the making of *cls* needs, and its other attributes."""
    body = {name: cls.__dict__[name] for name in MAKING if name in cls.__dict__}
    dropped = NOT_CARRIED | MAKING
    if (slots := cls.__dict__.get("__slots__")) is not None:
        names = (slots,) if isinstance(slots, str) else tuple(slots)
        body["__slots__"] = slots if isinstance(slots, str | dict) else names
        dropped |= {mangle(name, cls) for name in names}
    return body, {key: value for key, value in cls.__dict__.items() if key not in dropped}


def _split_enum(cls: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    members = {name: member.value for name, member in cls.__members__.items()}
    dropped = NOT_CARRIED | ENUM_MACHINERY | members.keys()
    attributes = {key: value for key, value in cls.__dict__.items() if key not in dropped}
    return {"members": members}, attributes


def _virtual(cls: type) -> list[type]:
    """Return the classes that were registered as virtual subclasses of *cls*."""
    if not isinstance(cls, abc.ABCMeta):
        return []
    registry, *_ = abc._get_dump(cls)  # type: ignore[attr-defined]  # pyright: ignore
    return [found for reference in registry if (found := reference()) is not None]


def _states(cls: Any) -> dict[str, dict[str, Any]]:
    """Return the attributes of the members of *cls*, if it is an enum, beside what enum makes."""
    if not isinstance(cls, enum.EnumType):
        return {}
    members: dict[str, Any] = dict(cls.__members__)
    states = {
        name: {key: value for key, value in vars(member).items() if key not in MEMBER_MACHINERY}
        for name, member in members.items()
    }
    return {name: state for name, state in states.items() if state}


def _new_plain(metaclass: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    # Not by a metaclass that travelled: it has no methods yet, and its work on the class was done
    # at the caller's. What that work left is among the attributes.
    maker = next(one for one in metaclass.__mro__ if known_token(one) not in _received)
    if maker is TYPED_DICT:
        maker = type  # it takes its own kind for bases only, which a finished class has no more
    with _without_hooks(bases):
        made: type = maker.__new__(metaclass, name, bases, body)
    return made


@contextmanager
def _without_hooks(bases: tuple[type, ...]) -> Iterator[None]:
    """Keep `__init_subclass__` of classes that travelled from running again, without keywords."""
    family = dict.fromkeys(one for base in bases for one in base.__mro__)
    hooks = [
        (one, one.__dict__["__init_subclass__"])
        for one in family
        if known_token(one) in _received and "__init_subclass__" in one.__dict__
    ]
    for one, _ in hooks:
        type.__delattr__(one, "__init_subclass__")
    try:
        yield
    finally:
        for one, hook in hooks:
            type.__setattr__(one, "__init_subclass__", hook)


def _new_enum(metaclass: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    space = metaclass.__prepare__(name, bases)
    members = body.pop("members")
    for key, value in {**body, **members}.items():
        space[key] = value
    cls: type = metaclass.__new__(metaclass, name, bases, space)
    return cls
