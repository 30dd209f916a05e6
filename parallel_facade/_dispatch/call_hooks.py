"""Where tests of programs reach into calls: faults that are in force, and what stands for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from parallel_facade._common.threads import ThreadVariable
from parallel_facade._common.worker_role import is_worker


class Planned:
    """Marks what stands for a fault in this process; it is retried as the fault would be."""


def is_retried(error: BaseException, retry_on: tuple[type[BaseException], ...]) -> bool:
    """Return whether what raises *error* may be tried again: as the user said, or as a fault."""
    return isinstance(error, (*retry_on, Planned))


_in_force: list[Any] = []
is_inside: Final = ThreadVariable("parallel_facade_faulty", False)
"""Whether a task runs here; the maps that it makes are its own."""


def put_in_force(faults: Any) -> Callable[[], None]:
    """Have all calls meet *faults* from now on; return what ends that."""
    _in_force.append(faults)
    return lambda: _in_force.remove(faults)


def faults_in_force() -> Any:
    """Return what calls shall meet; nothing in workers, whose items the caller has numbered."""
    is_task = is_worker() or is_inside.get()
    return _in_force[-1] if _in_force and not is_task else None
