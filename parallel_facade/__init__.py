"""Parallel maps for any Python function, over interchangeable back-ends.

>>> from parallel_facade import pmap
>>> pmap(lambda x: x * x, range(4))
[0, 1, 4, 9]

The packages, in reading order:
    _api             the public names: verbs, pools, results, explain
    _tracing         what ran where and when
    _dispatch        the engine of a call: chunks, order, retries, deadlines
    backends         the ways to run calls: processes, threads, serial, clusters
    _worker          the code that runs in a worker
    _serialization   how objects become bytes
    _configuration   settings, and where each comes from
    _console         the output that the user sees while a call runs
    _common          code that every package may use
"""

import atexit
import sys
from typing import TYPE_CHECKING, Any

from parallel_facade._api.verbs import apply_async, imap, pmap
from parallel_facade._common.errors import (
    BackendLostError,
    ConfigurationError,
    ParallelFacadeError,
    PoolClosedError,
    RemoteError,
    SerializationError,
)
from parallel_facade._configuration.cpu_count import cpu_count
from parallel_facade._configuration.setting_table import Config
from parallel_facade._configuration.settings import config, configure, get_config

if TYPE_CHECKING:
    from parallel_facade._api.explain import Explanation, explain
    from parallel_facade._api.pool import Pool
    from parallel_facade._api.results import ResultIterator
    from parallel_facade._common.task_errors import TaskTimeoutError, WorkerCrashedError
    from parallel_facade._console.progress import Progress
    from parallel_facade._dispatch.async_result import AsyncResult
    from parallel_facade._tracing.report import TraceReport
    from parallel_facade._tracing.trace import Trace, trace
    from parallel_facade._worker.seeds import rng

__version__ = "0.1.0"

__all__ = [
    "AsyncResult",
    "BackendLostError",
    "Config",
    "ConfigurationError",
    "Explanation",
    "ParallelFacadeError",
    "Pool",
    "PoolClosedError",
    "Progress",
    "RemoteError",
    "ResultIterator",
    "SerializationError",
    "TaskTimeoutError",
    "Trace",
    "TraceReport",
    "WorkerCrashedError",
    "apply_async",
    "config",
    "configure",
    "cpu_count",
    "explain",
    "get_config",
    "imap",
    "pmap",
    "rng",
    "trace",
]

_LOADED_ON_USE = {
    "AsyncResult": "_dispatch.async_result",
    "Explanation": "_api.explain",
    "Pool": "_api.pool",
    "Progress": "_console.progress",
    "ResultIterator": "_api.results",
    "TaskTimeoutError": "_common.task_errors",
    "Trace": "_tracing.trace",
    "TraceReport": "_tracing.report",
    "WorkerCrashedError": "_common.task_errors",
    "explain": "_api.explain",
    "rng": "_worker.seeds",
    "trace": "_tracing.trace",
}
"""Public names in modules that `import parallel_facade` does not load, so that it stays cheap."""


def __getattr__(name: str) -> Any:
    if (module := _LOADED_ON_USE.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _close_pools() -> None:
    if (shutdown := sys.modules.get("parallel_facade._common.shutdown")) is not None:
        shutdown.close_all()


# Now: an exit handler that makes its first call cannot register another one.
atexit.register(_close_pools)

for _public in (Config, apply_async, config, configure, cpu_count, get_config, imap, pmap):
    # Tracebacks and help() show the name under which users import these.
    _public.__module__ = __name__
