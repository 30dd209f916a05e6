"""List the parts of an object, as the pickler of this library sees them.

Guarantees:
    - Only code that pickling also runs is run: `__reduce_ex__`, `__getstate__` and similar methods,
      but no property.
"""

from __future__ import annotations

import copyreg
import functools
import pickle
import types
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from parallel_facade._common.plain_data import PROTOCOL
from parallel_facade._serialization.modules.collect_changes import ChangeCollector
from parallel_facade._serialization.modules.importable import is_importable, is_importable_module
from parallel_facade._serialization.pickler import Reducer
from parallel_facade._serialization.reductions import MODULE_MACHINERY, goes_by_name
from parallel_facade._serialization.rules import classes as _classes
from parallel_facade._serialization.rules import functions as _functions
from parallel_facade._serialization.rules.exceptions import (
    args_of,
    contents_of,
    is_reduced_here,
    links_of,
)
from parallel_facade._serialization.rules.methods import find_definition

LEAF_TYPES: Final = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, range})
NEW: Final = frozenset({"__newobj__", "__newobj_ex__", "_reconstructor"})
"""Functions of `copyreg` that create an object from its class."""


class Label(NamedTuple):
    """How to reach a part from the object that contains it.

    Attributes:
        text: The step to the part, in the user's words or in Python's.
        is_place: Whether *text* alone says where the part is, without the path to its container.
    """

    text: str
    is_place: bool = False


Part = tuple[Label, Any]


def parts_of(obj: Any, reducer: Reducer | None) -> Iterator[Part]:
    """Yield the parts of *obj*; raise what pickling it raises.

    Args:
        obj: Any object.
        reducer: Decides how *obj* travels; `None` for pickle alone.
    """
    kind = type(obj)
    if kind in {list, tuple}:
        yield from _elements(obj)
    elif kind is dict:
        yield from _entries(obj)
    elif kind in {set, frozenset}:
        yield from ((Label(f".element({_shown(one)})"), one) for one in obj)
    elif kind is functools.partial:
        yield from _attributes(obj, "func", "args", "keywords")
    elif kind is types.MethodType:
        yield from _of_method(obj)
    elif reducer is not None and kind is types.FunctionType:
        yield from _of_changes(obj) if is_importable(obj) else _of_function(obj, reducer.call_id)
    elif reducer is not None and issubclass(kind, type):
        yield from () if goes_by_name(obj) else _of_class(obj)
    elif reducer is not None and kind is types.ModuleType:
        yield from () if is_importable_module(obj) else _of_module(obj)
    elif reducer is not None and kind is types.CellType:
        yield from _of_cell(obj)
    elif reducer is not None and issubclass(kind, BaseException) and is_reduced_here(kind):
        yield from _of_exception(obj)
    else:
        yield from _of_reduction(_reduction(obj, reducer))


def _elements(sequence: Any) -> Iterator[Part]:
    if not LEAF_TYPES.issuperset(map(type, sequence)):
        yield from ((Label(f"[{index}]"), one) for index, one in enumerate(sequence))


def _entries(mapping: dict[Any, Any]) -> Iterator[Part]:
    for key, value in list(mapping.items()):
        if type(key) not in LEAF_TYPES:
            yield Label(f".key({_shown(key)})"), key
        yield Label(f"[{_shown(key)}]"), value


def _attributes(obj: Any, *names: str) -> Iterator[Part]:
    for name in names:
        yield Label(f".{name}"), getattr(obj, name)


def _of_method(method: types.MethodType) -> Iterator[Part]:
    yield Label(".__self__"), method.__self__
    found = find_definition(method)
    yield (
        (Label(".__func__"), method.__func__) if found is None else (Label(".__class__"), found[0])
    )


