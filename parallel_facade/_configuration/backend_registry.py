"""The back-ends by name, and where each is found; a back-end is loaded on first use."""

from __future__ import annotations

import difflib
import functools
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from parallel_facade._common.errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS: Final = "parallel_facade.backends"
"""The entry-point group in which a distribution announces its back-ends."""

LOCAL_WORD: Final = "local"
"""After the colon of a cluster's name: start a cluster of that kind on this machine."""


class BackendLocation(NamedTuple):
    """Where a back-end of this package is found.

    Attributes:
        location: Its module and class.
        address: The environment variable in which its ecosystem keeps the cluster's address; empty
            for a back-end without an address.
        has_own_workers: Somebody else starts the workers and decides how many there are.
        starts_locally: A cluster of its kind can be started on this machine.
        needs_posix: It does not run on Windows.
        client: The package of its client objects, and an attribute that only these have; a client
            that a user passes as *backend* is recognized by it. Empty for none.
    """

    location: str
    address: str = ""
    has_own_workers: bool = False
    starts_locally: bool = False
    needs_posix: bool = False
    client: tuple[str, str] | tuple[()] = ()


HERE: Final = "parallel_facade.backends"

BUILT_IN: Final = {
    "process": BackendLocation(f"{HERE}.process.backend:ProcessBackend", needs_posix=True),
    "thread": BackendLocation(f"{HERE}.thread:ThreadBackend"),
    "serial": BackendLocation(f"{HERE}.serial:SerialBackend"),
    "dask": BackendLocation(
        f"{HERE}.engines.dask:DaskBackend",
        "DASK_SCHEDULER_ADDRESS",
        has_own_workers=True,
        starts_locally=True,
        client=("distributed", "scheduler"),
    ),
    "ray": BackendLocation(
        f"{HERE}.engines.ray:RayBackend", "RAY_ADDRESS", has_own_workers=True, starts_locally=True
    ),
    "mpi": BackendLocation(f"{HERE}.engines.mpi:MPIBackend", has_own_workers=True),
    "ppft": BackendLocation(
        f"{HERE}.engines.ppft:PpftBackend", "PARALLEL_FACADE_PPFT_SERVERS", has_own_workers=True
    ),
}

PPFT_SECRET: Final = "PARALLEL_FACADE_PPFT_SECRET"
"""The environment variable with the secret of ppft's servers."""

ADDRESSES: Final = frozenset({PPFT_SECRET, *(place.address for place in BUILT_IN.values())})
"""Environment variables for reaching clusters; they are not settings."""


@functools.cache
def plug_ins() -> dict[str, EntryPoint]:
    """Return the back-ends that installed distributions announce."""
    # Importing it costs more than importing this whole package.
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def backend_of_client(client: Any) -> Any:
    """Return the class of the back-end whose engine *client* belongs to; `None` if of none."""
    package = type(client).__module__.partition(".")[0]
    for name, place in BUILT_IN.items():
        if place.client and place.client[0] == package and hasattr(client, place.client[1]):
            return load_backend(name)
    return None


def known_backends() -> list[str]:
    """Return the sorted names of all back-ends that can be asked for."""
    return sorted({*BUILT_IN, *plug_ins()})


def check_backend_name(setting: str) -> str:
    """Return *setting*, the name of a back-end, optionally with an address after a colon.

    Raises:
        ConfigurationError: The name is unknown, or an address is given to a back-end that takes
            none, or the address is empty.

    >>> check_backend_name("dask:tcp://10.0.0.1:8786")
    'dask:tcp://10.0.0.1:8786'
    """
    name, colon, address = setting.partition(":")
    if name not in BUILT_IN and name not in plug_ins():
        known = ", ".join(known_backends())
        near = nearest(name, known_backends())
        raise ConfigurationError(f"no back-end is called {name!r}{near}; known: {known}")
    place = BUILT_IN.get(name)
    if colon and place is not None and not place.address:
        raise ConfigurationError(f"back-end {name!r} takes no address, got {address!r}")
    if colon and not address:
        raise ConfigurationError(f"back-end {setting!r} has no address after its colon")
    return setting


def has_own_workers(setting: Any) -> bool:
    """Return whether somebody else starts the workers of the back-end that *setting* asks for.

    For *setting*, see `Config.backend`. True for an executor or a `Backend` object.
    """
    if not isinstance(setting, str):
        return True
    name, _, address = setting.partition(":")
    place = BUILT_IN.get(name)
    return place is not None and place.has_own_workers and address != LOCAL_WORD


def with_address(setting: Any) -> Any:
    """Return *setting* with the address of its cluster, from the environment if it has none.

    Raises:
        ConfigurationError: The environment has none either; the message names the variable.
    """
    place = BUILT_IN.get(setting) if isinstance(setting, str) else None
    if place is None or not place.address:
        return setting
    if address := os.environ.get(place.address):
        return f"{setting}:{address}"
    local = (
        f", or start one on this machine: backend='{setting}:{LOCAL_WORD}'"
        if place.starts_locally
        else ""
    )
    raise ConfigurationError(
        f"back-end {setting!r} has no address: the environment variable {place.address} is not set"
        f"\n\nHint: set it, or say where the cluster is: backend='{setting}:ADDRESS'{local}."
    )


def load_backend(setting: str) -> Any:
    """Import and return the class of the back-end that *setting* names.

    Raises:
        ConfigurationError: No back-end has this name, it does not run on this system, or a package
            that it needs is not installed or cannot be imported.
    """
    name, _, _ = check_backend_name(setting).partition(":")
    if sys.platform == "win32" and name in BUILT_IN and BUILT_IN[name].needs_posix:
        raise ConfigurationError(
            f"back-end {name!r} does not run on Windows, only on Linux and macOS\n\n"
            "Hint: use backend='thread', backend='serial', or an executor of processes: "
            "backend=concurrent.futures.ProcessPoolExecutor(), which needs a main guard in a "
            "script. PARALLEL_FACADE_BACKEND=thread chooses threads for a whole program."
        )
    try:
        loaded = _load(name)
    except ImportError as exc:
        hint = f"pip install 'parallel-facade[{name}]'"
        raise ConfigurationError(
            f"back-end {name!r} is not installed: {exc}\n\nHint: {hint}"
        ) from exc
    except Exception as exc:  # for example mpi4py without an MPI
        reason = f"{type(exc).__name__}: {exc}".partition("\n")[0]
        raise ConfigurationError(
            f"back-end {name!r} is installed, but cannot be imported: {reason}\n\n"
            "Hint: a library that its package needs is missing, such as MPI for mpi4py."
        ) from exc
    if not isinstance(loaded, type):
        raise ConfigurationError(f"a back-end must be a class, got {loaded!r}")
    return loaded


def _load(name: str) -> Any:
    if (place := BUILT_IN.get(name)) is None:
        return plug_ins()[name].load()
    module, _, attribute = place.location.partition(":")
    return getattr(import_module(module), attribute)


def nearest(name: str, known: list[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known name nearest to *name*, or ``""``."""
    found = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""
