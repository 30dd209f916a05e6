"""The standard library's processes as a back-end."""

from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from parallel_facade.plugins import (
    Capabilities,
    RemoteBackend,
    WorkerCrashedError,
    WorkerSettings,
    run_remote,
)


class StandardBackend(RemoteBackend):
    """Run chunks in a `ProcessPoolExecutor`."""

    capabilities = Capabilities(
        needs_serialization=True, can_time_tasks=True, has_private_state=True
    )
    is_paced = False  # its futures can be cancelled

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings)
        self._executor = ProcessPoolExecutor(
            settings.workers, mp_context=get_context(settings.start_method or "forkserver")
        )

    def send(self, function_arguments: tuple[Any, ...]) -> Future[Any]:
        """Have a worker call `run_remote`."""
        return self._executor.submit(run_remote, *function_arguments)

    def translate(self, error: BaseException) -> BaseException:
        """Return an error of parallel_facade for one of the engine's."""
        if isinstance(error, BrokenExecutor):
            return WorkerCrashedError(f"a worker died: {error}", exitcode=None)
        return error

    def close_engine(self) -> None:
        """End the workers."""
        self._executor.shutdown(cancel_futures=True)
