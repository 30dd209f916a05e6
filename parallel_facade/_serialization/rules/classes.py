"""Classes by value: first a skeleton that everything may refer to, then its attributes.

    skeletons of the class, its bases and its metaclass
        → their methods, without contents, and plain data
        → the contents of the methods, special methods first → other data

Guarantees:
    - Instances in the data are rebuilt when their classes already have this call's methods, plain
      data and empty containers; nothing of an earlier call remains.
    - A worker makes one class per token; a later call updates its attributes in place.
    - Returned objects never change a class on the side that owns the class.
"""

from __future__ import annotations

import abc
import enum
import sys
import types
from collections.abc import Callable
from typing import Any, Final

from parallel_facade._common.plain_data import is_plain
from parallel_facade._serialization.modules.apply_changes import ModuleChanges, apply_changes
from parallel_facade._serialization.modules.code_names import names_in_annotations
from parallel_facade._serialization.modules.collect_changes import ChangeCollector
from parallel_facade._serialization.modules.registrations import (
    register,
    registered_classes,
    registrations_of,
)
from parallel_facade._serialization.modules.script_globals import MAIN
from parallel_facade._serialization.rules.class_making import (
    ANNOTATE,
    call_library_hooks,
    class_by_token,
    define_class,
    put_data,
    put_leaves,
    put_member_state,
    put_methods,
    register_virtual,
    share,
)
from parallel_facade._serialization.rules.class_tokens import (
    token_for,
)
from parallel_facade._serialization.rules.ctypes_types import (
    is_made_by_ctypes,
    split_ctypes,
)
from parallel_facade._serialization.rules.enums import (
    NOT_CARRIED,
    split_enum,
    states_of,
)
from parallel_facade._serialization.rules.functions import (
    changed_annotations,
    fill_function,
    function_state,
    names_in_annotate,
    types_among,
)
from parallel_facade._serialization.rules.type_parameters import fill_parts

CLASS_CREATION_NAMES: Final = frozenset({"__orig_bases__"})
"""Attributes that the hooks of `typing` read while a class is made."""

RESERVED: Final = frozenset({"__class__", "__name__", "__dict__", "__weakref__", "__mro__"})
"""Attributes that, after a class is made, can only be set on its metaclass."""

ANNOTATIONS_RETURNED: Final = "__annotations_cache__"
"""The attribute with the annotations that this function returned."""

EARLY_TYPES: Final = (types.FunctionType, classmethod, staticmethod, property)


