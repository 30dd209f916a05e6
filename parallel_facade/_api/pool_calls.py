"""What every pool does for a call: its back-end, checked options, and the call itself."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from parallel_facade._api.open_backend import (
    PoolOptions,
    backend_name,
    open_backend,
    serial_backend,
)
from parallel_facade._api.results import ResultIterator
from parallel_facade._common.callback_thread import CallbackThread
from parallel_facade._common.errors import ConfigurationError, PoolClosedError
from parallel_facade._common.shutdown import park_daemon_threads, parking_daemon_threads
from parallel_facade._common.worker_role import is_worker
from parallel_facade._configuration.setting_table import Config
from parallel_facade._configuration.settings import resolve
from parallel_facade._dispatch.async_result import AsyncResult
from parallel_facade._dispatch.call_options import (
    Options,
    make_options,
)
from parallel_facade._dispatch.map_run import MapRun
from parallel_facade._dispatch.prepare_call import (
    Target,
    eager_map,
    lazy_map,
    start_background_call,
)
from parallel_facade.backends.base import Backend, WorkerSettings


class PoolCalls(ABC):
    """Opens a back-end, and makes calls on it."""

    _backend: Backend
    _closed: bool
    _is_shut: bool

    @abstractmethod
    def close(self, *, cancel: bool = False) -> None:
        """Release the workers."""

    @abstractmethod
    def _note_open(self) -> None:
        """Note that the pool has its workers, which have to be released at the end."""

    @classmethod
    def _of(cls, config: Config, token: str = "") -> Self:
        """Return a pool with settings that are resolved already.

        Args:
            config: The settings.
            token: What stands for the pool when it travels; empty for a new one.
        """
        pool = cls.__new__(cls)
        pool._open(config, PoolOptions(), token)
        return pool

    def _open(self, config: Config, options: PoolOptions, token: str = "") -> None:
        self._backend_setting = config.backend
        self._options_given = options
        self._asked = config.workers
        self._pid = os.getpid()
        self._token = token or os.urandom(8).hex()
        self._lock = threading.Lock()  # guards _closed
        self._closed = False
        self._is_shut = False  # closed for new calls; the accepted ones go on
        self._callback_thread = CallbackThread()
        self._decisions = CallbackThread("retries")
        if isinstance(config.backend, PoolCalls):
            config = config._replace(backend=config.backend._backend_here())
        self._backend = open_backend(config, options)
        try:
            self._note_open()
        except BaseException:  # Ctrl-C
            self.close(cancel=True)
            raise

    def _target(self) -> Target:
        """Return the target of a call made here and now."""
        return Target(
            self._backend_here(),
            backend_name(self._backend_setting),
            self._options_given.max_tasks_per_worker,
            self._options_given.max_memory_per_worker,
        )

    def _map(
        self,
        options: Options,
        func: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        *,
        strict: bool,
        submits_all: bool = False,
    ) -> MapRun:
        """Return a map run; its inputs are read now."""
        return eager_map(
            self._target(), func, iterables, options, strict=strict, submits_all=submits_all
        )

    def _lazy_map(
        self,
        options: Options,
        func: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        *,
        ordered: bool,
        buffersize: int | None,
        strict: bool,
        on_close: Callable[[], object] | None,
    ) -> ResultIterator[Any]:
        """Return the results of a map over inputs that are read as results are taken."""
        run = lazy_map(
            self._target(),
            func,
            iterables,
            options,
            ordered=ordered,
            buffersize=buffersize,
            strict=strict,
        )
        return ResultIterator(run, on_close=on_close)

    def _call(
        self,
        options: Options,
        func: Callable[..., Any],
        args: Iterable[Any],
        kwds: Mapping[str, Any] | None,
        *,
        when_done: Callable[[Any], None] | None,
        on_end: Callable[[], object] | None,
    ) -> AsyncResult[Any]:
        """Start one call in the background, and return its future."""
        with parking_daemon_threads():
            background = start_background_call(
                self._target(),
                func,
                args,
                kwds,
                options,
                callback_thread=self._callback_thread,
                decisions=self._decisions,
            )
            result: AsyncResult[Any] = background.result
            if when_done is not None:
                result.add_done_callback(when_done)
            background.start(on_end)
        return result

    def _options(
        self, settings: dict[str, Any], retry_on: Any, *, return_exceptions: Any
    ) -> Options:
        """Return the options of a call to this pool."""
        for name in ("backend", "start_method", "inner_threads"):
            if name in settings:
                raise ConfigurationError(
                    f"{name}={settings[name]!r} is fixed when the pool is made: Pool({name}=...)"
                )
        if settings.get("serializer") is None:
            settings = {**settings, "serializer": self._options_given.serializer}
        resolved = resolve(settings)
        return make_options(
            resolved,
            retry_on=retry_on,
            return_exceptions=return_exceptions,
            workers=resolved.workers if settings.get("workers") is not None else self._asked,
        )

    def _backend_here(self) -> Backend:
        """Return the back-end to use in the current process and thread."""
        if self._closed or self._is_shut:
            park_daemon_threads()
            raise PoolClosedError(f"{self!r} cannot be used any more")
        if is_worker() and not self._backend.capabilities.runs_in_caller:
            return serial_backend(WorkerSettings(1))
        if self._pid != os.getpid():
            raise PoolClosedError(
                f"{self!r} belongs to process {self._pid}, and this process was forked from it\n\n"
                "Hint: make a new Pool in this process."
            )
        return self._backend
