"""Explains a breakpoint in a worker process, which has no keyboard.

`pdb` reads the end of its input there and gives up: with `bdb.BdbQuit`, or from Python 3.14 on with
`SystemExit`, which would end the caller's program without a message.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

from parallel_facade._common.errors import ConfigurationError
from parallel_facade._common.worker_role import is_worker_process

DEBUGGERS: Final = frozenset({"pdb", "bdb", "cmd"})


def with_breakpoint_hint(error: BaseException) -> BaseException:
    """Return *error*, or an error that explains it if a task reached a breakpoint in a worker."""
    last = place = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
        if not _is_of_debugger(last):
            place = last
    if last is None or place is None or not _is_of_debugger(last) or not is_worker_process():
        return error
    translated = ConfigurationError(
        "a task reached a breakpoint in a worker process, which has no keyboard\n\n"
        "Hint: run the program with PARALLEL_FACADE_BACKEND=serial; there the debugger works."
    )
    alone = TracebackType(None, place.tb_frame, place.tb_lasti, place.tb_lineno)
    return translated.with_traceback(alone)


def _is_of_debugger(traceback: TracebackType) -> bool:
    return traceback.tb_frame.f_globals.get("__name__") in DEBUGGERS
