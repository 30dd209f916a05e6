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

from parallel_facade._common.errors import (
    ConfigurationError,
    TaskTimeoutError,
    WorkerCrashedError,
)
from parallel_facade._common.worker_role import is_worker
from parallel_facade._dispatch.call_hooks import Planned, is_inside
from parallel_facade._dispatch.call_options import check_positive
from parallel_facade._worker.run_chunk import FORMS, Call, name_of

CRASH: Final = "crash"
HANG: Final = "hang"
FAIL: Final = "fail"


class PlannedCrashError(Planned, WorkerCrashedError):
    """Stands for the end of a worker."""


class PlannedTimeoutError(Planned, TaskTimeoutError):
    """Stands for an item that runs for ever."""


class Fault(NamedTuple):
    """What shall happen.

    Attributes:
        kind: `CRASH`, `HANG` or `FAIL`.
        times: In how many attempts, from the first; `None` for in each.
        error: What to raise, if it is to fail.
    """

    kind: str
    times: int | None
    error: BaseException | None


class Faults:
    """Faults that the calls of a test shall meet.

    Args:
        folder: Where to note what has happened, for workers in other processes too; empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._planned: dict[int, Fault] = {}
        self._calls = itertools.count()

    def crash(self, item: int, times: int | None = 1) -> Self:
        """Have the worker die that runs *item*; in this process, raise `WorkerCrashedError`.

        Args:
            item: The index of the item in its map; of a single call, its place among those of the
                test.
            times: In how many attempts, from the first; `None` for in each.
        """
        return self._plan(item, Fault(CRASH, times, None))

    def hang(self, item: int, times: int | None = 1) -> Self:
        """Have *item* run for ever; in this process, raise `TaskTimeoutError`.

        Args:
            item: As for `crash`.
            times: As for `crash`.
        """
        return self._plan(item, Fault(HANG, times, None))

    def fail(self, item: int, error: BaseException, times: int | None = 1) -> Self:
        """Have *item* raise *error*.

        Args:
            item: As for `crash`.
            error: The exception.
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
        """Return the items with a fault that has not happened."""
        met = {int(file.name.partition("-")[0]) for file in self._folder.glob("*/*-*")}
        return sorted(self._planned.keys() - met)

    def into_map(self, call: Call, items: Iterator[Any]) -> tuple[Call, Iterator[Any]]:
        """Return *call* and *items* with what is planned for them."""
        faulty = Faulty(call.func, call.form, self._planned, self._folder / _fresh())
        return call._replace(func=faulty, form="one"), map(Numbered, enumerate(items))

    def into_call(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return *func* of a single call with what is planned for it."""
        return FaultyCall(
            Faulty(func, "call", self._planned, self._folder / _fresh()), next(self._calls)
        )


def _fresh() -> str:
    return os.urandom(8).hex()


class Numbered(tuple[int, Any]):
    """An item with its index, which looks like the item."""

    def __repr__(self) -> str:
        return repr(self[1])


class Faulty:
    """A callable that meets what is planned, and then does what it is for."""

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
        # Here it would be the test itself that dies, or hangs.
        where = "a worker thread" if is_worker() else "the caller's thread"
        if fault.kind == HANG:
            raise PlannedTimeoutError(f"item {index} was to run for ever, in {where}")
        raise PlannedCrashError(f"item {index} was to crash, in {where}", exitcode=None)


class FaultyCall:
    """A `Faulty` for a single call, as which it has a place."""

    def __init__(self, faulty: Faulty, place: int) -> None:
        self.__qualname__ = faulty.__qualname__
        self._faulty = faulty
        self._place = place

    def __call__(self, *args: Any, **kwds: Any) -> Any:
        return self._faulty((self._place, (args, kwds)))
