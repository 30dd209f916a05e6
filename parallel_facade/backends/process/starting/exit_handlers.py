"""Exit handlers of a worker that was forked: those of its own run, those of its parent do not.

Python runs no exit handler in a forked child of `multiprocess`. So a temporary folder that an
initializer has made would stay, and a profiler would write nothing.

Assumes:
    - `weakref.finalize` keeps its finalizers in `_registry`, and registers with `atexit` when the
      first one is made (true from 3.11 to 3.15).
"""

from __future__ import annotations

import atexit
import weakref
from typing import Any


def forget_inherited() -> None:
    """Forget what the parent has registered: its folders and files are not this process's."""
    atexit._clear()
    finalizers: Any = weakref.finalize
    finalizers._registry.clear()
    finalizers._registered_with_atexit = False


def run_own() -> None:
    """Run what was registered since, last first, as at the end of a program."""
    atexit._run_exitfuncs()
