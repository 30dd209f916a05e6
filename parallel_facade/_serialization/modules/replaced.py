"""Detect what was replaced in a module since a worker may have imported it.

Guarantees:
    - A name that led to another object, when first seen or in a warm worker, is not trusted again,
      even if the first object is put back.
"""

from __future__ import annotations

import collections
import functools
import types
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from parallel_facade._common.plain_data import MAPPINGS
from parallel_facade._serialization.modules.ownership import is_of_user
from parallel_facade._serialization.modules.state import ChangedPlace, caller, recognizer


def mark_changed(module: str, path: str) -> None:
    """Note that workers receive another object for the dotted *path* of *module*.

    If the first object is put back, its name still leads to the other object in warm workers.
    """
    caller.marked_changed.add((module, path))


def is_marked_changed(module: str, path: str) -> bool:
    """Return whether workers received another object for the dotted *path* of *module*."""
    return (module, path) in caller.marked_changed


def was_replaced(module: types.ModuleType, name: str) -> bool:
    """Return whether the function or class *name* of *module* differs from the first one seen.

    Workers that imported the module earlier still have the earlier object.
    """
    if not is_of_user(module.__name__):
        return False
    if (seen := caller.first_seen.get(module.__name__)) is None:
        seen = caller.first_seen.setdefault(module.__name__, _seen_in(module))
    value = vars(module).get(name)
    if name not in seen and not isinstance(value, types.FunctionType | type):
        return False
    if name not in seen or seen[name]() is not value or was_recoded(module.__name__, name, value):
        # Permanent: if it is put back, workers still have its replacement.
        seen[name] = _nothing
        return True
    return False


def was_recoded(module: str, path: str, value: Any) -> bool:
    """Return whether the function at the dotted *path* of *module* has other code than at first.

    IPython's autoreload puts new code into existing functions and methods in this way.
    """
    codes = _codes_in(value)
    return bool(codes) and caller.first_codes.setdefault((module, path), codes) != codes


def times_replaced(place: ChangedPlace, name: str, value: Any) -> int:
    """Return how often the program has given another container to a name, up to *value*.

    A worker cannot tell an empty list from another one, but the program can: the first may have
    been filled by tasks, and the second is to be empty.

    Args:
        place: Where the name is.
        name: The name.
        value: Its value now; 0 is returned unless it is a list, set or dictionary.
    """
    if type(value) not in MUTABLE_TYPES:
        return 0
    recognizes, count = caller.containers.get((place, name), (None, -1))
    if recognizes is None or not recognizes(value):
        count += 1
        caller.containers[place, name] = recognizer(value), count
    return count


MUTABLE_TYPES: Final = MAPPINGS | {list, set, collections.deque}


def _nothing() -> None:
    """Act as a dead reference: the first object was replaced."""


def _codes_in(value: Any) -> tuple[types.CodeType, ...]:
    """Return the code of the functions in *value*, and of the functions that they wrap."""
    codes: list[types.CodeType] = []
    stack, visited = _functions_in(value), set()
    while stack:
        function = stack.pop()
        if type(function) is types.FunctionType and id(function) not in visited:
            visited.add(id(function))
            codes.append(function.__code__)
            for cell in function.__closure__ or ():
                with suppress(ValueError):  # an empty cell
                    stack.append(cell.cell_contents)
    return tuple(codes)


def function_in(value: Any) -> Any:
    """Return the function in *value*, an attribute of a class, or else *value* itself."""
    return _functions_in(value)[0]


def _functions_in(value: Any) -> list[Any]:
    # By its type: reading an attribute of a user's object may run the user's code.
    for kind, names in _MADE_OF.items():
        if issubclass(type(value), kind):
            return [getattr(value, name) for name in names]
    return [value]


_MADE_OF: Final[dict[type, tuple[str, ...]]] = {
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    types.MethodType: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",),
    functools._lru_cache_wrapper: ("__wrapped__",),
}


def _seen_in(module: types.ModuleType) -> dict[str, Callable[[], Any]]:
    """Return the functions and classes of *module*, and note their code."""
    seen: dict[str, Callable[[], Any]] = {}
    for name, value in list(vars(module).items()):
        if isinstance(value, types.FunctionType | type):
            seen[name] = weakref.ref(value)
            was_recoded(module.__name__, name, value)
        if isinstance(value, type):
            _note_first_codes(module, value)
    return seen


def _note_first_codes(module: types.ModuleType, cls: type) -> None:
    if cls.__module__ == module.__name__:
        for name, value in list(vars(cls).items()):
            was_recoded(module.__name__, f"{cls.__qualname__}.{name}", value)
