"""Parallel maps for any Python function, over interchangeable back-ends.

>>> from parallel_facade import pmap
>>> pmap(lambda x: x * x, range(4))
[0, 1, 4, 9]

Where to start reading:
    _api         the verbs: pmap, imap, apply_async
    _shared      the warm pools that the verbs borrow
    _pool        Pool, which owns the workers of one back-end
    _dispatch    the loop behind every map: window, order, deadlines, retries
    _open_call   what runs on the far side: the callable is rebuilt
    _worker      and there the items run through it
    _pickling    how objects become bytes: functions, classes, data
    _explain     why something cannot
    _config      settings, and where each comes from
    backends     one module per way to run
"""

from typing import TYPE_CHECKING, Any

from parallel_facade._api import apply_async, imap, pmap
from parallel_facade._config import Config, config, configure, get_config
from parallel_facade._cpus import cpu_count
from parallel_facade._errors import (
    BackendLostError,
    ConfigurationError,
    ParallelFacadeError,
    PoolClosedError,
    RemoteError,
    SerializationError,
    TaskTimeoutError,
    WorkerCrashedError,
)

if TYPE_CHECKING:
    from parallel_facade._async_result import AsyncResult
    from parallel_facade._explain import Explanation, explain
    from parallel_facade._pool import Pool
    from parallel_facade._progress import Progress
    from parallel_facade._results import ResultIterator
    from parallel_facade._seeds import rng
    from parallel_facade._trace import Trace, trace
    from parallel_facade._trace_report import TraceReport

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
    "AsyncResult": "_async_result",
    "Explanation": "_explain",
    "Pool": "_pool",
    "Progress": "_progress",
    "ResultIterator": "_results",
    "Trace": "_trace",
    "TraceReport": "_trace_report",
    "explain": "_explain",
    "rng": "_seeds",
    "trace": "_trace",
}
"""Public names whose modules `import parallel_facade` leaves alone, so that it stays cheap."""


def __getattr__(name: str) -> Any:
    if (module := _LOADED_ON_USE.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


for _public in (Config, apply_async, config, configure, cpu_count, get_config, imap, pmap):
    # Users see these in tracebacks and in help() under the name they import them by.
    _public.__module__ = __name__
