"""Faults on request, for tests of programs that use this library.

items ──numbered──► Faulty(func) ──► in the worker: a fault, if one is planned for the item
                        │
                    folder: one file for each time that a fault has happened
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from parallel_facade._common.errors import ConfigurationError
from parallel_facade._common.task_errors import TaskTimeoutError, WorkerCrashedError
from parallel_facade._common.worker_role import is_worker
from parallel_facade._dispatch.call_hooks import Planned, is_inside
from parallel_facade._dispatch.call_options import check_positive
from parallel_facade._worker.run_chunk import FORMS, Call, name_of

CRASH: Final = "crash"
HANG: Final = "hang"
FAIL: Final = "fail"


class PlannedCrashError(Planned, WorkerCrashedError):
    """Stands for the death of a worker."""


class PlannedTimeoutError(Planned, TaskTimeoutError):
    """Stands for an item that never ends."""


class Fault(NamedTuple):
    """A planned fault.

    Attributes:
        kind: `CRASH`, `HANG` or `FAIL`.
        times: Number of attempts with the fault, from the first; `None` means every attempt.
        error: The exception to raise; `None` unless *kind* is `FAIL`.
    """

    kind: str
    times: int | None
    error: BaseException | None


class Faults:
    """The planned faults of the calls of a test.

    Args:
        folder: An empty folder in which all processes note the faults that have happened.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._planned: dict[int, Fault] = {}
        self._calls = itertools.count()

    def crash(self, item: int, times: int | None = 1) -> Self:
        """Kill the worker that runs *item*; in this process, raise `WorkerCrashedError`.

        Args:
            item: The index of the item in its map; for a single call, its position among the
                single calls of the test.
            times: Number of attempts with the fault, from the first; `None` means every attempt.
        """
        return self._plan(item, Fault(CRASH, times, None))

    def hang(self, item: int, times: int | None = 1) -> Self:
        """Make *item* run for ever; in this process, raise `TaskTimeoutError`.

        Args:
            item: As for `crash`.
            times: As for `crash`.
        """
        return self._plan(item, Fault(HANG, times, None))

    def fail(self, item: int, error: BaseException, times: int | None = 1) -> Self:
        """Make *item* raise *error*.

        Args:
            item: As for `crash`.
            error: The exception to raise.
            times: As for `crash`.
        """
        return self._plan(item, Fault(FAIL, times, error))

    def _plan(self, item: int, fault: Fault) -> Self:
        if not isinstance(item, int) or item < 0:
            raise ConfigurationError(f"item={item!r} is not valid; expected an index, 0 or more")
        check_positive("times", fault.times)
        if fault.kind == FAIL and not isinstance(fault.error, BaseException):
            raise ConfigurationError(f"error={fault.error!r} is not valid; expected an exception")
        self._planned[item] = fault
        return self

    def unmet(self) -> list[int]:
        """Return the items with a planned fault that has not happened."""
        met = {int(file.name.partition("-")[0]) for file in self._folder.glob("*/*-*")}
        return sorted(self._planned.keys() - met)

    def into_map(self, call: Call, items: Iterator[Any]) -> tuple[Call, Iterator[Any]]:
        """Return *call* and *items* with the faults that are planned for them."""
        faulty = Faulty(call.func, call.form, self._planned, self._folder / _fresh())
        return call._replace(func=faulty, form="one"), map(Numbered, enumerate(items))

    def into_call(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return *func* of a single call with the fault that is planned for it."""
        return FaultyCall(
            Faulty(func, "call", self._planned, self._folder / _fresh()), next(self._calls)
        )


def _fresh() -> str:
    return os.urandom(8).hex()


class Numbered(tuple[int, Any]):
    """An item with its index; its repr() is that of the item."""

    def __repr__(self) -> str:
        return repr(self[1])


class Faulty:
    """Calls *func*, but first triggers the fault that is planned for the item, if there is one."""

    def __init__(
        self, func: Callable[..., Any], form: str, planned: dict[int, Fault], noted: Path
    ) -> None:
        self.__qualname__ = name_of(func)
        self._func = func
        self._form = form
        self._planned = dict(planned)
        self._noted = noted
        self._pid = os.getpid()

    def __call__(self, numbered: tuple[int, Any]) -> Any:
        index, item = numbered
        if (fault := self._planned.get(index)) is not None and self._is_due(index, fault):
            self._happen(index, fault)
        token = is_inside.set(True)
        try:
            return FORMS[self._form](self._func)(item)
        finally:
            is_inside.reset(token)

    def _is_due(self, index: int, fault: Fault) -> bool:
        self._noted.mkdir(parents=True, exist_ok=True)
        happened = len(list(self._noted.glob(f"{index}-*")))
        if fault.times is not None and happened >= fault.times:
            return False
        (self._noted / f"{index}-{happened}").touch()
        return True

    def _happen(self, index: int, fault: Fault) -> None:
        if fault.error is not None:
            raise fault.error
        if os.getpid() != self._pid:
            if fault.kind == CRASH:
                os.kill(os.getpid(), signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
            threading.Event().wait()
        # In this process, the test itself would die or hang.
        where = "a worker thread" if is_worker() else "the caller's thread"
        if fault.kind == HANG:
            raise PlannedTimeoutError(f"item {index} was to run for ever, in {where}")
        raise PlannedCrashError(f"item {index} was to crash, in {where}", exitcode=None)


class FaultyCall:
    """A `Faulty` for a single call, which has a position among the single calls of the test."""

    def __init__(self, faulty: Faulty, place: int) -> None:
        self.__qualname__ = faulty.__qualname__
        self._faulty = faulty
        self._place = place

    def __call__(self, *args: Any, **kwds: Any) -> Any:
        return self._faulty((self._place, (args, kwds)))
