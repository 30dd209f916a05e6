"""Decide who owns a module: this library, an installed package or Python, or the user."""

from __future__ import annotations

import builtins
import functools
import os
import re
import sys
import sysconfig
from typing import Final

OURSELVES: Final = "parallel_facade"
LIBRARIES: Final = ("stdlib", "platstdlib")
STANDARD: Final = tuple(os.path.join(sysconfig.get_path(kind), "") for kind in LIBRARIES)
INSTALLED: Final = re.compile(r"[/\\](site|dist)-packages[/\\]")
"""Paths of modules that do not change while a program runs."""


def is_ours(name: str) -> bool:
    """Return whether the module *name* is a part of this library."""
    return name.partition(".")[0] == OURSELVES


def is_of_user(name: str) -> bool:
    """Return whether the module *name* is loaded and not ours, Python's or a package's."""
    if is_ours(name):
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return isinstance(file, str) and _is_users_file(file)


@functools.lru_cache(maxsize=4096)
def _is_users_file(file: str) -> bool:
    return not (file.startswith(STANDARD) or INSTALLED.search(file))


HEAP_TYPE: Final = 1 << 9
"""Flag of classes that were made at run time (`Py_TPFLAGS_HEAPTYPE`)."""


def is_built_in(cls: type) -> bool:
    """Return whether *cls* is built in, and does not only say so: `exec` in a bare namespace."""
    return cls.__module__ == "builtins" and (
        not cls.__flags__ & HEAP_TYPE or getattr(builtins, cls.__name__, None) is cls
    )
