"""Collect what the caller changed in the user's modules since workers imported them.

    caller: helpers.RATE = 3; pmap(helpers.f, …) ──("helpers", RATE = 3), by name: f──► worker

A function that travels by name runs with the globals of the worker's own import. So the plain
values that it reads, directly or through functions of the user's modules, travel beside its name.
Other values also travel if the program replaced them: the source says `MODEL = None` but the value
is now a model, or the value was another object in an earlier call.

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
from parallel_facade._serialization.modules.apply_changes import ModuleChanges
from parallel_facade._serialization.modules.code_names import global_names, words_in
from parallel_facade._serialization.modules.importable import (
    is_importable,
    is_importable_name,
)
from parallel_facade._serialization.modules.ownership import is_of_user
from parallel_facade._serialization.modules.registrations import is_of_script, registered_with
from parallel_facade._serialization.modules.replaced import (
    function_in,
    mark_changed,
    times_replaced,
    was_recoded,
    was_replaced,
)
from parallel_facade._serialization.modules.source_literals import is_in_source, names_of_literals
from parallel_facade._serialization.modules.state import ChangedPlace, caller, recognizer


class ChangeCollector:
    """Collects the changes of the user's modules for one payload.

    Args:
        dump: Returns an object as a payload.
    """

    def __init__(self, dump: Callable[[Any], bytes]) -> None:
        self._dump = dump
        self._visited: set[int] = set()
        self._goes_by_name: Any = None  # the object of the last `changes_of`
        # Each name is sent once in a payload: sent again inside its own value, it would be applied
        # while that value is still being rebuilt.
        self._noted: dict[tuple[ChangedPlace, str], bool] = {}  # whether the value is sent

    def changes_of(self, obj: Any) -> ModuleChanges:
        """Return the module changes that *obj*, which travels by name, reads."""
        changes = ModuleChanges.none()
        self._goes_by_name = obj
        self.note([obj], changes)
        return changes

    def note(self, objects: Iterable[Any], changes: ModuleChanges) -> None:
        """Add to *changes* what *objects*, which travel by name, read in the user's modules."""
        self._follow(list(objects), changes)

    def note_globals(
        self, function: types.FunctionType, reads: dict[str, Any], changes: ModuleChanges
    ) -> None:
        """Add *reads*, the globals that *function* uses, to *changes*.

        Args:
            function: Belongs to a module that workers import, but travels by value.
            reads: The globals that it uses there.
            changes: Receives them, and the values that the functions it calls read.
        """
        module = function.__globals__["__name__"]
        if not is_of_user(module):
            return
        place = module, ""
        _note_deleted(changes, place, function.__globals__, global_names(function.__code__))
        rest = dict(self._others(changes, place, reads))
        natives = {
            name: value
            for name, value in rest.items()
            if _is_native(value) and is_in_source(module, name)
        }
        # Everything else in its current state, unless its value is already sent.
        for name, value in reads.items():
            is_collected = self._noted[place, name] or name in natives
            if not is_collected and type(value) is not ContextVar:
                self._collect(place, name, value, changes)
        self._follow(list(natives.values()), changes)

    def _collect(self, place: ChangedPlace, name: str, value: Any, changes: ModuleChanges) -> None:
        self._noted[place, name] = True
        changes.objects.setdefault(place, {})[name] = value

    def note_modules(
        self, within_reach: list[Any], code: types.CodeType, changes: ModuleChanges
    ) -> None:
        """Add to *changes* what *code* may read as attributes of modules *within_reach*."""
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
            changes.registrations.extend(registered_with(one))
            if kind is functools._lru_cache_wrapper:
                stack.append(one.__wrapped__)
            elif kind is types.FunctionType:
                stack += self._in_function(one, changes)
            elif issubclass(kind, type):
                stack += self._in_class(one, changes)

    def _in_function(self, function: types.FunctionType, changes: ModuleChanges) -> Iterator[Any]:
        """Add what *function* reads to *changes*; yield the objects to follow next."""
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
        # Most functions have no defaults, and never had any.
        if place in caller.names_read or any(defaults.values()):
            caller.names_read.setdefault(place, set())
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
        """Add the *names* in *space* to *changes*; return the objects to follow next."""
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
                    changes,
                    place,
                    attributes,
                    caller.names_read.get(place, set()) | attributes.keys(),
                )
                for value in dict(self._others(changes, place, attributes)).values():
                    yield function_in(value)

    def _others(
        self, changes: ModuleChanges, place: ChangedPlace, reads: dict[str, Any]
    ) -> Iterator[tuple[str, Any]]:
        """Add those of *reads* that workers may lack to *changes*; yield the others."""
        module, path = place
        for name, value in reads.items():
            if (place, name) in self._noted:
                continue
            self._noted[place, name] = is_plain(value)
            if type(value) is ContextVar:
                changes.variables.append(self._dump(value))
            if self._noted[place, name]:
                # If it is replaced by a value that is not plain, workers must not keep this one.
                _first_seen(place, name, value)
                blob = pickle.dumps(value, PROTOCOL)
                if count := times_replaced(place, name, value):
                    blob += b"%d" % count  # behind the end: it only makes the bytes differ
                changes.plain.setdefault(place, {})[name] = blob
            elif (
                (place, name) in caller.names_sent
                or (not path and was_replaced(sys.modules[module], name))
                or (path and was_recoded(module, f"{path}.{name}", value))
                or _is_of_script(value)
                or (
                    (_was_changed(place, name, value) or _is_foreign(value, module))
                    and self._can_travel(value)
                )
            ):
                caller.names_sent.add((place, name))
                mark_changed(module, f"{path}.{name}".lstrip("."))
                self._collect(place, name, value, changes)
            else:
                if not path and (entries := _entries_of_script(value)):
                    changes.entries[module, name] = entries
                yield name, value

    def _can_travel(self, value: Any) -> bool:
        # If not, it may be a connection, for example, that each worker opens on first use.
        try:
            self._dump(value)
        except KeyboardInterrupt:
            raise
        except BaseException:
            return False
        return True


