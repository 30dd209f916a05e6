"""Functions by value: the code, the globals and cells that it uses, and its attributes.

A function is rebuilt in two steps, so that it can refer to itself, directly, through a cell or
through another function: first an empty function that everything may point to, then its contents.

    (new_function, (code, …, cells), (globals, cell contents, attributes), fill_function)
"""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

from parallel_facade._namespaces import fill, namespace

GLOBAL_OPERATIONS: Final = frozenset(
    {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
)
HEADER_NAMES: Final = ("__name__", "__package__", "__file__")
ATTRIBUTES: Final = (
    "__defaults__",
    "__kwdefaults__",
    "__doc__",
    "__module__",
    "__qualname__",
    "__type_params__",
)


def reduce_function(function: types.FunctionType, scope: str) -> tuple[Any, ...]:
    """Return how to rebuild *function* in the call *scope*."""
    return (*reduce_shell(function, scope), function_state(function), None, None, fill_function)


def reduce_shell(function: types.FunctionType, scope: str) -> tuple[Any, ...]:
    """Return how to make *function* without contents, which `function_state` has."""
    space = function.__globals__
    header = {name: space[name] for name in HEADER_NAMES if name in space}
    key = f"{header.get('__name__')}:{id(space):x}"
    cells = function.__closure__ or ()
    return new_function, (function.__code__, scope, key, header, function.__name__, cells)


def new_function(  # noqa: PLR0917 - pickle passes arguments by position
    code: types.CodeType,
    scope: str,
    key: str,
    header: dict[str, Any],
    name: str,
    cells: tuple[types.CellType, ...],
) -> types.FunctionType:
    """Return a function without contents, for `fill_function`."""
    return types.FunctionType(code, namespace(scope, key, header), name, None, cells or None)


def fill_function(function: types.FunctionType, state: tuple[Any, ...]) -> None:
    """Give *function* its contents."""
    values, submodules, contents, attributes, members = state
    for submodule in submodules:
        import_module(submodule)
    fill(function.__globals__, values)
    for cell, value in contents:
        cell.cell_contents = value
    for name, value in attributes.items():
        setattr(function, name, value)
    function.__dict__.update(members)


def new_cell() -> types.CellType:
    """Return an empty cell; the functions that close over it fill it."""
    return types.CellType()


def fill_cell(cell: types.CellType, contents: tuple[Any]) -> None:
    """Give a cell that travels on its own its contents."""
    (cell.cell_contents,) = contents


def function_state(function: types.FunctionType) -> tuple[Any, ...]:
    """Return the contents of *function*, for `fill_function`."""
    space = function.__globals__
    names = global_names(function.__code__)
    values = {name: space[name] for name in sorted(names) if name in space}
    attributes = {name: getattr(function, name) for name in ATTRIBUTES if hasattr(function, name)}
    with suppress(Exception):  # from Python 3.14 on, asking for them runs the user's code
        attributes["__annotations__"] = function.__annotations__
    return (
        values,
        list(_submodules(function.__code__, values)),
        list(_filled(function.__closure__ or ())),
        attributes,
        function.__dict__,
    )


def _filled(cells: tuple[types.CellType, ...]) -> Iterator[tuple[types.CellType, Any]]:
    for cell in cells:
        with suppress(ValueError):  # an empty cell has no contents, and stays empty
            yield cell, cell.cell_contents


@functools.lru_cache(maxsize=1024)
def global_names(code: types.CodeType) -> frozenset[str]:
    """Return the global names that *code*, or a code object inside it, reads or writes."""
    # dill.detect finds them by redirecting sys.stdout, which loses what other threads print.
    own = {step.argval for step in dis.get_instructions(code) if step.opname in GLOBAL_OPERATIONS}
    inner = [global_names(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    return frozenset(own).union(*inner)


def _submodules(code: types.CodeType, values: dict[str, Any]) -> Iterator[str]:
    """Yield the loaded submodules that *code* may reach as attributes of a package it uses."""
    packages = {
        value.__name__
        for value in values.values()
        if isinstance(value, types.ModuleType) and hasattr(value, "__path__")
    }
    if not packages:
        return
    words = _all_names(code)
    for name in list(sys.modules):
        package, _, rest = name.partition(".")
        if rest and package in packages and words.issuperset(rest.split(".")):
            yield name


def _all_names(code: types.CodeType) -> set[str]:
    inner = [_all_names(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*inner)


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
