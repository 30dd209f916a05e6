"""Enums by value: the members as they are, without running the code that made them.

Guarantees:
    - A member travels by its name, whatever its value.
    - The `__new__` and `__init__` of the enum do not run again.
"""

from __future__ import annotations

import enum
import types
from typing import Any, Final

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
        "_flag_mask_",
        "_singles_mask_",
        "_all_bits_",
        "_inverted_",
        "__new__",
    }
)
"""Attributes that `enum.EnumType` derives from the members."""

MEMBER_MACHINERY: Final = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})
"""Attributes that `enum.EnumType` gives each member."""

NOT_CARRIED: Final = frozenset({"__dict__", "__weakref__", "_abc_impl", "__slots__"})
"""Attributes that the interpreter makes for each class, or that the skeleton receives."""

COPIES: Final[dict[type, Any]] = {
    int: int.__index__,
    float: float.__float__,
    complex: complex.__pos__,
    str: str.__str__,
    bytes: lambda member: bytes.__getitem__(member, slice(None)),
    tuple: lambda member: tuple.__getitem__(member, slice(None)),
}
"""Functions that return the number or text that a member also is, bypassing its own methods."""


def reduce_member(member: enum.Enum) -> tuple[Any, ...] | None:
    """Return how to find *member*; `None` for a combination of flags, which has no name."""
    cls: Any = type(member)
    name = member._name_
    return (member_of, (cls, name)) if cls._member_map_.get(name) is member else None


def member_of(cls: Any, name: str) -> Any:
    """Return the member *name* of the enum *cls*."""
    return cls._member_map_[name]


def split_enum(cls: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what creation of *cls* needs, and its other attributes."""
    members = [
        (name, _data_of(cls, member), member._value_) for name, member in cls._member_map_.items()
    ]
    body: dict[str, Any] = {"members": members}
    if isinstance(boundary := cls.__dict__.get("_boundary_"), enum.FlagBoundary):
        body["boundary"] = boundary
    dropped = NOT_CARRIED | ENUM_MACHINERY | cls._member_map_.keys()
    return body, {key: value for key, value in cls.__dict__.items() if key not in dropped}


def _data_of(cls: Any, member: Any) -> tuple[Any, ...]:
    """Return the arguments from which the data type of *cls* makes the data of *member*."""
    for kind in cls._member_type_.__mro__:
        if (copy := COPIES.get(kind)) is not None:
            return (copy(member),)
        if kind is not object and isinstance(kind.__dict__.get("__reduce__"), MethodDescriptor):
            return tuple(kind.__dict__["__reduce__"](member)[1])
    return ()


MethodDescriptor: Final = types.MethodDescriptorType


def new_enum(metaclass: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    """Return an enum with its members, but without its other attributes."""
    members = body.pop("members")
    boundary = body.pop("boundary", None)
    pending = iter(members)

    def make(cls: Any, *_: Any) -> Any:
        _, data, value = next(pending)
        member = _maker_of(cls).__new__(cls, *data)
        member._value_ = value
        return member

    space = metaclass.__prepare__(name, bases)
    plain = {**body, "__new__": make, "__init__": _leave_alone}
    for key, value in plain.items():
        space[key] = value
    for member_name, _, value in members:
        space[member_name] = enum.member(value)
    options = {} if boundary is None else {"boundary": boundary}
    maker = next(one for one in metaclass.__mro__ if one.__module__ == "enum")
    cls: Any = maker.__new__(metaclass, name, bases, space, **options)
    for stand_in in ("__init__", "__new_member__"):
        if stand_in in cls.__dict__:
            type.__delattr__(cls, stand_in)
    made: type = cls
    return made


def _leave_alone(_: Any, *__: Any) -> None:
    """Stand in for the `__init__` of the enum."""


def _maker_of(cls: Any) -> Any:
    """Return the class with the built-in `__new__` that makes the data of members."""
    return next(
        one
        for one in cls.__mro__
        if isinstance(one.__dict__.get("__new__"), types.BuiltinFunctionType)
    )


def states_of(cls: Any) -> dict[str, dict[str, Any]]:
    """Return the attributes of members of *cls* that `enum` does not set; empty if not an enum."""
    if not isinstance(cls, enum.EnumType):
        return {}
    members: dict[str, Any] = dict(cls._member_map_)
    states = {
        name: {
            key: value
            for key, value in {**_slots_of(member), **vars(member)}.items()
            if key not in MEMBER_MACHINERY
        }
        for name, member in members.items()
    }
    return {name: state for name, state in states.items() if state}


IS_MADE_BY_A_CLASS_STATEMENT: Final = 1 << 9
"""Py_TPFLAGS_HEAPTYPE. In other types, fields are the data from which the member was made."""


def _slots_of(member: Any) -> dict[str, Any]:
    return {
        name: value.__get__(member)
        for one in type(member).__mro__
        if one.__flags__ & IS_MADE_BY_A_CLASS_STATEMENT
        for name, value in vars(one).items()
        if isinstance(value, types.MemberDescriptorType) and hasattr(member, name)
    }


def fill_members(cls: Any, states: dict[str, dict[str, Any]]) -> None:
    """Give the members of *cls* the attributes in *states*."""
    for name, state in states.items():
        for key, value in state.items():
            object.__setattr__(cls._member_map_[name], key, value)
