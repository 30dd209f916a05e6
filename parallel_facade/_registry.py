"""Which back-ends there are, by name, and where each is found; loaded on first use only."""

from __future__ import annotations

import difflib
import functools
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from parallel_facade._errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS: Final = "parallel_facade.backends"
"""The entry-point group in which a distribution announces its back-ends."""

BUILT_IN: Final = {
    "process": "parallel_facade.backends._process:ProcessBackend",
    "serial": "parallel_facade.backends._serial:SerialBackend",
    "thread": "parallel_facade.backends._thread:ThreadBackend",
}

NOT_YET: Final = {
    "dask": "pass distributed.Client.get_executor() as backend=",
    "mpi": "pass an mpi4py.futures.MPIPoolExecutor as backend=",
    "ppft": "pass any concurrent.futures.Executor as backend=",
    "ray": "pass any concurrent.futures.Executor as backend=",
}
"""Cluster names that are reserved, each with the road that works."""


@functools.cache
def plug_ins() -> dict[str, EntryPoint]:
    """Return the back-ends that installed distributions announce."""
    # Its import costs more than that of this whole package.
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def known_backends() -> list[str]:
    """Return the name of every back-end that can be asked for, sorted."""
    return sorted({*BUILT_IN, *plug_ins()})


def check_backend_name(name: str) -> str:
    """Return *name*; raise `ConfigurationError` with the known names if there is none like it."""
    if name in BUILT_IN or name in plug_ins():
        return name
    if name in NOT_YET:
        raise ConfigurationError(
            f"back-end {name!r} cannot be chosen by name in this version\n\nHint: {NOT_YET[name]}"
        )
    known = ", ".join(known_backends())
    near = nearest(name, known_backends())
    raise ConfigurationError(f"no back-end is called {name!r}{near}; known: {known}")


def load_backend(name: str) -> Any:
    """Return the class of the back-end called *name*, importing what it needs.

    Raises:
        ConfigurationError: No back-end has this name, or what it needs is not installed.
    """
    check_backend_name(name)
    try:
        if (location := BUILT_IN.get(name)) is None:
            return _as_class(plug_ins()[name].load())
        module, _, attribute = location.partition(":")
        return _as_class(getattr(import_module(module), attribute))
    except ImportError as exc:
        hint = f"pip install 'parallel-facade[{name}]'"
        raise ConfigurationError(
            f"back-end {name!r} is not installed: {exc}\n\nHint: {hint}"
        ) from exc


def _as_class(loaded: object) -> Any:
    if not isinstance(loaded, type):
        raise ConfigurationError(f"a back-end must be a class, got {loaded!r}")
    return loaded


def nearest(name: str, known: list[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known name nearest to *name*, or nothing."""
    found = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""
