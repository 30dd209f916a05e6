"""Describe the exit codes of worker processes in words."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Final

UNKNOWN_EXIT_CODE: Final = 256
"""The exit code of a process that other code has waited for; real codes are at most 255."""


def exit_reason(code: int | None) -> str:
    """Return an exit code in words.

    >>> exit_reason(3)
    'exit code 3'
    >>> exit_reason(-9)
    'SIGKILL'
    """
    if code is None or code == UNKNOWN_EXIT_CODE:
        return "exit code unknown"
    if code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
