"""Hooks for tests that inject faults into calls: the active faults, and their marker class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from parallel_facade._common.threads import ThreadVariable
from parallel_facade._common.worker_role import is_worker


class Planned:
    """Marks an error that replaces a fault in this process; it is retried as the fault would be."""


def is_retried(error: BaseException, retry_on: tuple[type[BaseException], ...]) -> bool:
    """Return whether *error* allows a retry: it is in *retry_on*, or replaces a fault."""
    return isinstance(error, (*retry_on, Planned))


_in_force: list[Any] = []
is_inside: Final = ThreadVariable("parallel_facade_faulty", False)
"""Whether this thread runs a task with faults; they do not apply to calls that the task makes."""


def put_in_force(faults: Any) -> Callable[[], None]:
    """Apply *faults* to all calls from now on; return a function that ends this."""
    _in_force.append(faults)
    return lambda: _in_force.remove(faults)


def faults_in_force() -> Any:
    """Return the faults to apply to a call; `None` in workers: the caller numbered the items."""
    is_task = is_worker() or is_inside.get()
    return _in_force[-1] if _in_force and not is_task else None
