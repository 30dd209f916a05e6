"""From the settings of a pool to its back-end: by name, as an instance, or around an executor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from parallel_facade._common.worker_role import is_worker
from parallel_facade._configuration.backend_registry import (
    backend_of_client,
    load_backend,
    with_address,
)
from parallel_facade._configuration.setting_table import Config
from parallel_facade._configuration.settings import resolve, usable_cpus
from parallel_facade._dispatch.call_options import check_capabilities
from parallel_facade._dispatch.codecs import pack_initializer
from parallel_facade.backends.base import Backend, Capabilities, WorkerSettings


class PoolOptions(NamedTuple):
    """What a pool was asked for in its own arguments; `None` for nothing.

    Attributes:
        start_method: How its processes start.
        inner_threads: Threads that libraries use in each worker; 0 for as many as they like.
        initializer: Runs once in each new worker.
        max_tasks_per_worker: Replace a worker after this many tasks.
        max_memory_per_worker: Replace a worker whose resident memory, in bytes, is above this.
        serializer: What packs its calls.
    """

    start_method: str | None = None
    inner_threads: int | None = None
    initializer: Callable[[], object] | None = None
    max_tasks_per_worker: int | None = None
    max_memory_per_worker: int | None = None
    serializer: str | None = None


def resolve_once(arguments: dict[str, Any]) -> Config:
    """Return the settings of a call or a pool, with the address of the cluster, if it has one.

    The environment and what is configured may change while the call goes on: nothing of the call
    asks them again.

    Raises:
        ConfigurationError: A setting has a bad value, or the cluster's address is nowhere.
    """
    config = resolve(arguments)
    # A call within a worker runs in that worker, wherever it asks to go.
    if is_worker() or (backend := with_address(config.backend)) is config.backend:
        return config  # most calls go to no cluster, and a copy would cost each of them
    return config._replace(backend=backend)


def open_backend(config: Config, options: PoolOptions) -> Backend:
    """Return the back-end of a pool; closing it closes only workers that the pool has started.

    Args:
        config: The settings, from `resolve_once`.
        options: The pool's own.

    Raises:
        BackendLostError: There is no cluster at the address.
        ConfigurationError: The back-end cannot honour the options, or is not installed.
    """
    settings = worker_settings(config, options)
    if is_worker():
        return serial_backend(settings)
    if isinstance(config.backend, str):
        return _open_named(config, options, settings)
    from parallel_facade.backends.borrowed import BorrowedBackend

    engine = config.backend
    backend = engine if isinstance(engine, Backend) else _around(engine, settings)
    # Its workers are started already, in whatever way.
    can = backend.capabilities._replace(has_children=False)
    _check(config.backend, can, options)
    return BorrowedBackend(backend)


def worker_settings(config: Config, options: PoolOptions) -> WorkerSettings:
    """Return how the workers of a pool are to be."""
    workers = config.workers or usable_cpus()
    threads = config.inner_threads
    if threads is None:
        threads = max(1, usable_cpus() // workers)
    return WorkerSettings(
        workers,
        config.start_method,
        options.initializer,
        options.max_tasks_per_worker,
        options.max_memory_per_worker,
        threads or None,
        bool(options.inner_threads),
        config.start_timeout,
    )


def serial_backend(settings: WorkerSettings) -> Backend:
    """Return the back-end for calls inside of a worker: more workers there would multiply."""
    from parallel_facade.backends.serial import SerialBackend

    return SerialBackend(settings)


def _open_named(config: Config, options: PoolOptions, settings: WorkerSettings) -> Backend:
    name, _, address = config.backend.partition(":")
    cls = load_backend(name)
    _check(name, cls.capabilities, options)
    if options.initializer is not None and cls.capabilities.needs_serialization:
        payload = pack_initializer(
            options.initializer,
            config.serializer,
            config.by_value,
            has_children=cls.capabilities.has_children,
        )
        settings = settings._replace(initializer=payload)
    opened: Backend = cls(settings._replace(address=address))
    return opened


def _around(engine: Any, settings: WorkerSettings) -> Backend:
    """Return a back-end around the user's own object, which stays open."""
    if (cls := backend_of_client(engine)) is not None:
        opened: Backend = cls.of_client(engine, settings)
        return opened
    from parallel_facade.backends.engines.executor import ExecutorBackend

    return ExecutorBackend(settings, engine)


def _check(setting: Any, capabilities: Capabilities, options: PoolOptions) -> None:
    wanted = options._asdict()
    del wanted["serializer"]
    check_capabilities(backend_name(setting), capabilities, **wanted)


def backend_name(setting: Any) -> str:
    """Return the name of the back-end behind a setting, for messages."""
    if isinstance(setting, str):
        return setting.partition(":")[0]
    return type(setting).__name__
