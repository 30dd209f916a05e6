"""Set the folder for temporary files in a new Python process, before it imports anything.

When dill is imported, it asks `tempfile` for the folder. `tempfile` makes a file there, to check
that it may, and removes it. Without the setting:
    1. new process  imports dill, and makes that file
    2. caller       closes its pool, and kills the processes that have not started yet
    3. nobody       removes the file
"""

from __future__ import annotations

import os
import tempfile
import types
from collections.abc import Sequence
from typing import Any

from parallel_facade._common.dill_import import IMPORT_ANYWAY, has_temporary_folder


def code_of_command() -> str:
    """Return statements to run before all others."""
    if not has_temporary_folder():
        return IMPORT_ANYWAY
    return f"import tempfile; tempfile.tempdir = {tempfile.gettempdir()!r}; "


def with_code(command: Sequence[str | bytes]) -> list[str]:
    """Return *command*, which runs Python, with our statements before its own."""
    words = [os.fsdecode(word) for word in command]
    if "-c" not in words:  # a frozen program, which starts in its own way
        return words
    place = words.index("-c") + 1
    return [*words[:place], code_of_command() + words[place], *words[place + 1 :]]


def rebound(function: types.FunctionType, **names: Any) -> types.FunctionType:
    """Return a copy of *function* that finds *names* as globals; the original is unchanged."""
    space = {**function.__globals__, **names}
    copy = types.FunctionType(
        function.__code__, space, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
