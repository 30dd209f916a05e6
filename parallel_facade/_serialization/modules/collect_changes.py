"""What the caller changed in a module of its own since workers imported it.

    caller: helpers.RATE = 3; pmap(helpers.f, …) ──("helpers", RATE = 3), by name: f──► worker

A function that goes by name runs with the globals of the worker's own import. So the plain values
that it reads, itself or through functions of the user's modules, travel beside its name, and what
the program put in the place of others: where the source says `MODEL = None` and it is a model by
now, or where it was another object in an earlier call.

Guarantees:
    - Modules of Python and of installed packages are left alone.
"""

from __future__ import annotations

import functools
import pickle
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from typing import Any, Final

from parallel_facade._common.plain_data import MOST_ELEMENTS, PROTOCOL, is_plain
from parallel_facade._serialization.modules.apply_changes import ChangedPlace, ModuleChanges
from parallel_facade._serialization.modules.code_names import global_names, words_in
from parallel_facade._serialization.modules.importable import (
    NEVER_IMPORTED,
    is_importable,
    is_importable_name,
)
from parallel_facade._serialization.modules.ownership import is_of_user
from parallel_facade._serialization.modules.replaced import (
    function_in,
    mark_changed,
    was_recoded,
    was_replaced,
)
from parallel_facade._serialization.modules.source_literals import names_of_literals

_had: dict[ChangedPlace, set[str]] = {}  # place → names that a call has read there
_sent: set[tuple[ChangedPlace, str]] = set()  # names for which workers were given an object once
_first_ids: dict[tuple[ChangedPlace, str], int] = {}  # the objects at first sight


class ChangeCollector:
    """Collects what one payload has to say about the user's modules.

    Args:
        dump: Returns an object as a payload.
    """

    def __init__(self, dump: Callable[[Any], bytes]) -> None:
        self._dump = dump
        self._visited: set[int] = set()
        self._goes_by_name: Any = None  # what was found by its name just now
        # Each name once in a payload: told again inside its own value, it would be brought while
        # that value is still being rebuilt.
        self._noted: dict[tuple[ChangedPlace, str], bool] = {}  # whether the news have its value

    def changes_of(self, obj: Any) -> ModuleChanges:
        """Return what *obj*, which goes by name, reads in the user's modules."""
        changes = ModuleChanges.none()
        self._goes_by_name = obj
        self.note([obj], changes)
        return changes

    def note(self, objects: Iterable[Any], changes: ModuleChanges) -> None:
        """Put what *objects*, which go by name, read in the user's modules in *changes*."""
        self._follow(list(objects), changes)

    def note_globals(
        self, function: types.FunctionType, reads: dict[str, Any], changes: ModuleChanges
    ) -> None:
        """Put *reads*, the globals that *function* uses, in *changes*.

        Args:
            function: Lives in a module that workers import, and travels by value.
            reads: What it uses there.
            changes: Gets them, and what the functions read that it calls.
        """
        module = function.__globals__["__name__"]
        if not is_of_user(module):
            return
        place = module, ""
        _note_deleted(changes, place, function.__globals__, global_names(function.__code__))
        rest = dict(self._others(changes, place, reads))
        natives = {name: value for name, value in rest.items() if _is_native(value)}
        # All else, in its state of now; but for what is told already.
        for name, value in reads.items():
            is_collected = self._noted[place, name] or _is_native(value)
            if not is_collected and type(value) is not ContextVar:
                self._collect(place, name, value, changes)
        self._follow(list(natives.values()), changes)

    def _collect(self, place: ChangedPlace, name: str, value: Any, changes: ModuleChanges) -> None:
        self._noted[place, name] = True
        changes.objects.setdefault(place, {})[name] = value

    def note_modules(
        self, within_reach: list[Any], code: types.CodeType, changes: ModuleChanges
    ) -> None:
        """Put in *changes* what *code* may read as attributes of modules *within_reach*."""
        for module in within_reach:
            if type(module) is types.ModuleType:
                self._follow(list(self._in_module(module, code, changes)), changes)

    def _follow(self, stack: list[Any], changes: ModuleChanges) -> None:
        while stack:
            one = stack.pop()
            if id(one) in self._visited:
                continue
            self._visited.add(id(one))
            kind = type(one)
            if not issubclass(kind, type) and is_of_user(kind.__module__):
                # An instance: its methods may be called.
                stack.append(kind)
            if kind is functools._lru_cache_wrapper:
                stack.append(one.__wrapped__)
            elif kind is types.FunctionType:
                stack += self._in_function(one, changes)
            elif issubclass(kind, type):
                stack += self._in_class(one, changes)

    def _in_function(self, function: types.FunctionType, changes: ModuleChanges) -> Iterator[Any]:
        """Put what *function* reads in *changes*; yield what to follow from there."""
        name, code, space = str(function.__module__), function.__code__, function.__globals__
        if not is_of_user(name) or vars(sys.modules[name]) is not space:
            return
        for value in self._in_space(name, space, global_names(code), changes):
            yield value
            if type(value) is types.ModuleType:
                yield from self._in_module(value, code, changes)
        if function is self._goes_by_name or is_importable(function):
            yield from self._in_defaults(function, (name, function.__qualname__), changes)

    def _in_defaults(
        self, function: types.FunctionType, place: ChangedPlace, changes: ModuleChanges
    ) -> Iterator[Any]:
        defaults = {part: getattr(function, part) for part in ("__defaults__", "__kwdefaults__")}
        # Most functions have none, and never had.
        if place in _had or any(defaults.values()):
            _had.setdefault(place, set())
            yield from dict(self._others(changes, place, defaults)).values()

    def _in_module(
        self, module: types.ModuleType, code: types.CodeType, changes: ModuleChanges
    ) -> Iterator[Any]:
        name = str(getattr(module, "__name__", ""))
        if is_of_user(name) and is_importable_name(name):
            yield from self._in_space(name, vars(module), words_in(code), changes)

    def _in_space(
        self, module: str, space: Mapping[str, Any], names: AbstractSet[str], changes: ModuleChanges
    ) -> list[Any]:
        """Put what *space* has of *names* in *changes*; return what to follow there."""
        reads = {name: space[name] for name in names if name in space}
        _note_deleted(changes, (module, ""), space, names)
        return [value for _, value in self._others(changes, (module, ""), reads)]

    def _in_class(self, cls: type, changes: ModuleChanges) -> Iterator[Any]:
        for one in cls.__mro__:
            if is_of_user(one.__module__) and is_importable(one):
                place = one.__module__, one.__qualname__
                attributes = {
                    name: value for name, value in vars(one).items() if name not in CLASS_MACHINERY
                }
                _note_deleted(
                    changes, place, attributes, _had.get(place, set()) | attributes.keys()
                )
                for value in dict(self._others(changes, place, attributes)).values():
                    yield function_in(value)

    def _others(
        self, changes: ModuleChanges, place: ChangedPlace, reads: dict[str, Any]
    ) -> Iterator[tuple[str, Any]]:
        """Put those of *reads* in *changes* that workers may not have; yield the others."""
        module, path = place
        for name, value in reads.items():
            if (place, name) in self._noted:
                continue
            self._noted[place, name] = is_plain(value)
            if type(value) is ContextVar:
                changes.variables.append(self._dump(value))
            if self._noted[place, name]:
                # If it is no plain value some time, workers must not be left with this one.
                _first_ids.setdefault((place, name), id(value))
                blob = pickle.dumps(value, PROTOCOL)
                changes.plain.setdefault(place, {})[name] = blob
            elif (
                (place, name) in _sent
                or (not path and was_replaced(sys.modules[module], name))
                or (path and was_recoded(module, f"{path}.{name}", value))
                or _is_of_script(value)
                or (
                    (_was_changed(place, name, value) or _is_foreign(value, module))
                    and self._can_travel(value)
                )
            ):
                _sent.add((place, name))
                mark_changed(module, f"{path}.{name}".lstrip("."))
                self._collect(place, name, value, changes)
            else:
                if not path and (entries := _entries_of_script(value)):
                    changes.entries[module, name] = entries
                yield name, value

    def _can_travel(self, value: Any) -> bool:
        # If not, it may be a connection, say, that each worker opens when it first needs it.
        try:
            self._dump(value)
        except KeyboardInterrupt:
            raise
        except BaseException:
            return False
        return True


