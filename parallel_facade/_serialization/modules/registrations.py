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

from parallel_facade._serialization.modules.importable import NEVER_IMPORTED
from parallel_facade._serialization.modules.ownership import is_of_user

MAIN: Final = "__main__"
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
        value = _reducer_of(target)
        if value is not None and is_of_script(value):
            yield Registration("reducer", target, target, value)


def registrations_of(cls: type) -> Iterator[Registration]:
    """Yield the registrations of *cls*, a class of the script, with what modules have."""
    for target in _abstract_classes_by_member().get(id(cls), ()):
        yield Registration("virtual", target, cls, None)
    for target in _dispatchers():
        if cls in target.registry:
            yield Registration("dispatch", target, cls, target.registry[cls])
    if (value := _reducer_of(cls)) is not None:
        yield Registration("reducer", cls, cls, value)


def is_of_script(obj: Any) -> bool:
    """Return whether *obj* is a function or class that no import makes."""
    return (
        isinstance(obj, types.FunctionType | type)
        and getattr(obj, "__module__", None) in NEVER_IMPORTED
    )


def is_dispatcher(obj: Any) -> bool:
    """Return whether *obj* is a function made by `functools.singledispatch`."""
    return type(obj) is types.FunctionType and "registry" in vars(obj) and "dispatch" in vars(obj)


def _reducer_of(cls: Any) -> Any:
    # A metaclass may define __eq__ and __hash__, which must not run here.
    hashes: Any = type(cls).__hash__
    return copyreg.dispatch_table.get(cls) if hashes is type.__hash__ else None


def registered_classes(cls: Any) -> list[type]:
    """Return the classes that were registered as virtual subclasses of the abstract class *cls*."""
    registry, *_ = abc._get_dump(cls)  # type: ignore[attr-defined]  # pyright: ignore
    return [found for reference in registry if (found := reference()) is not None]


# ── where to look: in what the script has imported ────────────────────────────────────────────────


def _dispatchers() -> Iterator[Any]:
    for value in list(vars(sys.modules[MAIN]).values()):
        if is_dispatcher(value):
            yield value
        elif type(value) is types.ModuleType:
            yield from _found_in(value.__name__, len(vars(value)))[0]


def _abstract_classes() -> Iterator[Any]:
    for name in STANDARD:
        if name in sys.modules:
            yield from _found_in(name, len(vars(sys.modules[name])))[1]
    for value in list(vars(sys.modules[MAIN]).values()):
        if isinstance(value, abc.ABCMeta):
            yield value
        elif type(value) is types.ModuleType:
            yield from _found_in(value.__name__, len(vars(value)))[1]


@functools.lru_cache(maxsize=1024)
def _found_in(module: str, _: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the dispatchers and the abstract classes of *module*, which has so many names."""
    values = list(vars(sys.modules.get(module, types)).values())
    return (
        tuple(value for value in values if is_dispatcher(value)),
        tuple(value for value in values if isinstance(value, abc.ABCMeta)),
    )


_by_member: tuple[object, dict[int, list[Any]]] = (None, {})


def _abstract_classes_by_member() -> dict[int, list[Any]]:
    """Return, by the id of each class of the script, the abstract classes it is registered with."""
    global _by_member
    token = abc.get_cache_token()
    if _by_member[0] != token:  # something was registered since
        found: dict[int, list[Any]] = {}
        for target in _abstract_classes():
            for cls in registered_classes(target):
                if is_of_script(cls) and not any(one is target for one in found.get(id(cls), ())):
                    found.setdefault(id(cls), []).append(target)
                    weakref.finalize(cls, found.pop, id(cls), None).atexit = False
        _by_member = token, found
    return _by_member[1]
