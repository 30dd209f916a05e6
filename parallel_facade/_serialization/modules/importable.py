"""Decide whether a worker can find a module, function or class by its name alone.

Guarantees:
    - A name is trusted only if an import in a new process would find the current object. So it is
      not trusted for a module that was made at run time, was loaded from a place where the import
      system does not look, or has lost its file; nor for an object that was replaced after a
      worker may have imported it (`replaced`).
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import types
from contextlib import suppress
from importlib import import_module
from importlib.machinery import PathFinder
from typing import Any, Final

from parallel_facade._serialization.modules.code_names import mangle
from parallel_facade._serialization.modules.ownership import is_of_user
from parallel_facade._serialization.modules.replaced import (
    is_marked_changed,
    was_recoded,
    was_replaced,
)

NEVER_IMPORTED: Final = frozenset({"__main__", "__mp_main__"})
"""A worker does not import the user's main module: that would run the script again."""


def is_importable(obj: Any) -> bool:
    """Return whether importing *obj*'s module and following its qualified name leads to *obj*."""
    return find_path(obj) is not None


def find_path(obj: Any) -> tuple[str, str] | None:
    """Return the module and the dotted path under which a worker finds *obj*, or `None`."""
    module_name = getattr(obj, "__module__", None)
    qualname = getattr(obj, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(qualname, str):
        return None
    # Use the name that a worker would use: Python 3.11 calls its module _io "io".
    if not is_importable_name(module_name):
        return _find_elsewhere(obj)
    module = sys.modules[module_name]
    path = _follow(module, qualname.split("."), obj) or _other_name(module, obj)
    if path is None:
        return _find_elsewhere(obj)
    if was_replaced(module, path.split(".")[0]):
        return None
    is_method = type(obj) is types.FunctionType and "." in path and is_of_user(module_name)
    if is_method and was_recoded(module_name, path, obj):
        return None
    return None if is_marked_changed(module_name, path) else (module_name, path)


def _find_elsewhere(cls: Any) -> tuple[str, str] | None:
    """Return where a worker finds a class whose `__module__` is not its module, or `None`.

    Some packages set it (pytest's `Skipped` says "builtins"), and classes written in C may say
    "_wrappers" for "wrapt._wrappers".
    """
    if not isinstance(cls, type):
        return None
    for name in _modules_behind(cls):
        if name == cls.__module__ or not is_importable_name(name):
            continue
        if path := _follow(sys.modules[name], cls.__qualname__.split("."), cls):
            return name, path
    return None


def _modules_behind(cls: type) -> set[str]:
    """Return the modules that *cls* may be defined in, by its methods, or by what it says."""
    methods = [value for value in vars(cls).values() if type(value) is types.FunctionType]
    names = {str(method.__globals__.get("__name__")) for method in methods}
    names.update(base.__module__ for base in cls.__bases__)
    if not methods and cls.__module__ not in sys.modules:
        names.update(name for name in list(sys.modules) if name.endswith(f".{cls.__module__}"))
    return names


def is_importable_module(module: types.ModuleType) -> bool:
    """Return whether a worker can import *module* by its name."""
    name = str(getattr(module, "__name__", None))
    return sys.modules.get(name) is module and is_importable_name(name)


class _Memo(threading.local):
    """One thread's answers about modules, kept while it encodes one payload."""

    answers: dict[str, bool] | None = None
    by_value: tuple[str, ...] = ()


_memo = _Memo()


def remember_answers(answers: dict[str, bool] | None) -> dict[str, bool] | None:
    """Check each module only once, and keep the results in *answers*; return the previous ones.

    A payload needs the same few modules again and again, and each check uses the file system.

    Args:
        answers: Where to keep the results; `None` to check each time.
    """
    before, _memo.answers = _memo.answers, answers
    return before


def send_by_value(names: tuple[str, ...]) -> tuple[str, ...]:
    """Assume that workers lack the modules and packages *names*; return the previous names."""
    before, _memo.by_value = _memo.by_value, names
    return before


def _is_by_value(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in _memo.by_value)


def is_importable_name(name: str) -> bool:
    """Return whether a worker can import the loaded module called *name*."""
    if (answers := _memo.answers) is None:
        return _is_importable_now(name)
    if (answer := answers.get(name)) is None:
        answer = _is_importable_now(name)
        if name in sys.modules:  # else a `__reduce__` may import it in the middle of the payload
            answers[name] = answer
    return answer


def _is_importable_now(name: str) -> bool:
    if name in NEVER_IMPORTED or _is_by_value(name):
        return False
    # Modules made at run time have no spec, or a spec without a place to load from.
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if spec is None or getattr(spec, "_initializing", False):
        return False
    if spec.origin is None:
        return spec.submodule_search_locations is not None
    if not is_of_user(name) or spec.origin in {"built-in", "frozen"}:
        return True
    origin = _absolute(spec.origin)
    return _is_found(name, origin, _path_for(name)) and _exists(origin)


@functools.lru_cache(maxsize=4096)
def _is_found(name: str, origin: str, path: tuple[str, ...]) -> bool:
    """Return whether the import system finds *name* at *origin*, and not elsewhere."""
    # PathFinder last: others, such as those of editable installations, have their own places.
    for finder in sorted(sys.meta_path, key=lambda finder: finder is PathFinder):
        with suppress(Exception):
            spec = finder.find_spec(name, list(path))
            if spec is not None and spec.origin is not None:
                return os.path.abspath(spec.origin) == origin
    return False


def _exists(file: str) -> bool:
    """Return whether *file* exists, perhaps inside an archive."""
    return os.path.exists(file) or os.path.isfile(os.path.dirname(file))


def _path_for(name: str) -> tuple[str, ...]:
    """Return where the import system looks for *name*."""
    package, _, _ = name.rpartition(".")
    if package:
        return tuple(getattr(sys.modules.get(package), "__path__", ()))
    return tuple(map(_absolute, sys.path))


def _absolute(path: str) -> str:
    """Return *path* as the slow `os.path.abspath` does, but cached: each call needs it."""
    return _normalized(path) or os.path.abspath(path)


@functools.lru_cache(maxsize=4096)
def _normalized(path: str) -> str:
    """Return an absolute *path* normalized; else an empty text: it depends on the folder."""
    return os.path.normpath(path) if os.path.isabs(path) else ""


def _other_name(module: types.ModuleType, cls: Any) -> str | None:
    """Return the name of the global of *module* that holds the class *cls* under another name."""
    if not isinstance(cls, type):
        return None
    return next((name for name, value in list(vars(module).items()) if value is cls), None)


def _follow(module: types.ModuleType, names: list[str], target: Any) -> str | None:
    found: Any = module
    path = []
    for name in names:
        if isinstance(found, type):
            # The attribute of a private method contains the class's name; its qualname does not.
            name = mangle(name, found)  # noqa: PLW2901
        try:
            found = getattr(found, name)
        except AttributeError:
            return None
        path.append(name)
    return ".".join(path) if found is target else None


def object_at(module: str, path: str) -> Any:
    """Return the object at the dotted *path* of *module*."""
    return functools.reduce(getattr, path.split("."), import_module(module))
