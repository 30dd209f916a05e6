"""From a setting to a back-end: by name, as an instance, or around an executor."""

from __future__ import annotations

from typing import Any

from parallel_facade._carriers import pack_initializer
from parallel_facade._options import check_capabilities
from parallel_facade._registry import load_backend
from parallel_facade._worker import is_worker
from parallel_facade.backends import Backend, WorkerSettings


def open_backend(setting: Any, settings: WorkerSettings, serializer: str) -> Backend:
    """Return the back-end for *setting*; closing it closes only what is ours.

    Raises:
        ConfigurationError: The back-end cannot honour *settings*, or is not installed.
    """
    if is_worker():
        # The worker is the budget: more workers inside of it would multiply.
        from parallel_facade.backends._serial import SerialBackend

        return SerialBackend(settings)
    if isinstance(setting, str):
        cls = load_backend(setting)
        _check(setting, cls, settings)
        if settings.initializer is not None and cls.capabilities.needs_serialization:
            payload = pack_initializer(settings.initializer, serializer)  # type: ignore[arg-type]
            settings = settings._replace(initializer=payload)
        opened: Backend = cls(settings)
        return opened
    from parallel_facade.backends._borrowed import BorrowedBackend
    from parallel_facade.backends._executor import ExecutorBackend

    lent = setting if isinstance(setting, Backend) else ExecutorBackend(setting, settings)
    _check(setting, lent, settings)
    return BorrowedBackend(lent)


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
    return setting if isinstance(setting, str) else type(setting).__name__
