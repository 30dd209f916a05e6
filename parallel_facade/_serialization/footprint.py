"""What a function consists of and reads, if all of that can be compared by identity.

    footprint_of(f) ──► f's code, defaults, cells; the globals that it reads, and so on for each
                        function among them ──later──► is_current(): nothing of it was replaced

So the same function need not be packed again for the next call. Most functions of numbers and text
have a footprint. What can change inside, such as an object of the program or a list, has none.

Guarantees:
    - A function with a current footprint would be packed to the same bytes, and a task has no way
      to change what a worker has rebuilt from them.
"""

from __future__ import annotations

import dis
import functools
import operator
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

from parallel_facade._common.plain_data import ATOMIC_TYPES
from parallel_facade._serialization.modules.code_names import (
    LOOKS_UP_TEXT,
    REACHES_MAIN,
    codes_in,
    global_names,
    words_in,
)
from parallel_facade._serialization.modules.importable import find_path
from parallel_facade._serialization.modules.ownership import is_built_in, is_of_user

_MISSING: Final = object()

CHANGES: Final = frozenset(
    {"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_NAME", "DELETE_NAME", "STORE_ATTR", "DELETE_ATTR"}
)
"""Operations by which code may change a function or its globals."""

CHANGES_CELLS: Final = frozenset({"STORE_DEREF", "DELETE_DEREF"})

REACHES_FUNCTIONS: Final = (
    (LOOKS_UP_TEXT - {"getattr", "attrgetter"})
    | REACHES_MAIN
    | {
        *("setattr", "delattr", "locals", "__dict__", "__globals__", "__defaults__", "__code__"),
        *("__kwdefaults__", "__closure__", "__subclasses__", "_getframe", "currentframe", "gc"),
    }
)
"""Words in code that may read or change more than its names say."""


class _NoFootprintError(Exception):
    """Something cannot be compared by identity."""


class Footprint:
    """What a function consisted of when it was packed.

    Args:
        func: The function.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func = weakref.ref(func)
        self._functions: list[tuple[Any, tuple[Any, ...]]] = []
        self._names: list[tuple[dict[str, Any], str, Any]] = []
        self._visited: set[int] = set()
        self._add(func)

    def is_of(self, func: Callable[..., Any]) -> bool:
        """Return whether it is that of *func*, and nothing was replaced since."""
        if self._func() is not func:
            return False
        for space, name, value in self._names:
            if space.get(name, _MISSING) is not value:
                return False
        return all(
            (function := reference()) is not None and _is_same(_parts_of(function), parts)
            for reference, parts in self._functions
        )

    def _add(self, value: Any) -> None:
        """Add *value*, which a function reads, or the function itself."""
        kind = type(value)
        if kind in ATOMIC_TYPES or value is _MISSING or id(value) in self._visited:
            return
        self._visited.add(id(value))
        if kind is types.FunctionType:
            self._add_function(value)
        elif kind is functools.partial:
            self._add_partial(value)
        elif not _is_fixed(value):
            raise _NoFootprintError

    def _add_function(self, function: types.FunctionType) -> None:
        space, is_found = function.__globals__, find_path(function) is not None
        if function.__dict__:
            raise _NoFootprintError  # it may be a dispatcher, or wrap another one
        if is_found and not is_of_user(str(function.__module__)):
            return
        if is_found and "." in function.__qualname__:
            raise _NoFootprintError  # of a class
        parts = _parts_of(function)
        if not _can_be_compared(function) or _may_change(function.__code__):
            raise _NoFootprintError
        self._functions.append((weakref.ref(function), parts))
        names = global_names(function.__code__)
        if is_found:
            names |= {function.__name__}
        for name in names:
            found = space.get(name, _MISSING)
            self._names.append((space, name, found))
            self._add(found)

    def _add_partial(self, partial: functools.partial[Any]) -> None:
        func, *values = parts = _parts_of(partial)
        given = [*partial.args, *values[1:]]
        if partial.__dict__ or not ATOMIC_TYPES.issuperset(map(type, given)):
            raise _NoFootprintError
        self._functions.append((weakref.ref(partial), parts))
        self._add(func)


def footprint_of(func: Callable[..., Any]) -> Footprint | None:
    """Return the footprint of *func*; `None` if it has none."""
    try:
        return Footprint(func)
    except (_NoFootprintError, TypeError):  # a function without weak references
        return None


def _parts_of(function: Any) -> tuple[Any, ...]:
    """Return what *function* consists of: atomic values and objects that do not change."""
    if type(function) is functools.partial:
        keywords = function.keywords
        return (function.func, function.args, *keywords, *keywords.values())
    return (
        function.__code__,
        function.__defaults__,
        function.__kwdefaults__,
        function.__name__,
        function.__qualname__,
        function.__doc__,
        len(function.__dict__),  # of a function with attributes there is no footprint
        getattr(function, "__annotate__", None),
        *(_contents_of(function.__closure__ or ())),
    )


def _contents_of(cells: tuple[types.CellType, ...]) -> Iterator[Any]:
    for cell in cells:
        try:
            yield cell.cell_contents
        except ValueError:
            yield _MISSING


def _is_same(parts: tuple[Any, ...], known: tuple[Any, ...]) -> bool:
    return len(parts) == len(known) and all(map(operator.is_, parts, known))


def _can_be_compared(function: types.FunctionType) -> bool:
    values = [*(function.__defaults__ or ()), *_contents_of(function.__closure__ or ())]
    return (
        ATOMIC_TYPES.issuperset(map(type, values))
        and not function.__kwdefaults__
        and not _has_annotations(function)
    )


def _has_annotations(function: types.FunctionType) -> bool:
    """Return whether *function* has annotations that may be of the program's own classes."""
    if (annotate := getattr(function, "__annotate__", None)) is not None:
        if type(annotate) is not types.FunctionType:
            return True
        code, space = annotate.__code__, annotate.__globals__
        return bool(code.co_freevars) or any(
            not _is_fixed(space[name]) for name in global_names(code) if name in space
        )
    return not all(map(_is_fixed, function.__annotations__.values()))


def _is_fixed(value: Any) -> bool:
    """Return whether *value* is the same object for the whole program, and never changes."""
    kind = type(value)
    if kind is types.BuiltinFunctionType:
        owner = value.__self__
        return owner is None or (type(owner) is types.ModuleType and not is_of_user(owner.__name__))
    if kind is types.ModuleType:
        return not is_of_user(value.__name__)
    if kind is type:
        return is_built_in(value) or (
            not is_of_user(value.__module__) and find_path(value) is not None
        )
    return value is None


@functools.lru_cache(maxsize=256)
def _may_change(code: types.CodeType) -> bool:
    """Return whether *code* may change functions or globals, or read more than its names say."""
    if not REACHES_FUNCTIONS.isdisjoint(words_in(code)):
        return True
    for one in codes_in(code):
        for step in dis.get_instructions(one):
            if step.opname in CHANGES:
                return True
            if step.opname in CHANGES_CELLS and step.argval in code.co_freevars:
                return True
    return False
