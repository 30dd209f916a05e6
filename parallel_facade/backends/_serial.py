"""The serial back-end: every task in the caller's own thread, through pathos' `SerialPool`.

A debugger stops where the user set the breakpoint, `print` prints at once, and Ctrl-C and
`sys.exit()` do in a task what they do in a loop.
"""

from __future__ import annotations

from concurrent.futures import Future

from parallel_facade._outcomes import Report
from parallel_facade._worker import Call, Chunk, run_chunk
from parallel_facade.backends import Backend, Capabilities, WorkerSettings


class SerialBackend(Backend):
    """Run each chunk at the moment it is submitted."""

    capabilities = Capabilities(
        needs_serialization=False, runs_in_caller=True, has_private_state=True, can_initialize=True
    )

    def __init__(self, settings: WorkerSettings) -> None:
        from pathos.serial import SerialPool

        self._pool = SerialPool()
        self._initializer = settings.initializer

    def capacity(self) -> int:
        """Return 1: the caller's thread."""
        return 1

    def submit(
        self,
        handle: Call,
        chunk: Chunk,
        task_timeout: float | None = None,  # noqa: ARG002 - refused by its capability
    ) -> Future[Report]:
        """Run *chunk* now."""
        if callable(self._initializer):
            initialize, self._initializer = self._initializer, None
            initialize()
        future: Future[Report] = Future()
        # Only Exception: what ends a program shall end it here, as in a plain loop.
        future.set_result(self._pool.pipe(run_chunk, handle, chunk, Exception))
        return future

    def close(self, *, cancel: bool) -> None:  # noqa: ARG002 - nothing is ever in flight
        """Close the pool."""
        self._pool.close()
        self._pool.join()
