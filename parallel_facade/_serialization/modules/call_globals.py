"""Hold the globals of functions that travelled by value: per call, one module for the script.

    caller: f.__globals__ of __main__ ─┐
    caller: g.__globals__ of __main__ ─┴─► worker: one module, shared by f and g, for this call
    caller: h.__globals__ of helpers  ───► worker: its own import of helpers

Guarantees:
    - Functions of one module share their globals: all see what a `global` statement in one sets.
    - Each call starts with the caller's current values, but for names that a task has set while the
      caller's value did not change; see `script_globals`.
    - While a call runs, `__main__` is the module of its script: code that looks up names there
      (pickle, `typing.get_type_hints`, `import __main__`) finds the names that travelled.
    - Names that `Pool(initializer=...)` set keep their values for the worker's life, whatever the
      caller's values are.
"""

from __future__ import annotations

import builtins
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from parallel_facade._serialization.modules.script_globals import (
    MAIN,
    follow_script,
    leave_script,
)
from parallel_facade._serialization.modules.state import worker


def space_module(call_id: str, key: str, header: dict[str, Any]) -> types.ModuleType:
    """Return the module that represents the caller's module *key* in the call *call_id*."""
    spaces = worker.spaces.setdefault(call_id, {})
    if (module := spaces.get(key)) is None:
        name = str(header.get("__name__"))
        pinned = pinned_in(name)
        if name != MAIN:
            module = types.ModuleType(name)
        elif (module := spaces.get(MAIN)) is None:
            module = spaces[MAIN] = follow_script(call_id, pinned)
        vars(module).update({"__builtins__": builtins, **header, **pinned})
        spaces[key] = module
    return module


def expose_in_main(call_id: str, cls: type) -> None:
    """Expose *cls*, a class of the script, by its name in `__main__`."""
    if cls.__module__ == MAIN and "." not in cls.__qualname__:
        main = vars(space_module(call_id, MAIN, {"__name__": MAIN}))
        # Not as a global: the script may use this name for another object by now, for example
        # when a class was defined again and instances of the old class still exist.
        main.setdefault("__getattr__", _ExposedInMain()).classes[cls.__name__] = cls


class _ExposedInMain:
    """The `__getattr__` of a module, which finds classes that are not among its globals."""

    def __init__(self) -> None:
        self.classes: dict[str, type] = {}

    def __call__(self, name: str) -> type:
        if name not in self.classes:
            raise AttributeError(f"module '{MAIN}' has no attribute {name!r} in this worker")
        return self.classes[name]


def as_main(call_id: str) -> AbstractContextManager[None]:
    """Make `__main__` the script of the call *call_id* inside the block."""
    module = worker.spaces.get(call_id, {}).get(MAIN)
    return nullcontext() if module is None else _with_main(module)


@contextmanager
def _with_main(module: types.ModuleType) -> Iterator[None]:
    with _mains_lock:
        if not _mains:
            _mains.append(sys.modules.get(MAIN))
        _mains.append(module)
        sys.modules[MAIN] = module
    try:
        yield
    finally:
        with _mains_lock:
            # Not the module from before the block: threads of a worker leave in any order.
            del _mains[_last_key(module)]
            if (current := _mains[-1]) is not None:
                sys.modules[MAIN] = current
            if len(_mains) == 1:
                _mains.clear()


_mains: list[types.ModuleType | None] = []  # the process's own, and one for each running call
_mains_lock = threading.Lock()  # guards _mains


def _last_key(module: types.ModuleType) -> int:
    return max(place for place, one in enumerate(_mains) if one is module)


def forget(call_id: str) -> None:
    """Drop the globals of a call that has ended."""
    main = worker.spaces.pop(call_id, {}).get(MAIN)
    if main is not None:
        leave_script(main)


def pinned_in(module_name: str) -> dict[str, Any]:
    """Return the values that the initializer set in the module called *module_name*."""
    return worker.pinned_globals.get(module_name, {})


@contextmanager
def pinning(call_id: str, module_name: str) -> Iterator[None]:
    """Keep the globals that change inside the block for the worker's life.

    Args:
        call_id: The call; the globals of its functions are watched.
        module_name: A module to watch as well, if it is imported: the initializer may be defined
            there, and set globals that a lambda of that module reads.
    """
    modules = {id(module): module for module in worker.spaces.get(call_id, {}).values()}
    if (imported := sys.modules.get(module_name)) is not None:
        modules.setdefault(id(imported), imported)
    spaces = [vars(module) for module in modules.values()]
    before = [dict(space) for space in spaces]
    yield
    for space, known in zip(spaces, before, strict=True):
        pinned = worker.pinned_globals.setdefault(str(space.get("__name__")), {})
        pinned.update(
            (name, value)
            for name, value in space.items()
            if name not in known or known[name] is not value or _may_have_changed(value)
        )


def _may_have_changed(value: Any) -> bool:
    """Return whether *value*, which an initializer can reach, may hold data from it."""
    return not isinstance(value, UNCHANGING)


UNCHANGING: Final = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    tuple,
    frozenset,
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
)
"""Types of objects that keep their value, or that are updated in place."""
