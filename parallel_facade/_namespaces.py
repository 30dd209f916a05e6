"""The globals of functions that travelled by value: one dict per module and call.

    caller: f.__globals__ of __main__ ─┐
    caller: g.__globals__ of __main__ ─┴─► worker: one dict, shared by f and g, for this call

Guarantees:
    - Functions of one module share their globals, so a `global` statement in one is seen by all.
    - Each call starts from the caller's values of now: nothing stale is carried from call to call.
    - What `Pool(initializer=...)` set stays set for the worker's life, whatever the caller's value.
"""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_namespaces: dict[str, dict[str, dict[str, Any]]] = {}  # scope → key → globals
_pinned: dict[str, dict[str, Any]] = {}  # module name → what the initializer set in it


def namespace(scope: str, key: str, header: dict[str, Any]) -> dict[str, Any]:
    """Return the globals that the module known as *key* has in the call *scope*."""
    spaces = _namespaces.setdefault(scope, {})
    if (space := spaces.get(key)) is None:
        pinned = _pinned.get(str(header.get("__name__")), {})
        space = spaces[key] = {"__builtins__": builtins, **header, **pinned}
    return space


def fill(space: dict[str, Any], values: dict[str, Any]) -> None:
    """Add *values* that *space* has not; what the call's functions changed meanwhile stays."""
    for name, value in values.items():
        space.setdefault(name, value)


def forget(scope: str) -> None:
    """Drop the globals of a call that has ended."""
    _namespaces.pop(scope, None)


@contextmanager
def pinning(scope: str, module_name: str) -> Iterator[None]:
    """Keep for the worker's life what changes inside the block.

    Args:
        scope: The call whose functions' globals are watched.
        module_name: A module to watch as well, if it is imported: the initializer may live there,
            and set globals that a lambda of that module reads.
    """
    spaces = list(_namespaces.get(scope, {}).values())
    module = sys.modules.get(module_name)
    spaces += [] if module is None else [vars(module)]
    before = [dict(space) for space in spaces]
    yield
    for space, known in zip(spaces, before, strict=True):
        pinned = _pinned.setdefault(str(space.get("__name__")), {})
        pinned.update(
            (name, value)
            for name, value in space.items()
            if name not in known or known[name] is not value or _may_have_changed(value)
        )


def _may_have_changed(value: Any) -> bool:
    """Return whether *value*, which an initializer can reach, may hold what it put there."""
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
"""What keeps its value, or is brought up to date in place."""
