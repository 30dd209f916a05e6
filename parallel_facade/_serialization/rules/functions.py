"""Functions by value: the code, the globals and cells that it uses, and its attributes.

A function is rebuilt in two steps, so that it can refer to itself directly, through a cell or
through another function: first an empty function that everything may refer to, then its contents.

    (new_function, (code, …, cells), (globals, cell contents, attributes), fill_function)

A function of the script gets new globals for each call (see `call_globals`). A function of a
module that the worker can import, such as a lambda in it, gets the globals of the worker's module.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, NamedTuple

from parallel_facade._serialization.modules.apply_changes import ModuleChanges, apply_changes
from parallel_facade._serialization.modules.call_globals import space_module
from parallel_facade._serialization.modules.code_names import (
    VALUE,
    global_names,
    names_in_annotations,
    names_in_main,
    names_in_texts,
    names_used,
    words_in,
)
from parallel_facade._serialization.modules.collect_changes import ChangeCollector
from parallel_facade._serialization.modules.importable import is_importable_name
from parallel_facade._serialization.modules.script_globals import fill_script, replaced_in
from parallel_facade._serialization.rules.builtin_values import resolved

HEADER_NAMES: Final = ("__name__", "__package__", "__file__")
MODULE_NAMES: Final = frozenset({"__builtins__", "__loader__", "__spec__", "__name__", "__doc__"})
ATTRIBUTES: Final = (
    "__defaults__",
    "__kwdefaults__",
    "__doc__",
    "__module__",
    "__qualname__",
    "__type_params__",
)

CLASS_NAMESPACE: Final = "__classdict__"
"""The cell through which annotations and type variables' bounds see the namespace of a class."""


def reduce_function(
    function: types.FunctionType, call_id: str, collector: ChangeCollector | None
) -> tuple[Any, ...]:
    """Return how to rebuild *function* in the call *call_id*."""
    state = function_state(function, call_id, collector)
    return (*reduce_skeleton(function, call_id), state, None, None, fill_function)


def reduce_skeleton(function: types.FunctionType, call_id: str) -> tuple[Any, ...]:
    """Return how to make *function* without contents, which `function_state` returns."""
    key, header = address_of(function.__globals__)
    cells = function.__closure__ or ()
    return new_function, (function.__code__, call_id, key, header, function.__name__, cells)


