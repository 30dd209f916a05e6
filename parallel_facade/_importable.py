"""Whether a worker can find a module, function or class by its name alone.

Guarantees:
    - A name is only trusted if an import in a new process would lead to the object of now: not for
      modules made at run time, loaded from a place of their own, or whose file is gone, and not
      for what was replaced since a worker may have imported it.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import sysconfig
import threading
import types
import weakref
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import PathFinder
from typing import Any, Final

from parallel_facade._methods import mangle

NEVER_IMPORTED: Final = frozenset({"__main__", "__mp_main__"})
"""The user's main module is not imported in a worker: that would run the script again."""

OURSELVES: Final = "parallel_facade"
LIBRARIES: Final = ("stdlib", "platstdlib")

_told: set[tuple[str, str]] = set()  # modules and paths of what workers were given another of
_first_codes: dict[tuple[str, str], tuple[types.CodeType, ...]] = {}  # (module, path) → at sight
_first_seen: dict[str, dict[str, Callable[[], Any]]] = {}  # module → name → function or class


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
    path = _follow(module, qualname.split("."), obj) or _other_name(module, obj)
    if path is None or was_replaced(module, path.split(".")[0]):
        return None
    is_method = type(obj) is types.FunctionType and "." in path and is_of_user(module_name)
    if is_method and was_recoded(module_name, path, obj):
        return None
    return None if (module_name, path) in _told else (module_name, path)


def is_importable_module(module: types.ModuleType) -> bool:
    """Return whether a worker can import *module* by its name."""
    name = str(getattr(module, "__name__", None))
    return sys.modules.get(name) is module and is_importable_name(name)


class _Memo(threading.local):
    """What was answered to this thread about modules, while it is asked for one payload."""

    answers: dict[str, bool] | None = None
    by_value: tuple[str, ...] = ()


_memo = _Memo()


def remember_answers(answers: dict[str, bool] | None) -> dict[str, bool] | None:
    """Look at each module once, and keep what was seen in *answers*; return those before.

    A payload asks for the same few modules again and again, and each answer asks the file system.

    Args:
        answers: Where to keep them; `None` to look each time.
    """
    before, _memo.answers = _memo.answers, answers
    return before


def send_by_value(names: tuple[str, ...]) -> tuple[str, ...]:
    """Take no worker to have the modules and packages *names*; return those before."""
    before, _memo.by_value = _memo.by_value, names
    return before


def _is_by_value(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in _memo.by_value)


def is_importable_name(name: str) -> bool:
    """Return whether a worker can import the loaded module called *name*."""
    if (answers := _memo.answers) is None:
        return _is_importable_now(name)
    if (answer := answers.get(name)) is None:
        answer = answers[name] = _is_importable_now(name)
    return answer


def _is_importable_now(name: str) -> bool:
    if name in NEVER_IMPORTED or _is_by_value(name):
        return False
    # Modules made at run time have no spec, or one without a place to load from.
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if spec is None or getattr(spec, "_initializing", False):
        return False
    if spec.origin is None:
        return spec.submodule_search_locations is not None
    if not is_of_user(name) or spec.origin in {"built-in", "frozen"}:
        return True
    origin = _absolute(spec.origin)
    return _is_found(name, origin, _path_for(name)) and _exists(origin)


def is_ours(name: str) -> bool:
    """Return whether the module *name* is a part of this library."""
    return name.partition(".")[0] == OURSELVES


def is_of_user(name: str) -> bool:
    """Return whether the module *name* is loaded, and not Python's or an installed package's."""
    if is_ours(name):
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return isinstance(file, str) and _is_users_file(file)


@functools.lru_cache(maxsize=4096)
def _is_users_file(file: str) -> bool:
    return not (file.startswith(STANDARD) or INSTALLED.search(file))


STANDARD: Final = tuple(os.path.join(sysconfig.get_path(kind), "") for kind in LIBRARIES)
INSTALLED: Final = re.compile(r"[/\\](site|dist)-packages[/\\]")
"""Where the modules are that do not change while a program runs."""


def _nothing() -> None:
    """Stand for a reference to what is no longer the first."""


def tell(module: str, path: str) -> None:
    """Note that workers are given another object for the dotted *path* of *module*.

    When the first one is put back, its name leads to the other in workers that are warm.
    """
    _told.add((module, path))


def was_replaced(module: types.ModuleType, name: str) -> bool:
    """Return whether the function or class *name* of *module* is another than at first sight.

    Workers that imported the module before still have the one of then.
    """
    if not is_of_user(module.__name__):
        return False
    if (seen := _first_seen.get(module.__name__)) is None:
        seen = _first_seen.setdefault(module.__name__, _seen_in(module))
    value = vars(module).get(name)
    if name not in seen and not isinstance(value, types.FunctionType | type):
        return False
    if name not in seen or seen[name]() is not value or was_recoded(module.__name__, name, value):
        # For good: when it is put back, workers still have what replaced it.
        seen[name] = _nothing
        return True
    return False


def was_recoded(module: str, path: str, value: Any) -> bool:
    """Return whether the function at the dotted *path* of *module* has other code than at first.

    That is how IPython's autoreload brings new code into functions and methods that are there.
    """
    codes = _codes_in(value)
    return bool(codes) and _first_codes.setdefault((module, path), codes) != codes


def _codes_in(value: Any) -> tuple[types.CodeType, ...]:
    """Return the code of the functions that *value* is made of, and of those that they wrap."""
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
    """Return the function that the attribute *value* of a class is made of, or else *value*."""
    return _functions_in(value)[0]


def _functions_in(value: Any) -> list[Any]:
    # By its type: to ask a user's object for an attribute may run code of the user's.
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
    """Return the functions and classes of *module*, whose code is noted."""
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


@functools.lru_cache(maxsize=4096)
def _is_found(name: str, origin: str, path: tuple[str, ...]) -> bool:
    """Return whether the import system finds *name* at *origin*, and not elsewhere."""
    # PathFinder last: others, as those of editable installations, have their places beside it.
    for finder in sorted(sys.meta_path, key=lambda finder: finder is PathFinder):
        with suppress(Exception):
            spec = finder.find_spec(name, list(path))
            if spec is not None and spec.origin is not None:
                return os.path.abspath(spec.origin) == origin
    return False


def _exists(file: str) -> bool:
    """Return whether *file* is there, perhaps inside an archive."""
    return os.path.exists(file) or os.path.isfile(os.path.dirname(file))


def _path_for(name: str) -> tuple[str, ...]:
    """Return where the import system looks for *name*."""
    package, _, _ = name.rpartition(".")
    if package:
        return tuple(getattr(sys.modules.get(package), "__path__", ()))
    return tuple(map(_absolute, sys.path))


def _absolute(path: str) -> str:
    """Return *path* as `os.path.abspath` does, which takes long and is asked for in each call."""
    return _normalized(path) or os.path.abspath(path)


@functools.lru_cache(maxsize=4096)
def _normalized(path: str) -> str:
    """Return an absolute *path* without detours; of another, nothing: it depends on the folder."""
    return os.path.normpath(path) if os.path.isabs(path) else ""


def _other_name(module: types.ModuleType, cls: Any) -> str | None:
    """Return the global of *module* that is the class *cls*, which calls itself otherwise."""
    if not isinstance(cls, type):
        return None
    return next((name for name, value in list(vars(module).items()) if value is cls), None)


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
