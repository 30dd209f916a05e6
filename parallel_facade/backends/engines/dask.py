"""Run calls in the workers of a Dask cluster.

    submit ─► client.submit(run_noted) ─► scheduler ─► worker ── "it runs" ──► topic ─► future
                                                          │ result
    future ◄── gatherer: client.gather, in batches ◄──────┘

The callable's payload is the result of a separate task: scattered data would be lost with the
worker that holds it, but the scheduler runs a task again.

Guarantees:
    - A client that the user made is never closed, and never made the default client.

Assumes:
    - The scheduler runs the tasks of a dead worker again, ``allowed-failures`` times (3), and then
      raises `KilledWorker`.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import sys
import warnings
from collections import Counter
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, Final

import distributed
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from parallel_facade._common.errors import BackendLostError, described
from parallel_facade._common.task_errors import WorkerCrashedError
from parallel_facade._configuration.backend_registry import BUILT_IN, LOCAL_WORD
from parallel_facade._serialization.buffers.object_store import Store
from parallel_facade._serialization.buffers.shared_memory import SegmentPool
from parallel_facade._worker.remote_entry import Versions, is_loaded, run_remote
from parallel_facade.backends.base import Capabilities, WorkerSettings
from parallel_facade.backends.engines.base import RemoteBackend
from parallel_facade.backends.engines.dask_gatherer import DaskFuture, DaskGatherer
from parallel_facade.backends.engines.handshake import (
    ANSWER_SECONDS,
    check_reachable,
    check_versions,
    host_and_port,
    within,
)

CAPABILITIES: Final = Capabilities(
    needs_serialization=True,
    survives_crashes=True,
    may_run_again=True,
    is_remote=True,
    can_time_tasks=True,
    has_private_state=True,
    can_queue=True,
)

PACKAGES: Final = ("parallel-facade", "dill")
WARNS_FROM: Final = 10_000_000
"""From this task size in bytes on, Dask advises users to scatter, which can lose data."""


OURS: Final = "_parallel_facade_backend"


class DaskBackend(RemoteBackend):
    """Run chunks in the workers of a Dask cluster.

    Args:
        settings: Its `address` is the scheduler's, or ``"local"``.
        client: A client that the user made, to use instead.
    """

    capabilities: Capabilities = CAPABILITIES
    has_store = True
    seconds_in_chunk: float = 0.2  # a round trip takes about 13 ms
    chunks_in_flight = 8  # large items take several such times to reach a worker

    @classmethod
    def of_client(cls, client: Any, settings: WorkerSettings) -> DaskBackend:
        """Return the back-end of the user's *client*; it is made once, and again if it was lost."""
        known: DaskBackend | None = getattr(client, OURS, None)
        if known is None or not known.is_usable:
            known = cls(settings, client)
            setattr(client, OURS, known)
        return known

    def __init__(self, settings: WorkerSettings, client: distributed.Client | None = None) -> None:
        super().__init__(settings)
        self._is_own = client is None
        self._host: Any = None
        self._topic = f"parallel_facade-{os.urandom(8).hex()}"
        self._numbers = itertools.count()
        self._inner: dict[int, DaskFuture] = {}
        self._threads: dict[str, int] = {}  # threads of each worker, by its address
        try:
            self._client: Any = self._connect(settings) if client is None else client
            self._connect_to_workers(settings)
        except BaseException:
            self._leave()
            raise
        if self._client.scheduler.address.startswith("inproc"):
            self.segment_pool: SegmentPool | Store | None = (
                None  # buffers that are not copied would be the caller's own memory
            )
        self._gatherer = DaskGatherer(self._client, self._inner)
        self._client.subscribe_topic(self._topic, self._note_start)

    # ── connecting to the cluster ─────────────────────────────────────────────────────────────

    def _connect(self, settings: WorkerSettings) -> distributed.Client:
        if settings.address == LOCAL_WORD:
            from parallel_facade.backends.engines.dask_local_cluster import LocalDask

            self._host = LocalDask(settings.workers)
            address = self._host.address
        else:
            address = settings.address
            if not address.startswith(("ucx", "ws", "inproc")):
                check_reachable(*host_and_port(address, ADDRESS), ADDRESS)
        try:
            return distributed.Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
        except Exception as exc:
            raise BackendLostError(
                f"no Dask scheduler answers at {address}, the address in {ADDRESS}: "
                f"{described(exc)}"
                f"{_tls_hint(address)}"
            ) from exc

    def _connect_to_workers(self, settings: WorkerSettings) -> None:
        """Wait for a worker, and check the versions and threads of the cluster."""
        if not self.find_workers(settings.start_timeout):
            raise self._no_workers()
        found = within(
            ANSWER_SECONDS,
            lambda: self._client.get_versions(packages=list(PACKAGES)),
            "asking the Dask cluster for its versions",
        )
        versions = {name: _versions(info) for name, info in found["workers"].items()}
        # The scheduler also unpickles tasks. `run_remote` checks workers that join later.
        versions["the scheduler"] = _versions(found["scheduler"])
        check_versions(versions)
        if max(self._threads.values()) > 1:
            self.capabilities = CAPABILITIES._replace(has_private_state=False)

    def count(self) -> int:
        if self._client.status != "running":
            raise BackendLostError(f"the Dask client is {self._client.status}")
        self._threads = self._client.nthreads()
        return sum(self._threads.values())

    def translate(self, error: BaseException) -> BaseException:
        """Return the error of this library for an error of the cluster."""
        if isinstance(error, KilledWorker):
            translated: BaseException = WorkerCrashedError(
                "the worker died each time Dask ran the task, on several workers\n\n"
                "Hint: see their logs; the system kills processes that use too much memory.",
                exitcode=None,
            )
        elif isinstance(error, CancelledError | CommClosedError):
            translated = BackendLostError(f"the Dask scheduler was lost: {described(error)}")
        else:
            return error
        translated.__cause__ = error
        return translated

    # ── sending ───────────────────────────────────────────────────────────────────────────────

    def send(self, function_arguments: tuple[Any, ...]) -> Future[Any]:
        number = next(self._numbers)
        where = self._least_loaded()
        dask_future = self._submit(
            _size_of(function_arguments),
            run_noted,
            self._topic,
            number,
            *function_arguments,
            key=f"{self._topic}-{number}",
            workers=where,
            allow_other_workers=bool(where),
        )
        inner = self._inner[number] = DaskFuture(number, dask_future, where)
        dask_future.add_done_callback(lambda _: self._gatherer.put(inner))
        self._gatherer.ensure_running()
        return inner

    def _least_loaded(self) -> str | None:
        """Return the worker with the fewest of our tasks per thread; `None` without workers.

        Dask itself prefers the worker that has the call, and assumes that a task takes as long as
        those before it: two long tasks run one after the other there, while another worker is idle.
        """
        load = Counter(inner.worker for inner in list(self._inner.values()))
        threads = self._threads
        return min(threads, key=lambda one: load[one] / threads[one], default=None)

    def store(self, data: Any) -> Any:
        key = f"{self._topic}-call-{next(self._numbers)}"
        return self._submit(len(data.data), bytes, data, key=key)

    def _submit(self, size: int, *arguments: Any, **how: Any) -> Any:
        if size < WARNS_FROM:
            return self._client.submit(*arguments, pure=False, **how)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")
            return self._client.submit(*arguments, pure=False, **how)

    def end(self, inner: Future[Any]) -> bool:
        """Take the task back if it does not run yet; a running task cannot be stopped."""
        assert isinstance(inner, DaskFuture), "it was made by send"
        if not inner.has_begun:
            # Not here: the garbage collector may have called this in the middle of a step of the
            # client, while this thread holds the client's locks.
            inner.is_unwanted = True
            self._gatherer.put(inner)
        return False

    def _note_start(self, event: tuple[float, tuple[int, bool]]) -> None:
        """Note that a task runs, or has its callable; called in the client's own loop."""
        number, is_loading = event[1]
        if (inner := self._inner.get(number)) is not None:
            inner.is_loading = is_loading
            inner.has_begun = True

    # ── the end ───────────────────────────────────────────────────────────────────────────────

    def close_engine(self) -> None:
        self._gatherer.close(CLOSE_SECONDS)
        with suppress(Exception):  # the scheduler is lost
            self._client.unsubscribe_topic(self._topic)
        self._leave()

    def _leave(self) -> None:
        if self._is_own and hasattr(self, "_client"):
            with suppress(Exception):
                self._client.close(timeout=CLOSE_SECONDS)
        if self._host is not None:
            self._host.close()


