"""Whose a module is: this library's, an installed package's or Python's, or the user's."""

from __future__ import annotations

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
"""Where the modules are that do not change while a program runs."""


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
