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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypedDict

from parallel_facade._common.errors import SerializationError
from parallel_facade._common.plain_data import is_plain
from parallel_facade._serialization.modules.apply_changes import ModuleChanges, apply_changes
from parallel_facade._serialization.modules.call_globals import MAIN, expose_in_main, space_module
from parallel_facade._serialization.modules.code_names import names_in_annotations
from parallel_facade._serialization.modules.collect_changes import ChangeCollector
from parallel_facade._serialization.rules.builtin_values import keep_alive
from parallel_facade._serialization.rules.class_tokens import (
    class_for,
    known_token,
    remember,
    token_for,
)
from parallel_facade._serialization.rules.ctypes_types import (
    finish_ctypes,
    is_made_by_ctypes,
    split_ctypes,
)
from parallel_facade._serialization.rules.enums import (
    NOT_CARRIED,
    fill_members,
    new_enum,
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


class _Example(TypedDict):
    """A typed dictionary, for its metaclass."""


TYPED_DICT: Final[type] = type(_Example)
"""The metaclass of typed dictionaries."""

CLASS_CREATION_NAMES: Final = frozenset({"__orig_bases__"})
"""Attributes that the hooks of `typing` read while a class is made."""

RESERVED: Final = frozenset({"__class__", "__name__", "__dict__", "__weakref__", "__mro__"})
"""Attributes that, after a class is made, can only be set on its metaclass."""

MAKERS: Final = frozenset({"abc", "typing", "enum", "_ctypes"})
"""Modules with metaclasses whose work on a class cannot be skipped."""

WITHOUT_HOOKS: Final = frozenset({"builtins", "typing", "abc", "enum"})
"""Modules whose `__init_subclass__` does no harm when a class is made again."""

ANNOTATE: Final = "__annotate_func__"
"""The attribute with the function that returns a class's annotations, from Python 3.14 on."""

ANNOTATIONS_RETURNED: Final = "__annotations_cache__"
"""The attribute with the annotations that this function returned."""

EARLY_TYPES: Final = (types.FunctionType, classmethod, staticmethod, property)

_pinned: dict[str, dict[str, Any]] = {}  # token → attributes that the initializer set
_received: dict[
    str, tuple[str, frozenset[str]]
] = {}  # token → id of the call that set its attributes, their names
_unhooked: set[str] = set()  # tokens of classes for which a library's hook has not run yet


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
    steps = (
        [
            RebuildStep(put_methods, member, call_id, methods, _placeholders(data))
            for member, methods, data in parts
        ],
        [
            RebuildStep(fill_function, function, function_state(function, call_id, collector))
            for function in ordered
        ],
        [
            RebuildStep(put_data, member, call_id, data, tuple(methods))
            for member, methods, data in parts
        ],
        [RebuildStep(fill_parts, one, state) for one, state in parameters],
        [RebuildStep(apply_changes, call_id, changes)],
        [RebuildStep(tell_library, member, methods, data) for member, methods, data in parts],
        [
            RebuildStep(register_virtual, member, known)
            for member in hierarchy
            if (known := _virtual(member))
        ],
        [
            RebuildStep(put_member_state, member, state)
            for member in hierarchy
            if (state := states_of(member))
        ],
        [
            RebuildStep(share, call_id, names)
            for member in hierarchy
            if (names := _names_in_hints(member))
        ],
    )
    return (*reduce_skeleton(cls), steps, None, None, _rebuilt)


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


def came_from_caller(cls: type) -> bool:
    """Return whether the other side of this process's channel owns *cls*."""
    return known_token(cls) in _received


def define_class(
    token: str, name: str, metaclass: type, bases: tuple[type, ...], body: dict[str, Any]
) -> type:
    """Return the class known as *token*; if it is new here, make it without its attributes."""
    if (known := class_for(token)) is not None:
        if token in _received and not _are_same(known.__bases__, bases):
            known.__bases__ = bases
        keep_alive(known)
        return known
    cls = (
        new_enum(metaclass, name, bases, body)
        if issubclass(metaclass, enum.EnumType)
        else _new_plain(metaclass, name, bases, body)
    )
    # Later parts name the class by its token, and the call may have only weak references to it,
    # for example in the registry of an abstract class.
    keep_alive(cls)
    remember(cls, token)
    _received[token] = ("", frozenset())
    if _has_library_hook(bases):
        _unhooked.add(token)
    return cls


def put_methods(
    cls: type, call_id: str, methods: dict[str, Any], placeholders: dict[str, Any]
) -> None:
    """Give *cls* its methods, which may still be empty, and its plain data.

    Args:
        cls: The class.
        call_id: The call's id.
        methods: The methods, and other data that cannot refer back to an instance.
        placeholders: Stand-ins for data that can: instances in it are rebuilt with the class as
            it is now.
    """
    if _is_due(cls, call_id):
        _put(cls, {**placeholders, **methods})
        expose_in_main(call_id, cls)


def put_data(cls: type, call_id: str, data: dict[str, Any], methods: tuple[str, ...]) -> None:
    """Give *cls* its other attributes, and delete those that it no longer has."""
    if not _is_due(cls, call_id):
        return
    token = str(known_token(cls))
    names = frozenset(data).union(methods)
    for name in _received[token][1] - names - _pinned.get(token, {}).keys():
        if name in cls.__dict__:
            type.__delattr__(cls, name)
    _put(cls, data)
    _received[token] = call_id, names


def tell_library(cls: Any, *parts: dict[str, Any]) -> None:
    """Run the `__init_subclass__` of imported bases for *cls*, now that it is complete."""
    token = str(known_token(cls))
    if token in _unhooked:
        _unhooked.discard(token)
        # Its keywords are not known here; what it did to the class travelled with the class.
        with suppress(Exception):
            super(cls, cls).__init_subclass__()
        for part in parts:
            _put(cls, part)


def share(call_id: str, names: dict[str, Any]) -> None:
    """Let `typing.get_type_hints` find *names*, which annotations contain as text."""
    main = vars(space_module(call_id, MAIN, {"__name__": MAIN}))
    for name, value in names.items():
        main.setdefault(name, value)


def register_virtual(cls: Any, subclasses: list[type]) -> None:
    """Make *subclasses* virtual subclasses of *cls*, as they are in the caller."""
    for subclass in subclasses:
        abc.ABCMeta.register(cls, subclass)


def put_member_state(cls: Any, states: dict[str, dict[str, Any]]) -> None:
    """Give the members of the enum *cls* the attributes that its `__init__` gave them."""
    if came_from_caller(cls):
        fill_members(cls, states)


@contextmanager
def pinning_attributes(call_id: str) -> Iterator[None]:
    """Keep, for the worker's life, the class attributes that change inside the block."""
    tokens = [token for token, (filled, _) in _received.items() if filled == call_id]
    watched = [(token, cls) for token in tokens if (cls := class_for(token)) is not None]
    before = [dict(cls.__dict__) for _, cls in watched]
    yield
    for (token, cls), known in zip(watched, before, strict=True):
        _pinned.setdefault(token, {}).update(
            (name, value)
            for name, value in cls.__dict__.items()
            if name not in known or known[name] is not value
        )


def _is_due(cls: type, call_id: str) -> bool:
    """Return whether *cls* is a copy of the caller's class that this call has not filled yet."""
    token = known_token(cls)
    return token is not None and token in _received and _received[token][0] != call_id


def _put(cls: type, attributes: dict[str, Any]) -> None:
    pinned = _pinned.get(str(known_token(cls)), {})
    if "_fields_" in attributes and is_made_by_ctypes(cls):
        attributes = finish_ctypes(cls, attributes)
    # type's own method: a metaclass may refuse or log assignments that the user never made.
    put = setattr if is_made_by_ctypes(cls) else type.__setattr__
    for name, value in attributes.items():
        if name not in pinned:
            # To set __annotate__ also drops what an earlier function has returned.
            put(cls, "__annotate__" if name == ANNOTATE else name, value)


def class_by_token(token: str, qualname: str) -> type:
    """Return the class known as *token*."""
    if (cls := class_for(token)) is None:
        raise SerializationError(
            f"the class {qualname} that this object belongs to no longer exists here",
            path=qualname,
        )
    return cls


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


def _virtual(cls: type) -> list[type]:
    """Return the classes that were registered as virtual subclasses of *cls*."""
    if not isinstance(cls, abc.ABCMeta):
        return []
    registry, *_ = abc._get_dump(cls)  # type: ignore[attr-defined]  # pyright: ignore
    return [found for reference in registry if (found := reference()) is not None]


def _new_plain(metaclass: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    # The program's own metaclass is not called: it did its work in the caller, with all attributes
    # there, and the results of that work are among the attributes.
    maker = next(one for one in metaclass.__mro__ if _must_make(one))
    if maker is TYPED_DICT:
        maker = type  # it accepts only typed dictionaries as bases; a finished class has none
    with _without_hooks(bases):
        made: type = maker.__new__(metaclass, name, bases, body)
        if is_made_by_ctypes(made):
            # From Python 3.13 on, `__init__` makes the layout.
            maker.__init__(made, name, bases, body)
    return made


def _must_make(metaclass: type) -> bool:
    return metaclass is type or metaclass.__module__ in MAKERS


def _has_library_hook(bases: tuple[type, ...]) -> bool:
    """Return whether an imported base has an `__init_subclass__` that has to run later."""
    return any(
        "__init_subclass__" in one.__dict__
        and one.__module__ not in WITHOUT_HOOKS
        and known_token(one) not in _received
        for base in bases
        for one in base.__mro__
    )


def _are_same(these: tuple[type, ...], those: tuple[type, ...]) -> bool:
    # By identity: a metaclass may define __eq__, which must not run here.
    return list(map(id, these)) == list(map(id, those))


@contextmanager
def _without_hooks(bases: tuple[type, ...]) -> Iterator[None]:
    """Disable `__init_subclass__`: it would run without its keywords, on an empty class."""
    hierarchy = {id(one): one for base in bases for one in base.__mro__}.values()
    hooks = [
        (one, one.__dict__["__init_subclass__"])
        for one in hierarchy
        if one.__module__ not in WITHOUT_HOOKS and "__init_subclass__" in one.__dict__
    ]
    for one, _ in hooks:
        type.__delattr__(one, "__init_subclass__")
    try:
        yield
    finally:
        for one, hook in hooks:
            type.__setattr__(one, "__init_subclass__", hook)
