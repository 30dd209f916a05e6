"""Threads that libraries start inside a worker: each worker has its share of the CPUs, no more.

N workers of which each starts a thread for every CPU, as BLAS and OpenMP do, would share the CPUs
among N times as many threads, and wait for one another.

Libraries read the environment when they are loaded, which in a new process is yet to come. In a
forked one they are loaded, and are told by threadpoolctl, where that is installed.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import Final

from parallel_facade._common.errors import ConfigurationError

VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""Each library's own, as its documentation has it; the first is that of OpenMP, which most read."""

LOADING: Final = ("numpy", "scipy", "torch", "numexpr")
"""Modules with which libraries are loaded that have threads. Without any of them there is nothing
to tell, and threadpoolctl need not be imported."""


def variables_for(count: int | None) -> dict[str, str]:
    """Return what the environment of workers shall have, so that libraries use *count* threads.

    Args:
        count: Threads in each worker; `None` for as many as they like.
    """
    # Also in workers whose process was started before the user set them.
    of_the_user = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    if of_the_user or count is None:
        return of_the_user
    return dict.fromkeys(VARIABLES, str(count))


def check_inner_threads_of_forks(count: int | None) -> None:
    """Raise `ConfigurationError` if forked workers could not be told to use *count* threads."""
    if count is not None and find_spec("threadpoolctl") is None and _is_any_loaded():
        raise ConfigurationError(
            f"inner_threads={count!r} is not possible without threadpoolctl in forked workers, "
            "whose libraries are loaded already\n\n"
            "Hint: pip install threadpoolctl, or start_method='forkserver'."
        )


def _is_any_loaded() -> bool:
    return any(module in sys.modules for module in LOADING)


def limit_inner_threads(variables: dict[str, str]) -> None:
    """Set *variables*, and tell libraries that are loaded already."""
    os.environ.update(variables)
    if not variables or not _is_any_loaded():
        return
    number = next(iter(variables.values()))
    with suppress(ImportError, ValueError):  # OMP_NUM_THREADS may be a list
        from threadpoolctl import threadpool_limits

        # Not undone when the object goes, only by its `restore_original_limits`.
        threadpool_limits(limits=int(number))
