"""From a setting to a back-end: by name, as an instance, or around an executor."""

from __future__ import annotations

from typing import Any

from parallel_facade._common.worker_role import is_worker
from parallel_facade._configuration.backend_registry import load_backend, with_address
from parallel_facade._dispatch.call_options import check_capabilities
from parallel_facade._dispatch.codecs import pack_initializer
from parallel_facade.backends.base import Backend, WorkerSettings


def open_backend(
    setting: Any,
    settings: WorkerSettings,
    serializer: str = "dill",
    by_value: tuple[str, ...] = (),
) -> Backend:
    """Return the back-end for *setting*; closing it closes only what is ours.

    Args:
        setting: See `Config.backend`.
        settings: How its workers shall be.
        serializer: What packs the initializer.
        by_value: Modules whose code is sent along with that.

    Raises:
        BackendLostError: There is no cluster where it should be.
        ConfigurationError: The back-end cannot honour *settings*, or is not installed.
    """
    if is_worker():
        # The worker is the budget: more workers inside of it would multiply.
        from parallel_facade.backends.serial import SerialBackend

        return SerialBackend(settings)
    if isinstance(setting, str):
        setting = with_address(setting)
        name, _, address = setting.partition(":")
        cls = load_backend(name)
        _check(name, cls, settings)
        if settings.initializer is not None and cls.capabilities.needs_serialization:
            payload = pack_initializer(
                settings.initializer,  # type: ignore[arg-type]  # not packed yet
                serializer,
                by_value,
                has_children=cls.capabilities.has_children,
            )
            settings = settings._replace(initializer=payload)
        opened: Backend = cls(settings._replace(address=address))
        return opened
    from parallel_facade.backends.borrowed import BorrowedBackend

    lent = setting if isinstance(setting, Backend) else _around(setting, settings)
    _check(setting, lent, settings)
    return BorrowedBackend(lent)


def _around(engine: Any, settings: WorkerSettings) -> Backend:
    """Return a back-end on an object of the user's, which stays open."""
    if type(engine).__module__.partition(".")[0] == "distributed" and hasattr(engine, "scheduler"):
        from parallel_facade.backends.engines.dask import backend_of

        return backend_of(engine, settings)
    from parallel_facade.backends.engines.executor import ExecutorBackend

    return ExecutorBackend(settings, engine)


def _check(setting: Any, backend: Any, settings: WorkerSettings) -> None:
    check_capabilities(
        backend_name(setting),
        backend.capabilities,
        initializer=settings.initializer,
        max_tasks_per_worker=settings.max_tasks_per_worker,
        max_memory_per_worker=settings.max_memory_per_worker,
    )


def backend_name(setting: Any) -> str:
    """Return how to call the back-end behind a setting in a message."""
    if isinstance(setting, str):
        return setting.partition(":")[0]
    return type(setting).__name__
