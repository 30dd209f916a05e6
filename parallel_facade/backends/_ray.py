"""Workers of a Ray cluster.

    submit ─► ray task, never retried ─► worker ── "it runs, here" ──► Board, an actor
                     │ object                                            │
        future ◄─────┴───────────────────◄── reader ◄────────────────────┘

Ray waits for a host that was cut off for seven minutes. So tasks tell where they run, and are given
up when Ray's own health check, after some 20 seconds, says that the host is dead:

    1. host    is cut off; its tasks may run on, but nobody hears of it
    2. Ray     calls the host dead, and starts no tasks there
    3. watch   sees it, and fails the tasks that had told they run there

Ray has settings for keepalive pings, which would show it sooner. Set for the caller alone they do
harm: workers take so many pings for an attack, and close the connection.

Guarantees:
    - A task is started once: Ray's own retries are off.
    - A connection that the user has made to Ray stays as it is.

Assumes:
    - There is one connection to Ray in a process, which several back-ends share.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

import ray
from ray import exceptions as ray_errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from parallel_facade._errors import (
    BackendLostError,
    ConfigurationError,
    WorkerCrashedError,
    described,
)
from parallel_facade._far_side import run_remote
from parallel_facade._registry import BUILT_IN, LOCAL_WORD
from parallel_facade.backends import Capabilities, WorkerSettings
from parallel_facade.backends._probe import (
    QUESTION,
    check_reachable,
    check_worker,
    host_and_port,
    within,
)
from parallel_facade.backends._remote import EngineFuture, RemoteBackend

INIT_SECONDS: Final = 60.0
"""How long Ray may take to connect, or to start; it says what is wrong after some 20."""

PLACE: Final = BUILT_IN["ray"].address

_lock = threading.Lock()  # guards _users
_users = 0  # back-ends that use a connection which was made here


class RayBackend(RemoteBackend):
    """Run chunks in the workers of a Ray cluster.

    Args:
        settings: With the head's address, ``"auto"``, or ``"local"``.
    """

    capabilities = Capabilities(
        needs_serialization=True,
        survives_crashes=True,
        is_remote=True,
        can_stop_running_task=True,
        can_time_tasks=True,
        has_private_state=True,
        can_queue=True,
    )
    has_store = True
    seconds_in_chunk = 0.1  # a round trip is some 5 ms

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings)
        self._numbers = itertools.count()
        self._inner: dict[int, RayFuture] = {}
        self._board: Any = None
        self._is_own = _connect(settings)
        try:
            self._meet(settings)
        except BaseException:
            self._leave()
            raise

    def _meet(self, settings: WorkerSettings) -> None:
        """Wait for a worker, and see that it has what is needed."""
        if not self.find_workers(settings.start_timeout):
            raise self._no_workers()
        check_worker("a worker of Ray", lambda: ray.get(_asker().remote(QUESTION)))
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
        self._run = ray.remote(run_noted).options(max_retries=0, num_cpus=1)
        self._reader = threading.Thread(
            target=self._read, args=(self._board,), name="parallel_facade-board", daemon=True
        )
        self._reader.start()

    def count(self) -> int:
        self._look_at_hosts()
        return int(ray.cluster_resources().get("CPU", 0))

    def translate(self, error: BaseException) -> BaseException:
        """Return what happened to a worker or its host in the words of this library."""
        if isinstance(error, ray_errors.NodeDiedError):
            what = "the worker's host died, or cannot be reached"
        elif isinstance(error, ray_errors.OutOfMemoryError):
            what = "Ray ended the worker, since its host had too little memory"
        elif isinstance(error, LOST):
            what = "the worker died"
        else:
            return error
        crash = WorkerCrashedError(f"{what}: {described(error)}", exitcode=None)
        crash.__cause__ = error
        return crash

    # ── sending ───────────────────────────────────────────────────────────────────────────────

    def send(self, function_arguments: tuple[Any, ...]) -> Future[Any]:
        number = next(self._numbers)
        reference = self._run.remote(self._board, number, *function_arguments)
        inner = self._inner[number] = RayFuture(reference)
        reference.future().add_done_callback(lambda came: self._note_end(number, inner, came))
        return inner

    def store(self, data: Any) -> Any:
        return ray.put(data)

    def end(self, inner: Future[Any]) -> bool:
        assert isinstance(inner, RayFuture), "it was made by send"
        ray.cancel(inner.reference, force=True)
        return True

    # ── what comes back ───────────────────────────────────────────────────────────────────────

    def _note_end(self, number: int, inner: RayFuture, came: Future[Any]) -> None:
        self._inner.pop(number, None)
        if (error := came.exception()) is not None:
            inner.fail_with(error)
        else:
            inner.end_with(came.result())

    def _read(self, board: Any) -> None:
        """Take in what tasks tell, until the board is gone."""
        with suppress(ray_errors.RayError):
            while True:
                self._take_notes(ray.get(board.take.remote()))

    def _take_notes(self, notes: list[tuple[int, str]]) -> None:
        for number, host in notes:
            if (inner := self._inner.get(number)) is not None:
                inner.host = host
                inner.has_begun = True

    def _look_at_hosts(self) -> None:
        dead = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
        for inner in list(self._inner.values()):
            if inner.host in dead:
                inner.fail_with(ray_errors.NodeDiedError("Ray's health check calls it dead"))

    # ── the end ───────────────────────────────────────────────────────────────────────────────

    def close_engine(self) -> None:
        ray.kill(self._board)
        self._reader.join()
        self._leave()

    def _leave(self) -> None:
        if self._is_own:
            _disconnect()


LOST: Final = (
    ray_errors.WorkerCrashedError,
    ray_errors.ObjectLostError,
    ray_errors.LocalRayletDiedError,
    ray_errors.RaySystemError,
    ray_errors.NodeDiedError,
)
"""What Ray says of workers that are gone."""


class RayFuture(EngineFuture):
    """What stands for an object of Ray's.

    Args:
        reference: Ray's.
    """

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.reference = reference
        self.host: str | None = None
        """The id of the host where the task runs; `None` before it does."""


class Board:
    """Where tasks tell that they run; an actor of Ray's."""

    def __init__(self) -> None:
        self._notes: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def note(self, number: int, host: str) -> None:
        """Take in that task *number* runs on *host*."""
        await self._notes.put((number, host))

    async def take(self) -> list[tuple[int, str]]:
        """Return what was told and not taken, waiting for something."""
        notes = [await self._notes.get()]
        while not self._notes.empty():
            notes.append(self._notes.get_nowait())
        return notes