def _is_native(value: Any) -> bool:
    """Return whether a module has *value* by being imported, if the value was not replaced."""
    return isinstance(value, types.FunctionType | type | types.ModuleType)


def _was_changed(place: ChangedPlace, name: str, value: Any) -> bool:
    """Return whether importing the module again would give another object than *value*."""
    if isinstance(value, NATIVES) or name.startswith("__"):
        return False
    first = _first_ids.setdefault((place, name), id(value))
    return first != id(value) or name in _literals(place)


def _literals(place: ChangedPlace) -> frozenset[str]:
    return names_of_literals(place[0]).get(place[1], frozenset())


NATIVES: Final = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    type,
    property,
    classmethod,
    staticmethod,
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    functools._lru_cache_wrapper,
)
"""What modules and classes are made of; it is not state of a program."""


def _note_deleted(
    changes: ModuleChanges, place: ChangedPlace, space: Mapping[str, Any], names: AbstractSet[str]
) -> None:
    """Put those of *names* in *changes* that *space* had in an earlier call, and has no more."""
    had = _had.setdefault(place, set())
    if deleted := [name for name in names & had if name not in space]:
        changes.deleted.setdefault(place, []).extend(deleted)
    had.update(name for name in names if name in space)


def _is_of_script(value: Any) -> bool:
    """Return whether importing a module cannot have brought *value*, code of the script."""
    code = function_in(value)
    return (
        isinstance(code, types.FunctionType | type)
        and getattr(code, "__module__", None) in NEVER_IMPORTED
    )


def _is_foreign(value: Any, module: str) -> bool:
    """Return whether *value* is a function that another module made: a patch, or a decorator's."""
    code = function_in(value)
    return (
        isinstance(code, types.FunctionType)
        and code.__module__ != module
        and "<" in code.__qualname__
    )


def _entries_of_script(value: Any) -> Any:
    """Return what the script put into the container *value* of a module: functions, classes."""
    if type(value) is dict and len(value) <= MOST_ELEMENTS:
        return {key: one for key, one in list(value.items()) if _is_of_script(one)}
    if type(value) in {list, set} and len(value) <= MOST_ELEMENTS:
        # Functions are copies, and would be more with each call.
        return [one for one in list(value) if isinstance(one, type) and _is_of_script(one)]
    return None


CLASS_MACHINERY: Final = frozenset(
    {"__module__", "__qualname__", "__doc__", "__slots__", "__match_args__", "__firstlineno__"}
    | {"__static_attributes__", "__annotations__", "__dataclass_fields__", "__parameters__"}
)
"""Attributes of classes that the source alone decides."""