CLOSE_SECONDS: Final = 5.0
"""How long the gatherer may take to end, and the client to close."""

ADDRESS: Final = BUILT_IN["dask"].address


def run_noted(topic: str, number: int, *arguments: Any) -> Any:
    """Report that the task runs, and run it; called in a worker."""
    give_dask_a_generator()
    worker = distributed.get_worker()
    is_loading = not is_loaded(arguments[2])
    worker.log_event(topic, (number, is_loading))
    loaded = functools.partial(worker.log_event, topic, (number, False))
    return run_remote(*arguments, on_loaded=loaded if is_loading else None)


@functools.cache
def give_dask_a_generator() -> None:
    """Make Dask, in this worker, draw from its own generator instead of the tasks' generator.

    Otherwise:
        1. task   gets a seed, and draws from `random`
        2. Dask   sends a message, and estimates its size with `random.sample`, in another thread
        3. task   draws again, and one number is missing
    """
    own = random.Random()
    for name, module in list(sys.modules.items()):
        space = getattr(module, "__dict__", {})
        if name.partition(".")[0] in DRAWING and space.get("random") is random:
            space["random"] = own


DRAWING: Final = frozenset({"dask", "distributed", "tornado"})
"""Packages with code that draws random numbers in other threads of a worker."""


def _size_of(arguments: tuple[Any, ...]) -> int:
    return sum(len(one.data) for one in arguments if hasattr(one, "data"))


def _versions(info: dict[str, Any]) -> Versions:
    packages = info["packages"]
    python = ".".join(str(packages["python"]).split(".")[:2])
    return Versions(python, *(packages.get(name) or "" for name in PACKAGES))


def _tls_hint(address: str) -> str:
    if address.startswith("tls"):
        return (
            "\n\nHint: a scheduler with TLS needs DASK_DISTRIBUTED__COMM__TLS__CA_FILE and "
            "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and ..__CLIENT__KEY."
        )
    return "\n\nHint: if it uses TLS, its address begins with tls://."