def run_noted(board: Any, number: int, *arguments: Any) -> Any:
    """Tell that the task runs, and run it; in a worker."""
    board.note.remote(number, ray.get_runtime_context().get_node_id())
    return run_remote(*arguments)


def _asker() -> Any:
    """Return a remote function that evaluates an expression, and needs no module to be there."""
    by_value = eval("lambda question: eval(question)", {"__name__": "__main__"})
    return ray.remote(by_value).options(num_cpus=0, max_retries=0)


def _connect(settings: WorkerSettings) -> bool:
    """Connect to Ray, unless this process is; return whether to end the connection, too."""
    global _users
    with _lock:
        if ray.is_initialized() and not _users:
            return False
        if not _users:
            _init(settings)
        _users += 1
    return True


def _disconnect() -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            ray.shutdown()


def _init(settings: WorkerSettings) -> None:
    address = settings.address
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": True}
    if address == LOCAL_WORD:
        more = {"num_cpus": settings.workers, "include_dashboard": False}
        ray.init(address=LOCAL_WORD, **more, **quiet)
        return
    if address != "auto":
        check_reachable(*host_and_port(address, PLACE), PLACE)
    try:
        within(INIT_SECONDS, lambda: ray.init(address=address, **quiet), "connecting to Ray")
    except BackendLostError:
        raise
    except RuntimeError as exc:
        if "ersion mismatch" in str(exc):
            raise ConfigurationError(
                f"the Ray cluster has other versions than this program: {exc}"
            ) from exc
        raise _not_connected(address, exc) from exc
    except Exception as exc:
        raise _not_connected(address, exc) from exc


def _not_connected(address: str, exc: Exception) -> BackendLostError:
    return BackendLostError(
        f"Ray at {address}, the address in {PLACE}, cannot be used: {described(exc)}\n\n"
        "Hint: a cluster with tokens needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here, too."
    )
