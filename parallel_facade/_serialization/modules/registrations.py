"""What the script has registered with modules: a worker that imports them has not got it.

    @shapes.area.register          functools.singledispatch
    shapes.Shape.register(Num)     abc.ABC, also those of the standard library
    copyreg.pickle(Num, reduce)    copyreg

A registration travels with the function or class of a module that it was made with, and with the
class of the script that was registered. Codecs are not followed: Python does not tell which search
functions were registered.
"""

from __future__ import annotations

import abc
import copyreg
import functools
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from parallel_facade._common.plain_data import ATOMIC_TYPES
from parallel_facade._serialization.modules.importable import NEVER_IMPORTED
from parallel_facade._serialization.modules.ownership import is_of_user
from parallel_facade._serialization.modules.script_globals import MAIN

STANDARD: Final = ("collections.abc", "numbers", "io", "os", "contextlib")
"""Modules of the standard library with abstract classes that programs register with."""


class Registration(NamedTuple):
    """A registration.

    Attributes:
        kind: A key of `REGISTER`.
        target: Where it was made: a function, an abstract class; for `copyreg`, the class itself.
        cls: The class that was registered.
        value: What was registered for it, if that is more than the class.
    """

    kind: str
    target: Any
    cls: Any
    value: Any


def _dispatch(target: Any, cls: Any, value: Any) -> None:
    if target.registry.get(cls) is not value:
        target.register(cls, value)


def _virtual(target: Any, cls: Any, value: Any) -> None:  # noqa: ARG001 - as the others
    abc.ABCMeta.register(target, cls)


def _reducer(target: Any, cls: Any, value: Any) -> None:  # noqa: ARG001 - as the others
    copyreg.pickle(cls, value)


REGISTER: Final[dict[str, Callable[[Any, Any, Any], None]]] = {
    "dispatch": _dispatch,
    "virtual": _virtual,
    "reducer": _reducer,
}


def register(registration: tuple[str, Any, Any, Any]) -> None:
    """Register in this process what was registered in the caller."""
    kind, *rest = registration
    REGISTER[kind](*rest)


def registered_with(target: Any) -> Iterator[Registration]:
    """Yield what the script has registered with *target*, a function or class of a module."""
    if is_dispatcher(target):
        for cls, value in list(target.registry.items()):
            if is_of_script(cls) or is_of_script(value):
                yield Registration("dispatch", target, cls, value)
    elif isinstance(target, type):
        if isinstance(target, abc.ABCMeta):
            is_own = is_of_user(target.__module__)
            for cls in registered_classes(target):
                if is_own or is_of_script(cls):
                    yield Registration("virtual", target, cls, None)
        value = reducer_of(target)
        if value is not None and is_of_script(value):
            yield Registration("reducer", target, target, value)


def registrations_of(classes: list[type]) -> Iterator[Registration]:
    """Yield the registrations of *classes*, which the script defines, with what modules have."""
    abstract, dispatchers = _abstract.by_member(), list(_dispatchers())
    for cls in classes:
        for target in abstract.get(id(cls), ()):
            yield Registration("virtual", target, cls, None)
        for target in dispatchers:
            # One of the script travels by value, with its registry.
            if not is_of_script(target) and cls in target.registry:
                yield Registration("dispatch", target, cls, target.registry[cls])
        if (value := reducer_of(cls)) is not None:
            yield Registration("reducer", cls, cls, value)


def is_of_script(obj: Any) -> bool:
    """Return whether *obj* is a function or class that no import makes."""
    return (
        isinstance(obj, types.FunctionType | type)
        and getattr(obj, "__module__", None) in NEVER_IMPORTED
    )


def is_dispatcher(obj: Any) -> bool:
    """Return whether *obj* is a function made by `functools.singledispatch`."""
    if type(obj) is not types.FunctionType or not (members := obj.__dict__):
        return False
    return "registry" in members and "dispatch" in members


def reducer_of(cls: type) -> Any:
    """Return the reducer that is registered for *cls* with `copyreg`, or `None`."""
    if type(cls) is not type and has_own_hash(cls):
        return None
    return copyreg.dispatch_table.get(cls)


def has_own_hash(cls: type) -> bool:
    """Return whether the metaclass of *cls* defines ``__hash__``, which must not run here."""
    hashes: Any = type(cls).__hash__
    return hashes is not type.__hash__


def registered_classes(cls: Any) -> list[type]:
    """Return the classes that were registered as virtual subclasses of the abstract class *cls*."""
    registry, *_ = abc._get_dump(cls)  # type: ignore[attr-defined]  # pyright: ignore
    return [found for reference in registry if (found := reference()) is not None]


# ── where to look: in what the script has imported ────────────────────────────────────────────────


def _dispatchers() -> Iterator[Any]:
    return _in_main(is_dispatcher)


def _abstract_classes() -> Iterator[Any]:
    for name in STANDARD:
        if name in sys.modules:
            yield from _in_module(name, len(vars(sys.modules[name])), _is_abstract)
    yield from _in_main(_is_abstract)


def _is_abstract(obj: Any) -> bool:
    return isinstance(obj, abc.ABCMeta)


def _in_main(is_wanted: Callable[[Any], bool]) -> Iterator[Any]:
    for value in vars(sys.modules[MAIN]).copy().values():
        kind = type(value)
        if kind is types.ModuleType:
            yield from _in_module(value.__name__, len(value.__dict__), is_wanted)
        elif kind not in ATOMIC_TYPES and is_wanted(value):
            yield value


@functools.lru_cache(maxsize=2048)
def _in_module(module: str, _: int, is_wanted: Callable[[Any], bool]) -> tuple[Any, ...]:
    """Return the wanted values among the globals of *module*, which has so many."""
    values = list(vars(sys.modules.get(module, types)).values())
    return tuple(value for value in values if is_wanted(value))


class _AbstractClasses:
    """With which abstract classes the classes of the script are registered, by their ids."""

    def __init__(self) -> None:
        self._token: object = None
        self._by_member: dict[int, list[Any]] = {}
        self._watched: set[int] = set()  # classes that are forgotten when they are collected

    def by_member(self) -> dict[int, list[Any]]:
        """Return them, looked up anew if something was registered since."""
        token = abc.get_cache_token()
        if self._token != token:
            self._by_member.clear()
            for target in _abstract_classes():
                for cls in filter(is_of_script, registered_classes(target)):
                    self._add(cls, target)
            self._token = token
        return self._by_member

    def _add(self, cls: type, target: Any) -> None:
        targets = self._by_member.setdefault(id(cls), [])
        if not any(one is target for one in targets):
            targets.append(target)
        if id(cls) not in self._watched:
            self._watched.add(id(cls))
            weakref.finalize(cls, self._forget, id(cls)).atexit = False

    def _forget(self, member: int) -> None:
        self._watched.discard(member)
        self._by_member.pop(member, None)


_abstract: Final = _AbstractClasses()
