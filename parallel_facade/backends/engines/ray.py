"""Run calls in the workers of a Ray cluster.

    submit ─► ray task, never retried ─► worker ── "may I begin?" ──► StartGate, an actor
                     │ object                                            │
        future ◄─────┴───────────────────◄── reader ◄────────────────────┘

If a host is cut off, Ray waits for it for seven minutes, and Ray's own health check takes a minute.
So tasks report where they run, and are given up when their host does not answer:

    1. host        is cut off; its tasks may run on, but no report from them arrives
    2. supervisor  gets no answer from the host for 25 seconds, and fails the tasks that run there
    3. Ray         declares the host dead, half a minute later, and starts no tasks there

Ray has settings for keepalive pings, which would detect it sooner. Set for the caller alone, they
do harm: workers treat so many pings as an attack, and close the connection.

Guarantees:
    - A task is started once: Ray's own retries are off, and a task that died with its worker is
      sent again only if the start gate says that it has not begun.
    - A connection that the user has made to Ray is left alone. A connection that the user has ended
      is not made again: any function of Ray would do that, and start a cluster.

Assumes:
    - There is one connection to Ray in a process, which several back-ends share.
"""

from __future__ import annotations

import functools
import itertools
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

import ray
from ray import exceptions as ray_errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from parallel_facade._common.errors import BackendLostError, described
from parallel_facade._common.task_errors import WorkerCrashedError
from parallel_facade._worker.remote_entry import is_loaded, run_remote
from parallel_facade.backends.base import Capabilities, WorkerSettings
from parallel_facade.backends.engines.base import RemoteBackend
from parallel_facade.backends.engines.handshake import (
    QUESTION,
    check_worker,
)
from parallel_facade.backends.engines.ray_connection import RayConnection
from parallel_facade.backends.engines.ray_hosts import RayHosts
from parallel_facade.backends.engines.ray_start_gate import StartGate
from parallel_facade.backends.engines.ray_tasks import GateReader, RayFuture


