"""Run calls in servers of ppft, through pathos' own ParallelPool. Experimental.

    submit ─► at most one task per worker ─► ParallelPool ─► ppserver ─► worker
                                                                            │
        future ◄────────────────────────────── callback ◄───────────────────┘

ppft sends a server more tasks than it has workers, cannot take a task back, and never reports that
a worker has died: its task is lost, and so is the task that waits behind it. So at most as many
tasks are sent as there are workers, and each has a deadline, even if the caller set none.

Guarantees:
    - The secret that is built into ppft, which is public, is never used.
    - Each task ends, after `DEADLINE_SECONDS` if no time-out was set.

Assumes:
    - pathos keeps the `ppft.Server` of a pool in a table by the pool's id, and uses an existing
      entry if it has the same servers (true for 0.3.5). A `ppft.Server` keeps its connections in
      two lists and in its statistics (true for ppft 1.7.8).
"""

from __future__ import annotations

import os
import pickle
from concurrent.futures import Future
from typing import Any, Final

import pathos.parallel
import ppft
from pathos.pools import ParallelPool

from parallel_facade._common.errors import BackendLostError, ConfigurationError
from parallel_facade._common.task_errors import WorkerCrashedError
from parallel_facade._configuration.backend_registry import BUILT_IN, PPFT_SECRET
from parallel_facade.backends.base import Capabilities, TaskFuture, WorkerSettings
from parallel_facade.backends.engines.base import RemoteBackend
from parallel_facade.backends.engines.handshake import (
    QUESTION,
    check_reachable,
    check_worker,
    host_and_port,
)
from parallel_facade.backends.engines.tasks import EngineFuture, RemoteCall

DEADLINE_SECONDS: Final = 3600.0
"""The deadline of a task without `task_timeout`."""

GREETING_SECONDS: Final = 10.0
"""How long servers may take to accept the secret; a server that rejects it sends nothing."""

SOCKET_SECONDS: Final = 30 * 24 * 3600
"""ppft runs a task that takes longer than this again on another worker, endlessly."""

ADDRESS: Final = BUILT_IN["ppft"].address
PYTHONPATH: Final = "PYTHONPATH"


class PpftBackend(RemoteBackend):
    """Run chunks in the workers of ppservers.

    Args:
        settings: Its `address` lists the servers' addresses, separated by commas.
    """

    capabilities: Capabilities = Capabilities(
        needs_serialization=True,
        is_remote=True,
        can_time_tasks=True,
        has_private_state=True,
    )
    chunks_in_flight = 1  # a task that waits in a server is lost with the task before it
    seconds_in_chunk: float = 1.0  # a round trip takes about 90 ms

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings)
        secret = _secret()
        servers = tuple(sorted(one.strip() for one in settings.address.split(",")))
        for address in servers:
            check_reachable(*host_and_port(address, ADDRESS), ADDRESS)
        pool_id = f"parallel_facade-{os.getpid()}-{id(self)}"
        # A pool makes its server without a secret, so we let it find a server that we made.
        table = vars(pathos.parallel)["_ParallelPool__STATE"]
        self._server = table[pool_id] = _make_server(servers, secret)
        self._pool = ParallelPool(nodes=0, servers=servers, id=pool_id)
        try:
            self._connect_to_workers(servers)
        except BaseException:
            self.close_engine()
            raise

    def _connect_to_workers(self, servers: tuple[str, ...]) -> None:
        """Wait for a server, and check its versions."""
        if not self.find_workers(GREETING_SECONDS):
            raise BackendLostError(
                f"no ppserver accepts this program at {', '.join(servers)}, the addresses in "
                f"{ADDRESS}\n\n"
                f"Hint: check that it has the secret in {PPFT_SECRET} and the same version of ppft."
            )
        check_worker("a ppserver", self._ask)

    def _ask(self) -> tuple[str, ...]:
        question: Future[Any] = Future()
        self._server.submit(evaluate, (QUESTION,), callback=question.set_result)
        if (answer := question.result()) is None:
            raise ConfigurationError(
                "a ppserver cannot import parallel_facade\n\nHint: pip install parallel-facade "
                "there, into the environment that ppserver runs in."
            )
        found: tuple[str, ...] = answer
        return found

    def count(self) -> int:
        nodes = self._server.get_active_nodes()
        return sum(count for name, count in nodes.items() if name != "local")

    def submit(
        self, handle: RemoteCall, chunk: Any, task_timeout: float | None = None, **more: Any
    ) -> TaskFuture:
        """Send *chunk* to a server, always with a deadline."""
        return super().submit(handle, chunk, task_timeout or DEADLINE_SECONDS, **more)

    # ── sending ───────────────────────────────────────────────────────────────────────────────

    def send(self, function_arguments: tuple[Any, ...]) -> Future[Any]:
        inner = EngineFuture()
        inner.has_begun = True  # there is a free worker for it
        # As one bytes object: ppft sends other objects with the source of their classes.
        packed = pickle.dumps(function_arguments, 4)
        self._server.submit(run_packed, (packed,), callback=_note_end, callbackargs=(inner,))
        return inner

    def close_engine(self) -> None:
        self._pool.clear()
        held = vars(self._server)  # ppft leaves its connections to the garbage collector
        for connection in held["_Server__rworkers"] + held["_Server__rworkers_reserved"]:
            connection.close()
        for node in held["_Server__stats"].values():
            if node.rworker is not None:
                node.rworker.close()


def _make_server(servers: tuple[str, ...], secret: str) -> Any:
    """Return the `ppft.Server` for *servers*, and leave the environment unchanged.

    ppft puts `sys.path` into PYTHONPATH, for its own local workers, and we use none. It would
    affect every other Python that the program starts from then on.
    """
    make: Any = ppft.Server
    before = os.environ.get(PYTHONPATH)
    try:
        return make(ncpus=0, ppservers=servers, secret=secret, socket_timeout=SOCKET_SECONDS)
    finally:
        if before is None:
            os.environ.pop(PYTHONPATH, None)
        else:
            os.environ[PYTHONPATH] = before


def _note_end(inner: EngineFuture, answer: bytes | None) -> None:
    if answer is None:
        what = "a ppserver could not run the task; it has printed the reason"
        inner.fail_with(WorkerCrashedError(what, exitcode=None))
    else:
        inner.end_with(pickle.loads(answer))


def _secret() -> str:
    secret = os.environ.get(PPFT_SECRET)
    if not secret or secret == ppft.Server.default_secret:
        what = "is ppft's public default" if secret else "is not set"
        raise ConfigurationError(
            f"back-end 'ppft' needs a secret: {PPFT_SECRET} {what}\n\n"
            "Hint: start the servers with one, ppserver -s SECRET, and set the variable to it."
        )
    return secret


def evaluate(expression: str) -> Any:
    """Return the value of *expression*; called in a server's worker."""
    return eval(expression)


def run_packed(packed: bytes) -> bytes:
    """Run a chunk; called in a server's worker."""
    import pickle

    from parallel_facade._worker.remote_entry import run_remote

    return pickle.dumps(run_remote(*pickle.loads(packed)), 4)
