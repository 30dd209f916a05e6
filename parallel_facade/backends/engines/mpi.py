"""Run calls in the ranks of an MPI program started with ``mpiexec ... -m mpi4py.futures``.

MPI does not report that a rank has died: ``mpiexec`` ends all ranks then, including the caller's.
Also, the program cannot end while a rank runs a task:

    1. task    hangs; its `task_timeout` expires, and the caller goes on without it
    2. caller  reaches its end; mpi4py waits for all ranks
    3. task    never ends, so the program never ends

So if the program ends while given-up tasks hang, all ranks are ended.

Assumes:
    - `mpi4py.futures` keeps the pool that its ``-m`` start has made in `_core.SharedPool`, and
      leaves it by `SharedPoolCtx.__exit__` in the main thread (true for 4.0 and 4.1).
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future
from typing import Any, Final

from mpi4py.futures import MPIPoolExecutor, _core

from parallel_facade._common.deadlines import Deadline
from parallel_facade._common.errors import ConfigurationError
from parallel_facade._common.polling_thread import PollingThread
from parallel_facade.backends.base import Capabilities, WorkerSettings
from parallel_facade.backends.engines.executor import ExecutorBackend
from parallel_facade.backends.engines.handshake import QUESTION, check_worker

START_LINE: Final = "mpiexec -n 3 python -m mpi4py.futures SCRIPT.py"

POLL_SECONDS: Final = 1.0
"""Seconds between two checks for the end of the program while tasks hang."""

END_PATIENCE: Final = 5.0
"""Seconds that hanging tasks have to end by themselves when the program ends."""

EXIT_CODE: Final = 1
"""The exit code of a program that we end: its own is lost, because MPI ends all ranks."""


class MPIBackend(ExecutorBackend):
    """Run chunks in all ranks of MPI except the first."""

    owns_workers = True

    capabilities: Capabilities = Capabilities(
        needs_serialization=True, is_remote=True, can_time_tasks=True, has_private_state=True
    )
    seconds_in_chunk: float = 0.05  # a round trip takes about 3 ms

    def __init__(self, settings: WorkerSettings) -> None:
        if _core.SharedPool is None:
            raise ConfigurationError(
                "back-end 'mpi' has no ranks: the program was not started by mpi4py.futures\n\n"
                f"Hint: {START_LINE}"
            )
        # The ranks do not import the script: the parts that they need are sent to them.
        executor = MPIPoolExecutor(use_pkl5=True, main=False)
        if not executor.num_workers:
            raise ConfigurationError(
                f"back-end 'mpi' needs two ranks or more, got one\n\nHint: {START_LINE}"
            )
        super().__init__(settings, executor)
        self._guard = PollingThread(self._poll_end)
        self._end_patience: Deadline | None = None
        check_worker("a rank of MPI", lambda: executor.submit(eval, QUESTION).result())

    def _note_never_ending(self, inner: Future[Any]) -> None:
        super()._note_never_ending(inner)
        self._guard.wake()

    def _poll_end(self) -> float | None:
        """End all ranks if the program has reached its end and tasks still hang."""
        if not self._never_ending:
            return None
        if not _is_ending():
            return POLL_SECONDS
        if self._end_patience is None:
            self._end_patience = Deadline(END_PATIENCE, clock=self._clock)
        if not self._end_patience.has_passed():
            return POLL_SECONDS
        self._end_all()
        return None

    def _end_all(self) -> None:
        from mpi4py import MPI

        print(
            f"parallel_facade: {len(self._never_ending)} abandoned tasks still run, and MPI "
            "cannot stop them; ending all ranks",
            file=sys.stderr,
            flush=True,
        )
        MPI.COMM_WORLD.Abort(EXIT_CODE)

    def close_engine(self) -> None:
        self._executor.shutdown(wait=not self._never_ending, cancel_futures=True)


def _is_ending() -> bool:
    """Return whether the main thread waits for the ranks, after the end of the script."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code is _core.SharedPoolCtx.__exit__.__code__:
            return True
        frame = frame.f_back
    return False
