"""The serial back-end: every task runs in the caller's own thread, through pathos' `SerialPool`.

A debugger stops where the user set the breakpoint, `print` prints at once, and Ctrl-C and
`sys.exit()` act in a task as they do in a loop.
"""

from __future__ import annotations

import functools
from contextlib import nullcontext

from parallel_facade._common.dill_import import import_dill
from parallel_facade._common.error_notes import note_initializer
from parallel_facade._common.errors import PoolClosedError
from parallel_facade._common.worker_role import WorkerRole
from parallel_facade._worker.run_chunk import Call, Chunk, run_chunk
from parallel_facade.backends.base import Backend, Capabilities, TaskFuture, WorkerSettings


class SerialBackend(Backend):
    """Run each chunk as soon as it is submitted."""

    owns_workers = False
    capabilities: Capabilities = Capabilities(
        needs_serialization=False, runs_in_caller=True, has_private_state=True, can_initialize=True
    )

    def __init__(self, settings: WorkerSettings) -> None:
        import_dill()
        from pathos.serial import SerialPool

        self._pool = SerialPool()
        self._initializer = settings.initializer
        self._broken: BaseException | None = None
        self._is_closed = False

    @property
    def is_usable(self) -> bool:
        """Whether the initializer has not failed."""
        return self._broken is None

    def capacity(self) -> int:
        """Return 1: the caller's thread."""
        return 1

    def submit(
        self,
        handle: Call,
        chunk: Chunk,
        task_timeout: float | None = None,  # noqa: ARG002 - refused by its capability
    ) -> TaskFuture:
        """Run *chunk* now."""
        if self._is_closed:
            raise PoolClosedError("the serial back-end is closed")
        self._initialize()
        future = TaskFuture()
        # A nested call runs in this thread, as in a worker, so it draws from the seeded state.
        with nullcontext() if handle.seed is None else WorkerRole(is_private=True):
            run = functools.partial(run_chunk, in_caller=True)
            future.set_result(self._pool.pipe(run, handle, chunk))
        return future

    def _initialize(self) -> None:
        if self._broken is not None:
            raise self._broken
        if callable(self._initializer):
            initialize, self._initializer = self._initializer, None
            try:
                initialize()
            except BaseException as exc:
                note_initializer(exc)
                self._broken = exc
                raise

    def close(self, *, cancel: bool) -> None:  # noqa: ARG002 - nothing is ever in flight
        """Close the pool."""
        self._is_closed = True
        self._pool.close()
        self._pool.join()