class RebuildStep:
    """A step of rebuilding: a call that runs when the payload is read up to it."""

    def __init__(self, function: Callable[..., object], *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the call itself."""
        return self._call


def reduce_skeleton(cls: type) -> tuple[Any, ...]:
    """Return how to make *cls* without its attributes, which `reduce_hierarchy` sends."""
    body = split(cls)[0] | {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return define_class, (token_for(cls), cls.__name__, type(cls), cls.__bases__, body)


def reduce_hierarchy(
    cls: type,
    hierarchy: list[type],
    functions: list[types.FunctionType],
    changes: ModuleChanges,
    *,
    parameters: list[tuple[Any, tuple[str, Any]]],
    call_id: str,
    collector: ChangeCollector | None,
) -> tuple[Any, ...]:
    """Return how to rebuild *cls* together with its bases and metaclass.

    Args:
        cls: The class.
        hierarchy: Those of its bases and metaclasses that travel by value and were not sent yet,
            and *cls* itself at the end.
        functions: The functions of all their methods; the pickler first makes them empty.
        changes: What their importable bases and metaclasses read in the user's modules.
        parameters: Their type parameters, whose bounds may refer back to them.
        call_id: The call's id.
        collector: Collects what the methods read in the user's modules.
    """
    parts = [(member, *split(member)[1:]) for member in hierarchy]
    ordered = sorted(functions, key=_turn_of)
    states: list[tuple[Any, ...]] = [
        (fill_function, one, function_state(one, call_id, collector)) for one in ordered
    ]
    registrations: list[tuple[Any, ...]] = []
    if collector is not None:
        registrations = [(register, tuple(one)) for one in registrations_of(hierarchy)]
    steps: tuple[list[tuple[Any, ...]], ...] = (
        [(put_methods, one, call_id, methods, _placeholders(data)) for one, methods, data in parts],
        states,
        [(put_leaves, one, call_id, _leaves(data)) for one, _, data in parts],
        [(put_data, one, call_id, data, tuple(methods)) for one, methods, data in parts],
        [(fill_parts, one, state) for one, state in parameters],
        [(apply_changes, call_id, changes)],
        [(call_library_hooks, one, methods, data) for one, methods, data in parts],
        [
            (register_virtual, one, known)
            for one in hierarchy
            if (known := _virtual_subclasses(one))
        ],
        registrations,
        [(put_member_state, one, state) for one in hierarchy if (state := states_of(one))],
        [(share, call_id, names) for one in hierarchy if (names := _names_in_hints(one))],
    )
    rebuilding = [[RebuildStep(*step) for step in group] for group in steps]
    return (*reduce_skeleton(cls), rebuilding, None, None, _rebuilt)


def _turn_of(function: types.FunctionType) -> int:
    """Return the turn in which *function* gets its contents; 0 is the first."""
    # The methods that make and compare instances come first: the contents of the others may hold
    # instances, and annotations may refer to any class.
    if function.__name__ == "__annotate__":
        return 2
    return 0 if function.__name__.startswith("__") else 1


def methods_of(cls: type) -> list[types.FunctionType]:
    """Return the functions in the body of *cls*, also from properties, class and static methods."""
    found = []
    for attribute in split(cls)[1].values():
        parts = (
            (attribute.fget, attribute.fset, attribute.fdel)
            if isinstance(attribute, property)
            else (getattr(attribute, "__func__", attribute),)
        )
        found += [part for part in parts if type(part) is types.FunctionType]
    return found


def _rebuilt(cls: type, steps: object) -> None:
    """Do nothing: the steps ran while they were read."""


def reduce_to_token(cls: type) -> tuple[Any, ...]:
    """Return how to find *cls* on a side that already knows it."""
    return class_by_token, (token_for(cls), cls.__qualname__)


def split(cls: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the attributes of *cls* in three parts: needed to make it, set early, other data."""
    body, others = split_enum(cls) if isinstance(cls, enum.EnumType) else _split_plain(cls)
    methods = {
        name: value
        for name, value in others.items()
        if _comes_early(value) or (name == "_fields_" and is_made_by_ctypes(cls))
    }
    return body, methods, {name: value for name, value in others.items() if name not in methods}


def _comes_early(value: Any) -> bool:
    """Return whether *value* can be set early: it cannot refer to an instance that needs it."""
    return type(value) in EARLY_TYPES or is_plain(value)


def _placeholders(data: dict[str, Any]) -> dict[str, Any]:
    """Return stand-ins for *data* to use while the instances in it are rebuilt."""
    return {
        name: type(value)() if type(value) in {dict, list, set} else None
        for name, value in data.items()
    }


def _leaves(data: dict[str, Any]) -> dict[str, Any]:
    """Return those of *data* that refer to nothing of the program, such as locks.

    The `__new__` of the class may need them, and runs when an instance in the rest is rebuilt.
    """
    return {name: value for name, value in data.items() if type(value).__module__ in OF_LEAVES}


OF_LEAVES: Final = frozenset({"_thread", "threading", "logging", "itertools", "re", "random"})
"""Modules of types whose objects are often class data that a `__new__` uses."""


def _names_in_hints(cls: type) -> dict[str, Any]:
    """Return the types in the script that the annotations of *cls* name as text."""
    if cls.__module__ != MAIN:
        return {}
    annotations = cls.__dict__.get("__annotations__", {})  # noqa: RUF063 - runs no code
    names = names_in_annotations(annotations) | names_in_annotate(cls.__dict__.get(ANNOTATE))
    return types_among(names, vars(sys.modules[MAIN]))


def _split_plain(cls: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the attributes that creation of *cls* needs, and its other attributes."""
    own = dict(cls.__dict__)
    body = {name: own[name] for name in CLASS_CREATION_NAMES if name in own}
    for name in RESERVED & own.keys():
        if not isinstance(own[name], types.GetSetDescriptorType):
            body[name] = own[name]
    dropped = NOT_CARRIED | body.keys()
    if (annotate := own.get(ANNOTATE)) is not None:
        returned = own.get(ANNOTATIONS_RETURNED)
        if changed_annotations(annotate, returned) is None:
            dropped |= {ANNOTATIONS_RETURNED}
    if (slots := own.get("__slots__")) is not None:
        names = [name for name, value in own.items() if _is_slot(value)]
        dropped |= set(names)
        names += [name for name in ("__dict__", "__weakref__") if name in own]
        names = [name for name in names if name not in body]
        body["__slots__"] = slots if isinstance(slots, str | dict | tuple | list) else names
    if is_made_by_ctypes(cls):
        foreign, fields = split_ctypes(own)
        body |= foreign
        dropped |= fields
    return body, {key: value for key, value in own.items() if key not in dropped}


def _is_slot(value: Any) -> bool:
    return isinstance(value, types.MemberDescriptorType)


def _virtual_subclasses(cls: type) -> list[type]:
    return registered_classes(cls) if isinstance(cls, abc.ABCMeta) else []
