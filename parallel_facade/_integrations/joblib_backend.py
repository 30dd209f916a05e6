"""The back-end for joblib.

    Parallel ─batches─► apply_async ─► the warm pool of the back-end that the settings choose
       └◄── callback ◄──────┘

Requires joblib.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, Final

import joblib
from joblib.parallel import (
    BACKENDS,
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from parallel_facade._api.shared_pools import borrow
from parallel_facade._api.verbs import apply_async
from parallel_facade._common.errors import ConfigurationError
from parallel_facade._common.worker_role import is_worker
from parallel_facade._configuration.backend_registry import load_backend
from parallel_facade._configuration.settings import check_settings, config, resolve
from parallel_facade._dispatch.async_result import AsyncResult

NAME: Final = "parallel_facade"

REFUSED: Final = {
    "workers": "n_jobs sets the number of workers",
    "chunksize": "batch_size of joblib.Parallel sets how many tasks are sent together",
    "progress": "verbose of joblib.Parallel shows progress",
    "timeout": "timeout of joblib.Parallel limits the wait for each result",
    "seed": "its tasks have no index; give each a generator, or a seed, as an argument",
}
OF_JOBLIB: Final = frozenset(
    {"max_nbytes", "mmap_mode", "temp_folder", "prefer", "require", "verbose", "context"}
)
"""Options that `joblib.Parallel` passes to every back-end, and options for back-ends that map files
or make pools themselves."""


def register(*, make_default: bool = False) -> None:
    """Register the back-end ``"parallel_facade"`` with joblib.

    Then ``joblib.parallel_config(backend="parallel_facade")`` chooses it for all code that runs on
    joblib. It also takes the settings of `config`, for example ``task_timeout=60, retries=1``. As
    everywhere, ``PARALLEL_FACADE_BACKEND`` or `configure` chooses where the tasks run.

    Args:
        make_default: Use this back-end also where no back-end is chosen.

    >>> import joblib
    >>> from parallel_facade.joblib import register
    >>> register()
    >>> with joblib.parallel_config(backend="parallel_facade", n_jobs=2):
    ...     joblib.Parallel()(joblib.delayed(lambda x: x * x)(x) for x in range(4))
    [0, 1, 4, 9]
    """
    joblib.register_parallel_backend(NAME, ParallelFacadeBackend, make_default=make_default)


Callback = Callable[[Any], object]

_Waiting = tuple[Callable[[], Any], Callback | None]


class ParallelFacadeBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs the batches of `joblib.Parallel` as single calls; joblib creates it by its name.

    Args:
        nesting_level: The number of joblib calls that enclose it.
        inner_max_num_threads: Threads for libraries such as BLAS in each worker.
        **settings: Settings of `config`.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._settings = _checked(settings)
        self._workers: int | None = None
        self._context = copy_context()
        self._lock = threading.RLock()  # guards the three below; RLock: a `__del__` may run a call
        self._waiting: deque[_Waiting] = deque()
        self._begun = 0  # batches that workers have or that are about to begin
        self._running: set[AsyncResult[Any]] = set()

    @property
    def supports_sharedmem(self) -> bool:
        """Whether tasks see the caller's own objects."""
        backend = resolve(self._in_force()).backend
        if isinstance(backend, str):
            backend = load_backend(backend.partition(":")[0])
        capabilities = getattr(backend, "capabilities", None)
        return capabilities is not None and not capabilities.needs_serialization

    @property
    def uses_threads(self) -> bool:
        """Whether tasks run in the caller's process."""
        return self.supports_sharedmem

    # joblib's base class has no types; pyright takes its return value for `None`.
    def effective_n_jobs(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, n_jobs: int | None
    ) -> int:
        """Return the number of workers for *n_jobs*; negative numbers count back from all."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or is_worker():
            return 1
        return n_jobs if n_jobs > 0 else max(1, self._all_workers() + 1 + n_jobs)

    def configure(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, n_jobs: int = 1, parallel: Any = None, **settings: Any
    ) -> int:
        """Prepare for a call, and return the number of workers."""
        self._settings |= _checked(settings)
        if (seed := resolve({}).seed) is not None:
            _checked({"seed": seed})
        workers = self.effective_n_jobs(n_jobs)
        if workers == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._workers = workers
        # joblib submits most batches from the callback thread, where the caller's settings and
        # context variables do not apply.
        self._context = copy_context()
        return workers

    def submit(self, func: Callable[[], Any], callback: Callback | None = None) -> Future[Any]:
        """Run a batch when its turn comes: the pool may have more workers than were asked for."""
        waiting: Future[Any] = Future()
        with self._lock:
            self._waiting.append((func, callback))
        self._go_on()
        return waiting

    def _go_on(self) -> None:
        """Begin batches while there is a worker for them."""
        while (batch := self._next()) is not None:
            func, callback = batch
            try:
                result = self._context.copy().run(self._begin, func)
            except Exception as exc:
                self._end(None)
                _fail(exc, callback)
                continue
            with self._lock:
                self._running.add(result)
            result.add_done_callback(self._end)
            if callback is not None:
                result.add_done_callback(functools.partial(_notify, callback))

    def _next(self) -> _Waiting | None:
        with self._lock:
            if not self._waiting or self._begun >= (self._workers or 1):
                return None
            self._begun += 1
            return self._waiting.popleft()

    def _end(self, result: Any) -> None:
        with self._lock:
            self._begun -= 1
            if result is not None:
                self._running.discard(result)
        if result is not None:
            self._go_on()

    def _begin(self, func: Callable[[], Any]) -> AsyncResult[Any]:
        with config(**self._in_force()):
            return apply_async(_Batch(func), workers=self._workers)

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the result of the batch, or raise its exception."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop the running batches and drop the waiting batches; the pool itself stays open."""
        del ensure_ready
        with self._lock:
            self._waiting.clear()
            running = list(self._running)
        for result in running:
            result._note_known_failure()  # joblib already has its error
            if not result.cancel():
                result.stop()

    def terminate(self) -> None:
        """Reset the statistics of the call; the pool stays warm."""
        # No batch of this call waits any more. Batches that wait belong to another call: joblib
        # gives one back-end to all calls in a ``with parallel_config(...)``, and generators of
        # several calls run at once.
        self.reset_batch_stats()

    def _in_force(self) -> dict[str, Any]:
        """Return the settings for the calls of this back-end."""
        # joblib sets this attribute after it has created the back-end.
        inner_threads = self.inner_max_num_threads
        return (
            self._settings
            if inner_threads is None
            else {**self._settings, "inner_threads": inner_threads}
        )

    def _all_workers(self) -> int:
        """Return how many workers there are; this asks the pool if the number is not configured."""
        with config(**self._in_force()):
            if (workers := resolve({}).workers) is not None:
                return workers
            borrowed = borrow({})
            try:
                return borrowed.pool.workers
            finally:
                borrowed.give_back()


def _fail(error: Exception, callback: Callback | None) -> None:
    """Report a batch that cannot be sent to joblib.

    Most batches are submitted from joblib's callback. Nobody would catch the exception there, and
    joblib would wait for the batch for ever.
    """
    failed: Future[Any] = Future()
    failed.set_exception(error)
    if callback is not None:
        callback(failed)


def _notify(callback: Callback, result: Any) -> None:
    """Pass *result* to joblib and mark it as asked for: joblib asks for one of several failures."""
    callback(result)
    result._note_known_failure()


class _Batch:
    """A batch that registers this back-end by its name in its worker."""

    def __init__(self, func: Callable[[], Any]) -> None:
        self._func = func

    def __call__(self) -> Any:
        if NAME not in BACKENDS:
            register()
        return self._func()


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    """Check *settings* and return the settings that are for `config`."""
    ours = {name: value for name, value in settings.items() if name not in OF_JOBLIB}
    for name, value in ours.items():
        if name in REFUSED:
            raise ConfigurationError(f"{name}={value!r} is not for joblib: {REFUSED[name]}")
    return check_settings(ours, "joblib")
