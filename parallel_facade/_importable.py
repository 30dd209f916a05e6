"""Whether a worker can find a function or class by its name alone."""

from __future__ import annotations

import sys
import types
from typing import Any

from parallel_facade._methods import mangle

NEVER_IMPORTED = frozenset({"__main__", "__mp_main__"})
"""The user's main module is not imported in a worker: that would run the script again."""


def is_importable(obj: Any) -> bool:
    """Return whether importing *obj*'s module and following its qualified name leads to *obj*."""
    return find_path(obj) is not None


def find_path(obj: Any) -> tuple[str, str] | None:
    """Return the module and the dotted path under which a worker finds *obj*, if there is one."""
    module_name = getattr(obj, "__module__", None)
    qualname = getattr(obj, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(qualname, str):
        return None
    # By the name that a worker would use: Python 3.11 calls its module _io "io".
    if not is_importable_name(module_name):
        return None
    module = sys.modules[module_name]
    path = _follow(module, qualname.split("."), obj)
    return None if path is None else (module_name, path)


def is_importable_module(module: types.ModuleType) -> bool:
    """Return whether a worker can import *module* by its name."""
    name = str(getattr(module, "__name__", None))
    return sys.modules.get(name) is module and is_importable_name(name)


def is_importable_name(name: str) -> bool:
    """Return whether a worker can import the loaded module called *name*."""
    if name in NEVER_IMPORTED:
        return False
    # Modules made at run time have no spec, or one without a place to load from.
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec is not None and (
        spec.origin is not None or spec.submodule_search_locations is not None
    )


def _follow(module: types.ModuleType, names: list[str], target: Any) -> str | None:
    found: Any = module
    path = []
    for name in names:
        if isinstance(found, type):
            # The attribute of a private method carries the class's name; its qualname does not.
            name = mangle(name, found)  # noqa: PLW2901
        try:
            found = getattr(found, name)
        except AttributeError:
            return None
        path.append(name)
    return ".".join(path) if found is target else None
