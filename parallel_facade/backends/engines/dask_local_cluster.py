"""Run a Dask cluster on this machine, in a separate process that ends with the caller.

Dask's own local cluster starts workers that run the caller's script again; here this module starts
the workers.

    caller ── LocalDask ──► this module as a program ──► LocalCluster: scheduler and workers
                 └── its standard input: when that ends for any reason, the cluster ends
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Final

from parallel_facade._common.errors import BackendLostError
from parallel_facade.backends.engines.handshake import within

START_SECONDS: Final = 120.0
"""How long a cluster may take to start; it takes about 5 s on an idle machine."""


class LocalDask:
    """A running local cluster.

    Args:
        workers: How many worker processes, with one thread each.
    """

    def __init__(self, workers: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.address: str = within(START_SECONDS, self._read, "starting a Dask cluster")
        except BaseException:
            self.close()
            raise

    def _read(self) -> str:
        assert self._process.stdout is not None, "it is a pipe"
        if not (line := self._process.stdout.readline()):
            raise BackendLostError(
                f"a local Dask cluster could not start: exit code {self._process.wait()}"
            )
        return line.strip()

    def close(self) -> None:
        """End the cluster, and wait for that."""
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


END_SECONDS: Final = 20.0
"""How long the cluster may take to exit."""


def _main(workers: int) -> None:
    from distributed import LocalCluster

    local: Any = LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    )
    with local as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
