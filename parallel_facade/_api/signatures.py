"""The types of options that are no settings, shared by the verbs and `Pool`."""

from __future__ import annotations

from typing import TypeAlias

from parallel_facade._configuration.setting_types import (
    BackendLike,
    CallSettings,
    MapSettings,
    ProgressLike,
)

ErrorTypes: TypeAlias = "type[BaseException] | tuple[type[BaseException], ...]"
"""One exception class or several, as in an ``except`` clause."""

__all__ = [
    "BackendLike",
    "ErrorTypes",
    "LazyOptions",
    "MapOptions",
    "PoolMapOptions",
    "ProgressLike",
]


class TaskOptions(CallSettings, total=False):
    """Options of every call."""

    retry_on: ErrorTypes


class PoolMapOptions(TaskOptions, MapSettings, total=False):
    """Options of a map on a pool."""

    strict: bool


class MapOptions(PoolMapOptions, total=False):
    """Options of a map."""

    backend: BackendLike | None


class LazyOptions(MapOptions, total=False):
    """Options of a lazy map."""

    ordered: bool
    buffersize: int | None
