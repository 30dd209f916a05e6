"""The types of the public signatures, shared by the verbs and `Pool`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, TypedDict

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from parallel_facade._console.progress import Progress
    from parallel_facade.backends.base import Backend

BackendLike: TypeAlias = "str | Backend | Executor"
"""A back-end's name, a `Backend`, or a `concurrent.futures.Executor` (for example a `Pool`)."""

ErrorTypes: TypeAlias = "type[BaseException] | tuple[type[BaseException], ...]"
"""An exception class or a tuple of them, as in an ``except`` clause."""

ProgressLike: TypeAlias = "bool | str | Callable[[Progress], object]"
"""Whether to show a bar, the description of a bar, or a callable that takes each `Progress`."""


class TaskOptions(TypedDict, total=False):
    """Options of every call."""

    workers: int | None
    timeout: float | None
    task_timeout: float | None
    retries: int | None
    retry_delay: float | None
    retry_on: ErrorTypes
    seed: int | None
    serializer: str | None


class PoolMapOptions(TaskOptions, total=False):
    """Options of a map on a pool."""

    chunksize: int | None
    progress: ProgressLike | None
    strict: bool


class MapOptions(PoolMapOptions, total=False):
    """Options of a map."""

    backend: BackendLike | None


class LazyOptions(MapOptions, total=False):
    """Options of a lazy map."""

    ordered: bool
    buffersize: int | None
