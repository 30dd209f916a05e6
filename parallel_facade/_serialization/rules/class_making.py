"""Classes by value on the receiving side: made once for each token, then filled.

    define_class ─► skeleton ─► put_methods ─► put_data ─► call_library_hooks, register_virtual, ...

Guarantees:
    - A worker makes one class per token; a later call updates its attributes in place.
    - Neither metaclasses nor `__init_subclass__` of the user run again.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypedDict

from parallel_facade._common.errors import SerializationError
from parallel_facade._serialization.modules.call_globals import expose_in_main, space_module
from parallel_facade._serialization.modules.script_globals import MAIN, fill_script
from parallel_facade._serialization.modules.state import worker
from parallel_facade._serialization.rules.builtin_values import keep_alive
from parallel_facade._serialization.rules.class_tokens import (
    class_for,
    known_token,
    remember,
)
from parallel_facade._serialization.rules.ctypes_types import (
    finish_ctypes,
    is_made_by_ctypes,
)
from parallel_facade._serialization.rules.enums import (
    fill_members,
    new_enum,
)


class _Example(TypedDict):
    """A typed dictionary, for its metaclass."""


TYPED_DICT: Final[type] = type(_Example)
"""The metaclass of typed dictionaries."""

ANNOTATE: Final = "__annotate_func__"
"""The attribute with the function that returns a class's annotations, from Python 3.14 on."""

MAKERS: Final = frozenset({"abc", "typing", "enum", "_ctypes"})
"""Modules with metaclasses whose work on a class cannot be skipped."""

WITHOUT_HOOKS: Final = frozenset({"builtins", "typing", "abc", "enum"})
"""Modules whose `__init_subclass__` does no harm when a class is made again."""


def came_from_caller(cls: type) -> bool:
    """Return whether the other side of this process's channel owns *cls*."""
    return known_token(cls) in worker.received_classes


def define_class(
    token: str, name: str, metaclass: type, bases: tuple[type, ...], body: dict[str, Any]
) -> type:
    """Return the class known as *token*; if it is new here, make it without its attributes."""
    if (known := class_for(token)) is not None:
        if token in worker.received_classes and not _are_same(known.__bases__, bases):
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
    worker.received_classes[token] = ("", frozenset())
    # If an earlier copy was collected: what the initializer has set there stays set.
    for attribute, value in worker.pinned_attributes.get(token, {}).items():
        type.__setattr__(cls, attribute, value)
    if _has_library_hook(bases):
        worker.unhooked_classes.add(token)
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


def put_leaves(cls: type, call_id: str, leaves: dict[str, Any]) -> None:
    """Give *cls* the data that its `__new__` may need, once its methods have their contents."""
    if leaves and _is_due(cls, call_id):
        _put(cls, leaves)


def put_data(cls: type, call_id: str, data: dict[str, Any], methods: tuple[str, ...]) -> None:
    """Give *cls* its other attributes, and delete those that it no longer has."""
    if not _is_due(cls, call_id):
        return
    token = str(known_token(cls))
    names = frozenset(data).union(methods)
    for name in (
        worker.received_classes[token][1] - names - worker.pinned_attributes.get(token, {}).keys()
    ):
        if name in cls.__dict__:
            type.__delattr__(cls, name)
    _put(cls, data)
    worker.received_classes[token] = call_id, names


def call_library_hooks(cls: Any, *parts: dict[str, Any]) -> None:
    """Run the `__init_subclass__` of imported bases for *cls*, now that it is complete."""
    token = str(known_token(cls))
    if token in worker.unhooked_classes:
        worker.unhooked_classes.discard(token)
        # Its keywords are not known here; what it did to the class travelled with the class.
        with suppress(Exception):
            super(cls, cls).__init_subclass__()
        for part in parts:
            _put(cls, part)


def share(call_id: str, names: dict[str, Any]) -> None:
    """Let `typing.get_type_hints` find *names*, which annotations contain as text."""
    main = vars(space_module(call_id, MAIN, {"__name__": MAIN}))
    fill_script(main, names)


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
    tokens = [token for token, (filled, _) in worker.received_classes.items() if filled == call_id]
    watched = [(token, cls) for token in tokens if (cls := class_for(token)) is not None]
    before = [dict(cls.__dict__) for _, cls in watched]
    yield
    for (token, cls), known in zip(watched, before, strict=True):
        worker.pinned_attributes.setdefault(token, {}).update(
            (name, value)
            for name, value in cls.__dict__.items()
            if name not in known or known[name] is not value
        )


def _is_due(cls: type, call_id: str) -> bool:
    """Return whether *cls* is a copy of the caller's class that this call has not filled yet."""
    token = known_token(cls)
    return (
        token is not None
        and token in worker.received_classes
        and worker.received_classes[token][0] != call_id
    )


def _put(cls: type, attributes: dict[str, Any]) -> None:
    pinned = worker.pinned_attributes.get(str(known_token(cls)), {})
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
        and known_token(one) not in worker.received_classes
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
