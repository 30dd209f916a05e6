"""Threads that libraries start inside a worker: each worker gets its share of the CPUs, no more.

If each of N workers started a thread for every CPU, as BLAS and OpenMP do, N times as many threads
would share the CPUs, and wait for each other.

Libraries read the environment when they are loaded. In a new process they are not loaded yet. In a
forked process they are loaded already; there threadpoolctl limits them, if it is installed.
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
"""The variable of each library, from its documentation; the first is OpenMP's, which most read."""

LOADING: Final = ("numpy", "scipy", "torch", "numexpr")
"""Modules that load libraries with threads. If none of them is loaded, there is nothing to limit,
and threadpoolctl need not be imported."""


def variables_for(count: int | None) -> dict[str, str]:
    """Return the environment variables for workers whose libraries use *count* threads.

    Args:
        count: Threads in each worker; `None` for no limit.
    """
    # Set them also in workers whose process was started before the user set them.
    of_the_user = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    if of_the_user or count is None:
        return of_the_user
    return dict.fromkeys(VARIABLES, str(count))


def check_inner_threads_of_forks(count: int | None) -> None:
    """Raise `ConfigurationError` if forked workers could not be limited to *count* threads."""
    if count is not None and find_spec("threadpoolctl") is None and _is_any_loaded():
        raise ConfigurationError(
            f"inner_threads={count!r} is not possible without threadpoolctl in forked workers, "
            "whose libraries are loaded already\n\n"
            "Hint: pip install threadpoolctl, or start_method='forkserver'."
        )


def _is_any_loaded() -> bool:
    return any(module in sys.modules for module in LOADING)


def limit_inner_threads(variables: dict[str, str]) -> None:
    """Set *variables*, and limit libraries that are loaded already."""
    os.environ.update(variables)
    if not variables or not _is_any_loaded():
        return
    number = next(iter(variables.values()))
    with suppress(ImportError, ValueError):  # OMP_NUM_THREADS may be a list
        from threadpoolctl import threadpool_limits

        # The end of the object does not undo it, only its `restore_original_limits` does.
        threadpool_limits(limits=int(number))