def _of_function(function: types.FunctionType, call_id: str) -> Iterator[Part]:
    collector = ChangeCollector(lambda _: b"")
    state = _functions.State(*_functions.function_state(function, call_id, collector))
    name = function.__qualname__
    for variable, cell in zip(
        function.__code__.co_freevars, function.__closure__ or (), strict=True
    ):
        if any(cell is full for full, _ in state.contents):
            yield Label(f"closure cell {variable!r} of {name}", is_place=True), cell.cell_contents
    for values in (state.values, *state.changes.objects.values()):
        for variable, value in values.items():
            yield Label(f"global {variable!r}", is_place=True), value
    for attribute, value in {**state.attributes, **state.members}.items():
        yield Label(f".{attribute}"), value


def _of_changes(function: types.FunctionType) -> Iterator[Part]:
    """Yield the values that travel beside the name of *function*."""
    for (module, path), values in (
        ChangeCollector(lambda _: b"").changes_of(function).objects.items()
    ):
        where = f"{module}.{path}".rstrip(".")
        for name, value in values.items():
            yield Label(f"global {name!r} of {where}", is_place=True), value


def _of_class(cls: type) -> Iterator[Part]:
    for base in (*cls.__bases__, type(cls)):
        yield Label(f"class {base.__qualname__}", is_place=True), base
    for attributes in _classes.split(cls):
        for name, value in attributes.items():
            yield Label(f".{name}"), value


def _of_module(module: types.ModuleType) -> Iterator[Part]:
    for name, value in list(vars(module).items()):
        if name not in MODULE_MACHINERY:
            yield Label(f".{name}"), value


def _of_cell(cell: types.CellType) -> Iterator[Part]:
    try:
        yield Label(".cell_contents"), cell.cell_contents
    except ValueError:
        return


def _of_exception(error: BaseException) -> Iterator[Part]:
    yield Label(".args"), args_of(error)
    for name, value in contents_of(error).items():
        yield Label(f".{name}"), value
    for name, value in zip((".__cause__", ".__context__"), links_of(error)[:2], strict=True):
        yield Label(name), value


def _reduction(obj: Any, reducer: Reducer | None) -> Any:
    reduced = NotImplemented if reducer is None else reducer.reduce(obj)
    if reduced is not NotImplemented:
        return reduced
    registered = copyreg.dispatch_table.get(type(obj))
    return obj.__reduce_ex__(PROTOCOL) if registered is None else registered(obj)


def _of_reduction(reduced: Any) -> Iterator[Part]:
    if type(reduced) is str:
        return
    if type(reduced) is not tuple or not 2 <= len(reduced) <= 6:
        raise pickle.PicklingError(
            f"its __reduce__ must return a string or a tuple of two to six, not {_shown(reduced)}"
        )
    make, args, state, elements, entries, fill = [*reduced, None, None, None, None][:6]
    if not callable(make) or type(args) is not tuple:
        raise pickle.PicklingError(
            "its __reduce__ must begin with a callable and a tuple of arguments, "
            f"not {_shown(make)} and {_shown(args)}"
        )
    from_class = getattr(make, "__name__", "") in NEW
    yield Label(".__reduce__()[0]"), make
    for index, arg in enumerate(args):
        label = ".__class__" if from_class and index == 0 else f".__reduce__()[1][{index}]"
        yield Label(label), arg
    yield from _of_state(state)
    yield from _elements(list(elements)) if elements is not None else ()
    yield from _entries(dict(entries)) if entries is not None else ()
    if fill is not None:
        yield Label(".__reduce__()[5]"), fill


def _of_state(state: Any) -> Iterator[Part]:
    pair: tuple[Any, ...] = (state, None)
    if type(state) is tuple and len(state) == 2:
        pair = state
    if all(type(part) is dict or part is None for part in pair):
        for part in pair:
            for name, value in (part or {}).items():
                text = f".{name}" if type(name) is str else f".__getstate__()[{_shown(name)}]"
                yield Label(text), value
    else:
        yield Label(".__getstate__()"), state


def _shown(obj: Any) -> str:
    """Return a short text for *obj* without running the user's code."""
    if type(obj) not in LEAF_TYPES:
        return f"a {type(obj).__qualname__}"
    text = repr(obj)
    return text if len(text) <= 40 else f"{text[:36]} ..."
