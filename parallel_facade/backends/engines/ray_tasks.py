"""Tasks of Ray on the caller's side, and the thread that reads their reports from the gate."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import ray
from ray import exceptions as ray_errors

from parallel_facade._common.threads import new_thread
from parallel_facade.backends.engines.ray_connection import RayConnection
from parallel_facade.backends.engines.ray_start_gate import Note
from parallel_facade.backends.engines.tasks import EngineFuture

MOST_SENDINGS: Final = 5
"""How often a task is sent if its workers die before it has begun."""


class RayFuture(EngineFuture):
    """The future of a task that Ray runs.

    Args:
        arguments: The arguments of the task.
    """

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.arguments = arguments
        self.number: int = -1
        """The number with which the task reports its start."""
        self.times_sent: int = 0
        """How often the task was sent, each time under another number."""
        self.death: BaseException | None = None
        """Ray's error about the death of the worker, if the task may not have begun."""
        self.is_ended: bool = False
        """Whether the caller has ended the task."""
        self.reference: Any = None
        """Ray's reference to the result."""
        self.host: str | None = None
        """The id of the host where the task runs; `None` until it is known."""

    @property
    def may_be_sent_again(self) -> bool:
        """Whether it may be sent again after its worker has died, if it had not begun."""
        return not self.has_begun and self.times_sent < MOST_SENDINGS


class GateReader:
    """Reads the reports of tasks, until the start gate has exited.

    Args:
        gate: The start gate.
        tasks: The tasks that have not ended, by number.
        connection: The reports end with it.
    """

    def __init__(self, gate: Any, tasks: dict[int, RayFuture], connection: RayConnection) -> None:
        self._gate = gate
        self._tasks = tasks
        self._connection = connection
        self._thread = new_thread(self._read, name="start gate")
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    def _read(self) -> None:
        with suppress(ray_errors.RayError):
            self._read_on()

    def _read_on(self) -> None:
        while self._connection.is_open:
            lowest = min(list(self._tasks), default=0)
            self._take_notes(ray.get(self._gate.take.remote(lowest)))

    def _take_notes(self, notes: list[Note]) -> None:
        for number, host, is_loading in notes:
            if (inner := self._tasks.get(number)) is not None:
                inner.host = host
                inner.is_loading = is_loading
                inner.has_begun = True