def address_of(space: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the key and header by which `home` finds the replacement for the globals *space*."""
    header: dict[str, Any] = {name: space[name] for name in HEADER_NAMES if name in space}
    return "" if is_of_module(space) else key_of(space), header


def key_of(space: dict[str, Any]) -> str:
    """Return the key of the globals *space* in a call."""
    return f"{space.get('__name__')}:{id(space):x}"


def is_of_module(space: dict[str, Any]) -> bool:
    """Return whether the globals *space* are those of a module that a worker can import."""
    name = space.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return module is not None and vars(module) is space and is_importable_name(str(name))


def new_function(  # noqa: PLR0917 - pickle passes arguments by position
    code: types.CodeType,
    call_id: str,
    key: str,
    header: dict[str, Any],
    name: str,
    cells: tuple[types.CellType, ...],
) -> types.FunctionType:
    """Return a function without contents, for `fill_function`."""
    return types.FunctionType(code, vars(home(call_id, key, header)), name, None, cells or None)


def home(call_id: str, key: str, header: dict[str, Any]) -> types.ModuleType:
    """Return the module whose globals a function uses; `address_of` returns its address."""
    if not key:
        # If it cannot be imported after all, its functions share a replacement module.
        with suppress(Exception):
            return import_module(header["__name__"])
    return space_module(call_id, key or header["__name__"], header)


class State(NamedTuple):
    """The contents of a function.

    Attributes:
        call_id: The call's id.
        changes: The state of the user's modules that it reads.
        values: The globals of the script that it uses.
        submodules: Modules that it may reach as attributes of packages.
        subclasses: Classes that it may find as subclasses of the classes that it uses.
        contents: Its cells and their contents; of a class's namespace, the part that it uses.
        attributes: The attributes that every function has.
        members: The attributes that the user gave it.
        replaced: How often the script has replaced the mutable ones of its globals.
    """

    call_id: str
    changes: ModuleChanges
    values: dict[str, Any]
    submodules: list[str]
    subclasses: list[type]
    contents: list[tuple[types.CellType, Any]]
    attributes: dict[str, Any]
    members: dict[str, Any]
    replaced: dict[str, int]


def function_state(
    function: types.FunctionType, call_id: str, collector: ChangeCollector | None
) -> tuple[Any, ...]:
    """Return the contents of *function*, for `fill_function`."""
    code, space = function.__code__, function.__globals__
    attributes = {name: getattr(function, name) for name in ATTRIBUTES if hasattr(function, name)}
    annotations, names_in_hints = _annotations_of(function)
    names = global_names(code) | (names_in_main(code) - MODULE_NAMES)
    reads = {name: resolved(space[name]) for name in sorted(names) if name in space}
    reads |= types_among(names_in_hints, space)
    contents = list(_sent_cells(function))
    within_reach = [*reads.values(), *(value for _, value in contents)]
    changes = ModuleChanges.none()
    in_module = is_of_module(space)
    if collector is not None:
        if in_module:
            collector.note_globals(function, reads, changes)
        collector.note_modules(within_reach, code, changes)
    return tuple(
        State(
            call_id,
            changes,
            {} if in_module else reads,
            list(_submodules(code, within_reach)),
            list(_subclasses(code, within_reach)),
            contents,
            attributes | annotations,
            function.__dict__,
            {} if in_module else replaced_in(space, reads),
        )
    )


def fill_function(function: types.FunctionType, state: tuple[Any, ...]) -> None:
    """Give *function* its contents."""
    contents = State(*state)
    for submodule in contents.submodules:
        with suppress(ImportError):
            import_module(submodule)
    apply_changes(contents.call_id, contents.changes)
    fill_script(function.__globals__, contents.values, contents.replaced)
    for cell, value in contents.contents:
        cell.cell_contents = value.joined(cell) if type(value) is NamespacePart else value
    for name, value in contents.attributes.items():
        setattr(function, name, value)
    function.__dict__.update(contents.members)


def _annotations_of(function: types.FunctionType) -> tuple[dict[str, Any], AbstractSet[str]]:
    """Return the attribute with *function*'s annotations, and the words in their texts."""
    # Not evaluated: that runs the user's code, and one undefined name would lose all of them.
    if (annotate := getattr(function, "__annotate__", None)) is not None:
        if (changed := changed_annotations(annotate, _evaluated(function))) is not None:
            return {"__annotations__": changed}, names_in_annotations(changed)
        return {"__annotate__": annotate}, names_in_annotate(annotate)
    if not (annotations := function.__annotations__):
        return {}, frozenset()
    return {"__annotations__": annotations}, names_in_annotations(annotations)


def _evaluated(function: types.FunctionType) -> dict[str, Any] | None:
    """Return *function*'s annotations if they were evaluated already; else `None`."""
    # There is no other way to get them without evaluating them.
    others = ("__globals__", "__builtins__", "__kwdefaults__", "__dict__")
    known = [id(getattr(function, name)) for name in others]
    found = (one for one in gc.get_referents(function) if type(one) is dict)
    return next((one for one in found if id(one) not in known), None)


def changed_annotations(annotate: Any, evaluated: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return *evaluated* if it differs from what *annotate* returns: decorators may change it."""
    if evaluated is None:
        return None
    try:
        is_same = annotate(VALUE) == evaluated  # it ran already, so it may run once more
    except Exception:
        is_same = False
    return None if is_same else evaluated


def names_in_annotate(annotate: Any) -> frozenset[str]:
    """Return the words in the texts of the annotations that *annotate* may return."""
    if not isinstance(annotate, types.FunctionType):
        return frozenset()
    found = set(names_in_texts(annotate.__code__))
    # `dataclasses` and `typing` make functions that wrap annotations or another __annotate__.
    for name, _, value in _full_cells(annotate):
        if name != CLASS_NAMESPACE and type(value) is dict:
            found |= names_in_annotations(value)
        elif getattr(value, "__name__", "") == "__annotate__" and value is not annotate:
            found |= names_in_annotate(value)
    return frozenset(found)


def types_among(names: Iterable[str], space: dict[str, Any]) -> dict[str, Any]:
    """Return the objects of *space* under *names* that annotations consist of, not script data."""
    found = {name: space.get(name) for name in names}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, TYPE_KINDS) or type(value).__module__ == "typing"
    }


TYPE_KINDS: Final = (type, types.ModuleType, types.GenericAlias, types.UnionType)
"""Kinds of objects that annotations consist of, besides those of `typing`."""


class NamespacePart(dict[str, Any]):
    """The part of a class's namespace that one function uses; functions share its cell."""

    def joined(self, cell: types.CellType) -> dict[str, Any]:
        """Return this part, merged with the parts that other functions have put into *cell*."""
        with suppress(ValueError):
            return {**cell.cell_contents, **self}
        return dict(self)


def _sent_cells(function: types.FunctionType) -> Iterator[tuple[types.CellType, Any]]:
    """Yield the cells of *function*, each with the contents to send."""
    for name, cell, value in _full_cells(function):
        if name == CLASS_NAMESPACE:
            # The whole namespace is the class itself, including data that cannot travel.
            used = names_used(function.__code__)
            part = NamespacePart((one, value[one]) for one in sorted(used) if one in value)
            yield cell, part
        else:
            yield cell, value


def _full_cells(function: types.FunctionType) -> Iterator[tuple[str, types.CellType, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # an empty cell has no contents, and stays empty
            yield name, cell, cell.cell_contents


def _submodules(code: types.CodeType, values: list[Any]) -> Iterator[str]:
    """Yield the loaded submodules that *code* may reach as attributes of a package it uses."""
    packages = {
        value.__name__
        for value in values
        if type(value) is types.ModuleType and hasattr(value, "__path__")
    }
    if not packages:
        return
    words = words_in(code)
    for name in list(sys.modules):
        package, _, rest = name.partition(".")
        if rest and package in packages and words.issuperset(rest.split(".")):
            yield name


def _subclasses(code: types.CodeType, values: list[Any]) -> Iterator[type]:
    """Yield the subclasses of the classes among *values*, if *code* asks for subclasses."""
    if "__subclasses__" in words_in(code):
        stack = [value for value in values if isinstance(value, type) and value is not type]
        while stack:
            below: list[type] = type.__subclasses__(stack.pop())
            stack += below
            yield from below


def new_cell() -> types.CellType:
    """Return an empty cell; the functions that close over it fill it."""
    return types.CellType()


def fill_cell(cell: types.CellType, contents: tuple[Any]) -> None:
    """Give its contents to a cell that travels on its own."""
    (cell.cell_contents,) = contents


def reduce_lru_cache(wrapper: Any) -> tuple[Any, ...]:
    """Return how to rebuild a function wrapped by `functools.lru_cache`, with an empty cache."""
    parameters = wrapper.cache_parameters()
    members = {key: value for key, value in vars(wrapper).items() if key != "__wrapped__"}
    return new_lru_cache, (wrapper.__wrapped__, parameters["maxsize"], parameters["typed"], members)


def new_lru_cache(
    function: Callable[..., Any], maxsize: int | None, typed: bool, members: dict[str, Any]
) -> Any:
    """Return *function* wrapped by `functools.lru_cache`."""
    wrapper = functools.lru_cache(maxsize=maxsize, typed=typed)(function)
    vars(wrapper).update(members)
    return wrapper
