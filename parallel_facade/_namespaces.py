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
from typing import Any

_namespaces: dict[str, dict[str, dict[str, Any]]] = {}  # scope → key → globals
_pinned: dict[str, dict[str, Any]] = {}  # key → what the initializer set


def namespace(scope: str, key: str, header: dict[str, Any]) -> dict[str, Any]:
    """Return the globals that the module known as *key* has in the call *scope*."""
    spaces = _namespaces.setdefault(scope, {})
    if (space := spaces.get(key)) is None:
        space = spaces[key] = {"__builtins__": builtins, **header, **_pinned.get(key, {})}
    return space


def fill(space: dict[str, Any], values: dict[str, Any]) -> None:
    """Add *values* that *space* has not; what the call's functions changed meanwhile stays."""
    for name, value in values.items():
        space.setdefault(name, value)


def forget(scope: str) -> None:
    """Drop the globals of a call that has ended."""
    _namespaces.pop(scope, None)


def pin_changes(scope: str, before: dict[str, dict[str, Any]]) -> None:
    """Keep for the worker's life what has changed in *scope* since *before* was taken."""
    for key, space in _namespaces.get(scope, {}).items():
        known = before.get(key, {})
        _pinned.setdefault(key, {}).update(
            {
                name: value
                for name, value in space.items()
                if name not in known or known[name] is not value
            }
        )


def snapshot(scope: str) -> dict[str, dict[str, Any]]:
    """Return a copy of every namespace of *scope*, for `pin_changes`."""
    return {key: dict(space) for key, space in _namespaces.get(scope, {}).items()}