def _is_native(value: Any) -> bool:
    """Return whether importing a module creates *value*, if the value was not replaced."""
    return isinstance(value, types.FunctionType | type | types.ModuleType)


def _was_changed(place: ChangedPlace, name: str, value: Any) -> bool:
    """Return whether importing the module again would give another object than *value*."""
    if isinstance(value, NATIVES) or name.startswith("__"):
        return False
    return not _first_seen(place, name, value)(value) or name in _literals(place)


def _first_seen(place: ChangedPlace, name: str, value: object) -> Callable[[object], bool]:
    """Return what recognizes the first object of a name, which is *value* if it is seen first."""
    key = place, name
    if (known := caller.first_objects.get(key)) is None:
        known = caller.first_objects.setdefault(key, recognizer(value))
    return known


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
"""Types that modules and classes are made of; their objects are not state of a program."""


def _note_deleted(
    changes: ModuleChanges, place: ChangedPlace, space: Mapping[str, Any], names: AbstractSet[str]
) -> None:
    """Add to *changes* the *names* that *space* had in an earlier call and no longer has."""
    had = caller.names_read.setdefault(place, set())
    if deleted := [name for name in names & had if name not in space]:
        changes.deleted.setdefault(place, []).extend(deleted)
    had.update(name for name in names if name in space)


def _is_of_script(value: Any) -> bool:
    """Return whether *value* is code of the script, which importing a module cannot create."""
    return is_of_script(function_in(value))


def _is_foreign(value: Any, module: str) -> bool:
    """Return whether *value* is a function made by another module: a patch, or a decorator's."""
    code = function_in(value)
    return (
        isinstance(code, types.FunctionType)
        and code.__module__ != module
        and "<" in code.__qualname__
    )


def _entries_of_script(value: Any) -> Any:
    """Return the functions and classes of the script in *value*, a container of a module."""
    if type(value) is dict and len(value) <= MOST_ELEMENTS:
        return {key: one for key, one in list(value.items()) if _is_of_script(one)}
    if type(value) in {list, set} and len(value) <= MOST_ELEMENTS:
        # Classes only: functions arrive as copies, so each call would add more of them.
        return [one for one in list(value) if isinstance(one, type) and _is_of_script(one)]
    return None


CLASS_MACHINERY: Final = frozenset(
    {"__module__", "__qualname__", "__doc__", "__slots__", "__match_args__", "__firstlineno__"}
    | {"__static_attributes__", "__annotations__", "__dataclass_fields__", "__parameters__"}
)
"""Attributes of classes that only the source determines."""
