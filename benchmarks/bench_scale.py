"""How many workers one caller can feed: sleeping tasks on 1 to 256 simulated ones, in one run.

python benchmarks/bench_scale.py --out docs/explanation/scale

A simulated worker is a thread that is given what a process on another machine would be: bytes, of
which it makes the call and its arguments. So all that this library does for a task is measured, on
both sides, and no engine. With Dask, a worker is a thread of four worker processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distributed
import numpy as np

from parallel_facade import Pool

WORKERS = (1, 4, 16, 64, 256)
SLEEPS = (0.01, 0.1, 1.0)
EACH = 4
"""Tasks for each worker."""

COUNT = 4_000
BYTES = 8_000_000
PROCESSES = 4


class Simulated(ThreadPoolExecutor):
    """Threads that are sent bytes: of the class itself this library knows that it shares memory."""


@contextmanager
def simulated(workers: int) -> Iterator[Executor]:
    """Give an executor of that many threads."""
    with Simulated(workers) as executor:
        yield executor


@contextmanager
def dask(workers: int) -> Iterator[Any]:
    """Give the client of a cluster of that many worker threads, in a few processes."""
    processes = min(workers, PROCESSES)
    shape = {"n_workers": processes, "threads_per_worker": workers // processes}
    with (
        distributed.LocalCluster(**shape, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


ENGINES: dict[str, Callable[[int], Any]] = {"dispatch alone": simulated, "on Dask": dask}


def nothing(x: int) -> int:
    """Return *x*."""
    return x


def first(array: Any) -> float:
    """Read an array."""
    return float(array[0])


def seconds(action: Callable[[], object]) -> float:
    """Return how long *action* takes, the second time."""
    action()
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def efficiencies(name: str, workers: int) -> dict[str, float]:
    """Return how much of the workers' time is slept, by the seconds of a task, one in a chunk."""
    found = {}
    with ENGINES[name](workers) as engine, Pool(backend=engine) as pool:
        for sleep in SLEEPS:
            tasks = [sleep] * (EACH * workers)
            took = seconds(lambda tasks=tasks: pool.pmap(time.sleep, tasks, chunksize=1))
            found[str(sleep)] = sleep * EACH / took
            print(f"{name}, {workers} workers, {sleep:g} s: {found[str(sleep)]:.0%}", flush=True)
    return found


def costs(name: str) -> dict[str, float]:
    """Return the microseconds for a task, by chunks, and the nanoseconds for a byte."""
    few = COUNT if name == "dispatch alone" else COUNT // 8
    arrays = [np.full(BYTES // 8, float(number)) for number in range(20)]
    with ENGINES[name](4) as engine, Pool(backend=engine) as pool:
        one = seconds(lambda: pool.pmap(nothing, range(few), chunksize=1)) / few
        many = seconds(lambda: pool.pmap(nothing, range(COUNT * 10))) / (COUNT * 10)
        big = seconds(lambda: pool.pmap(first, arrays, chunksize=1)) / (len(arrays) * BYTES)
    found = {"task_us": one * 1e6, "item_us": many * 1e6, "byte_ns": big * 1e9}
    print(name, {key: round(value, 2) for key, value in found.items()}, flush=True)
    return found


def plot(path: Path, scaling: dict[str, Any]) -> None:
    """Draw the efficiency by the number of workers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, (name, by_workers) in zip(figure.subplots(1, 2), scaling.items(), strict=True):
        for sleep in map(str, SLEEPS):
            shares = [100 * by_workers[str(workers)][sleep] for workers in WORKERS]
            axes.plot(WORKERS, shares, "o-", label=f"tasks of {sleep} s")
        axes.set(xscale="log", ylim=(0, 105), xlabel="workers", ylabel="% of their time in use")
        axes.set_xticks(WORKERS, [str(workers) for workers in WORKERS])
        axes.set_title(name)
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, and write ``figures.json`` and ``scale.png``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write into")
    out = parser.parse_args().out
    warnings.filterwarnings("ignore", message="Sending large graph")
    figures = {
        "machine": {"python": platform.python_version(), "cpus": os.cpu_count()},
        "costs": {name: costs(name) for name in ENGINES},
        "scaling": {
            name: {str(workers): efficiencies(name, workers) for workers in WORKERS}
            for name in ENGINES
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    plot(out / "scale.png", figures["scaling"])


if __name__ == "__main__":
    main()
