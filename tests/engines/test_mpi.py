"""MPI: ranks that are not there, and ranks that die."""

import os
import subprocess
import sys

import pytest
from engines_here import MPI_AS_ROOT, reason_to_skip

from parallel_facade import ConfigurationError, pmap


def test_ranks_of_mpi_are_there_or_the_line_that_starts_them_is_shown():
    pytest.importorskip("mpi4py")
    if not reason_to_skip("mpi"):
        pytest.skip("it has ranks")

    with pytest.raises(ConfigurationError, match="mpiexec -n 3 python -m mpi4py.futures"):
        pmap(abs, [1], backend="mpi")


def test_mpi_ends_the_program_when_a_rank_dies():
    pytest.importorskip("mpi4py")
    script = "import os; from parallel_facade import pmap; pmap(os._exit, [3], backend='mpi')"
    try:
        ended = subprocess.run(
            [
                *("mpiexec", "--oversubscribe", "-n", "3"),
                *(sys.executable, "-m", "mpi4py.futures", "-c", script),
            ],
            env={**os.environ, **MPI_AS_ROOT},
            capture_output=True,
            timeout=100,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("mpiexec is not installed")

    assert ended.returncode != 0
