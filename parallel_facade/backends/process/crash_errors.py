"""Errors that explain why workers died."""

from __future__ import annotations

import signal
from typing import Final

from parallel_facade._common.task_errors import WorkerCrashedError
from parallel_facade.backends.process.starting.exit_codes import exit_reason

START_ATTEMPTS: Final = 3
"""Workers in a row that may die before they serve; the next one would most likely die as well."""


def crash_error(code: int | None) -> WorkerCrashedError:
    """Return the error for a task whose worker exited with exit code *code*."""
    hint = ""
    if code is not None and -code == getattr(signal, "SIGKILL", None):
        hint = (
            "\n\nHint: if nobody killed it, the system did because memory ran out; "
            "use fewer workers or smaller chunks."
        )
    return WorkerCrashedError(f"a worker died ({exit_reason(code)}){hint}", exitcode=code)


def start_error(reason: str, code: int | None, stderr: str) -> WorkerCrashedError:
    """Return the error for workers that die before they serve, or cannot be started at all.

    Args:
        reason: Why the last worker died.
        code: Its exit code.
        stderr: What it wrote to stderr, if that was captured.
    """
    hint = (
        f"The last one wrote to stderr:\n\n{stderr}"
        if stderr
        else "Hint: their errors are on stderr."
    )
    return WorkerCrashedError(
        f"{START_ATTEMPTS} workers in a row died while they started ({reason})\n\n{hint}",
        exitcode=code,
    )


def garbage_error(what: str) -> WorkerCrashedError:
    """Return the error for a task whose worker sent an answer that cannot be read."""
    return WorkerCrashedError(
        f"a worker was killed because its answer cannot be read: {what}\n\n"
        "Hint: its result is too large for this process, or a task writes to a file descriptor "
        "that is not its own.",
        exitcode=None,
    )


class InitializerError(Exception):
    """An initializer raised; *report* holds the exception, which the caller's thread decodes."""

    def __init__(self, report: bytes) -> None:
        super().__init__(report)
        self.report = report
