"""The names that a distribution with its own back-end needs.

If workers run Python and can import this library, derive from `RemoteBackend` and define how to
call `run_remote` there. In all other cases, derive from `Backend`. A distribution announces the
class in the entry-point group ``parallel_facade.backends``.
`parallel_facade.testing.BackendContract` tests the class.
"""

from parallel_facade._common.errors import BackendLostError
from parallel_facade._common.task_errors import WorkerCrashedError
from parallel_facade._worker.remote_entry import run_remote
from parallel_facade.backends.base import (
    Backend,
    Capabilities,
    Splitting,
    TaskFuture,
    WorkerLost,
    WorkerSettings,
)
from parallel_facade.backends.engines.base import RemoteBackend
from parallel_facade.backends.engines.tasks import EngineFuture

__all__ = [
    "Backend",
    "BackendLostError",
    "Capabilities",
    "EngineFuture",
    "RemoteBackend",
    "Splitting",
    "TaskFuture",
    "WorkerCrashedError",
    "WorkerLost",
    "WorkerSettings",
    "run_remote",
]