class RayBackend(RemoteBackend):
    """Run chunks in the workers of a Ray cluster.

    Args:
        settings: Its `address` is the head's, ``"auto"``, or ``"local"``.
    """

    capabilities: Capabilities = Capabilities(
        needs_serialization=True,
        survives_crashes=True,
        is_remote=True,
        can_stop_running_task=True,
        can_time_tasks=True,
        has_private_state=True,
        can_queue=True,
    )
    has_store = True
    seconds_in_chunk: float = 0.1  # a round trip takes about 5 ms

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings)
        self._numbers = itertools.count()
        self._inner: dict[int, RayFuture] = {}
        self._gate: Any = None
        self._hosts = RayHosts()
        self._connection = RayConnection(settings)
        try:
            self._connect_to_workers(settings)
        except BaseException:
            self._connection.close()
            raise

    def _connect_to_workers(self, settings: WorkerSettings) -> None:
        """Wait for a worker, check its versions, and start the start gate with its reader."""
        if not self.find_workers(settings.start_timeout):
            raise self._no_workers()
        check_worker("a worker of Ray", lambda: ray.get(_asker().remote(QUESTION)))
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._gate = ray.remote(StartGate).options(num_cpus=0, scheduling_strategy=here).remote()
        self._run = ray.remote(max_retries=0, num_cpus=1)(run_noted)
        self._reader = GateReader(self._gate, self._inner, self._connection)

    def count(self) -> int:
        self._check_connection()
        self._poll_hosts()
        return self._hosts.cpus

    def _check_connection(self) -> None:
        if not self._connection.is_open:
            self._lost = BackendLostError(
                "the connection to Ray was ended by the program\n\n"
                "Hint: call ray.shutdown() after the pool has been closed."
            )
            raise self._lost

    def translate(self, error: BaseException) -> BaseException:
        """Return the error of this library for an error of a worker or its host."""
        if isinstance(error, ray_errors.NodeDiedError):
            what = "the worker's host died or cannot be reached"
        elif isinstance(error, ray_errors.OutOfMemoryError):
            what = "Ray killed the worker because its host ran out of memory"
        elif isinstance(error, LOST):
            what = "the worker died"
        else:
            return error
        crash = WorkerCrashedError(f"{what}: {described(error)}", exitcode=None)
        crash.__cause__ = error
        return crash

    # ── sending ───────────────────────────────────────────────────────────────────────────────

    def send(self, function_arguments: tuple[Any, ...]) -> Future[Any]:
        self._check_connection()
        inner = RayFuture(function_arguments)
        self._send(inner)
        return inner

    def _send(self, inner: RayFuture) -> None:
        number = inner.number = next(self._numbers)
        inner.times_sent += 1
        hosts = (one.host for one in list(self._inner.values()))
        where, run = self._hosts.least_loaded_host(hosts), self._run
        if where is not None:
            there = NodeAffinitySchedulingStrategy(where, soft=False)
            run = run.options(scheduling_strategy=there)
        inner.host = where
        self._inner[number] = inner
        reference = inner.reference = run.remote(self._gate, number, *inner.arguments)
        reference.future().add_done_callback(lambda came: self._note_end(number, inner, came))

    def store(self, data: Any) -> Any:
        self._check_connection()
        return ray.put(data)

    def end(self, inner: Future[Any]) -> bool:
        assert isinstance(inner, RayFuture), "it was made by send"
        inner.is_ended = True
        if not self._connection.is_open:
            return True  # it has ended, as have all others
        with suppress(ray_errors.RayError):  # the start gate is lost, with all its tasks
            may_run = bool(ray.get(self._gate.mark_for_kill.remote(inner.number)))
            ray.cancel(inner.reference, force=may_run)
        self._end_dead(inner)
        return True

    def _end_dead(self, inner: RayFuture) -> None:
        """Fail a task that died before it began, and is not sent again."""
        if inner.death is not None and self._inner.pop(inner.number, None) is not None:
            inner.fail_with(inner.death)

    # ── results ───────────────────────────────────────────────────────────────────────────────

    def _note_end(self, number: int, inner: RayFuture, came: Future[Any]) -> None:
        """Note how a task has ended, in a thread of Ray, which must not wait.

        The caller may end a task while we find out whether it has begun:

            1. this method  notes the death, then checks whether the task is to end
            2. `end`        notes that the task is to end, then checks for a death
            3. supervisor   sends the task again, then checks whether it is to end
        """
        if number not in self._inner:
            return  # it was sent again, under another number
        error = came.exception()
        if isinstance(error, DEATHS) and inner.may_be_sent_again:
            inner.death = error
            if not inner.is_ended:
                self._supervisor.wake()
                return
        if self._inner.pop(number, None) is None:
            return
        if error is not None:
            inner.fail_with(error)
        else:
            inner.end_with(came.result())

    def _poll_hosts(self) -> None:
        lost, is_new = self._hosts.poll({inner.host for inner in list(self._inner.values())})
        for inner in list(self._inner.values()):
            if inner.has_begun and inner.host in lost:
                inner.fail_with(ray_errors.NodeDiedError(f"host {inner.host} does not answer"))
        # A death may be known before the note that the task has begun; the start gate knows.
        self._send_anew(
            [
                inner
                for inner in list(self._inner.values())
                if inner.death is not None
                or (not inner.has_begun and (is_new or inner.host in lost))
            ]
        )

    def _send_anew(self, doubtful: list[RayFuture]) -> None:
        """Send again the tasks that have not begun; fail those that have begun and died.

        Args:
            doubtful: Tasks that have died, or may be on a host that is cut off.
        """
        if not doubtful:
            return
        numbers = [inner.number for inner in doubtful]
        revoked = set(ray.get(self._gate.revoke.remote(numbers)))
        for inner in doubtful:
            if inner.number not in revoked:
                self._end_dead(inner)
            elif self._inner.pop(inner.number, None) is not None:
                self._send_again(inner)

    def _send_again(self, inner: RayFuture) -> None:
        if inner.death is None:
            with suppress(Exception):  # it has ended
                ray.cancel(inner.reference, force=False)
        inner.death = None
        self._send(inner)
        if inner.is_ended:
            self.end(inner)

    # ── the end ───────────────────────────────────────────────────────────────────────────────

    def close_engine(self) -> None:
        try:
            if self._connection.is_open:
                ray.kill(self._gate)
            self._reader.join()
            self._hosts.close()
        finally:
            self._connection.close()


LOST: Final[tuple[type[Exception], ...]] = (
    ray_errors.WorkerCrashedError,
    ray_errors.ObjectLostError,
    ray_errors.LocalRayletDiedError,
    ray_errors.RaySystemError,
    ray_errors.NodeDiedError,
)
"""Ray's errors about lost workers."""

DEATHS: Final[tuple[type[Exception], ...]] = (
    ray_errors.WorkerCrashedError,
    ray_errors.NodeDiedError,
)
"""Ray's errors about workers that died, and may not have begun their task."""


def run_noted(gate: Any, number: int, *arguments: Any) -> Any:
    """Report that the task runs, and run it; called in a worker, which exits if it may not run it.

    It waits for the answer, because a task without a report may be sent to another host and run.
    """
    here = ray.get_runtime_context()
    host, is_loading = here.get_node_id(), not is_loaded(arguments[2])
    if ray.get(gate.begin.remote(number, host, here.get_worker_id(), is_loading)):
        loaded = functools.partial(gate.note_loaded.remote, number, host)
        return run_remote(*arguments, on_loaded=loaded if is_loading else None)
    raise SystemExit(0)


def _asker() -> Any:
    """Return a remote function that evaluates an expression, and needs no module in the worker."""
    by_value = eval("lambda question: eval(question)", {"__name__": "__main__"})
    # A retry is safe, because asking changes nothing. It is needed, because Ray may choose a worker
    # that it is about to kill: a task there was cancelled by force, and had just ended.
    return ray.remote(by_value).options(num_cpus=0, max_retries=3)
