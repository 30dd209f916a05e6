"""The types of settings, for type checkers: as keyword arguments of calls and of `config`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from parallel_facade._console.progress import Progress
    from parallel_facade.backends.base import Backend

BackendLike: TypeAlias = "str | Backend | Executor"
"""A back-end's name, a `Backend`, or a `concurrent.futures.Executor` (a `Pool` is one)."""

ProgressLike: TypeAlias = "bool | str | Callable[[Progress], object]"
"""A bar or none, a bar with a description, or a callable that is given each `Progress`."""


class CallSettings(TypedDict, total=False):
    """The settings that every call takes as arguments."""

    workers: int | None
    timeout: float | None
    task_timeout: float | None
    retries: int | None
    retry_delay: float | None
    seed: int | None
    serializer: str | None


class MapSettings(CallSettings, total=False):
    """The settings that maps take as arguments."""

    chunksize: int | None
    progress: ProgressLike | None


class AllSettings(MapSettings, total=False):
    """All settings."""

    backend: BackendLike | None
    start_method: str | None
    inner_threads: int | None
    by_value: str | Iterable[str] | None
    start_timeout: float | None
    relay: bool | None


ONLY_FOR_MAPS: Final = tuple(
    name for name in MapSettings.__annotations__ if name not in CallSettings.__annotations__
)
"""Settings that have no meaning for one call."""
