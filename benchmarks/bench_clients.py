"""What programs do with a pool: each in turns on our `Pool` and those of the standard library.

python benchmarks/bench_clients.py [WORDS]     rows whose names hold one of the words

All pools have two warm workers, by forkserver. A row whose library is not installed is left out.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from parallel_facade import Pool

ROUNDS = 3
OURS, POOL, EXECUTOR = "parallel_facade", "multiprocessing.Pool", "ProcessPoolExecutor"

Action = Callable[[], object]


class Row(NamedTuple):
    """One workload.

    Attributes:
        name: Its name.
        count: How often each library does it in a round.
        actions: What each library does, by its name; ours first.
    """

    name: str
    count: int
    actions: dict[str, Action]


class Pools(NamedTuple):
    """The pools that are compared."""

    ours: Pool
    pool: Any
    executor: ProcessPoolExecutor


def square(x: int) -> int:
    return x * x


def wait_a_millisecond(x: int) -> int:
    time.sleep(0.001)
    return x


def likelihood(point: Any) -> float:
    """Compute for 0.2 ms."""
    end = time.perf_counter() + 2e-4
    while time.perf_counter() < end:
        pass
    return -0.5 * float((point * point).sum())


def summarized(group: Any) -> float:
    return float(group[1]["value"].mean())


# ── the rows ──────────────────────────────────────────────────────────────────────────────────────


def small_maps(pools: Pools) -> list[Row]:
    floats = [float(x) for x in range(60)]
    ours, pool, executor = pools
    return [
        Row(
            "60 tiny items, pmap",
            60,
            {OURS: lambda: ours.pmap(math.sqrt, floats), POOL: lambda: pool.map(math.sqrt, floats)},
        ),
        Row(
            "60 tiny items, Pool.map",
            60,
            {
                OURS: lambda: list(ours.map(math.sqrt, floats)),
                POOL: lambda: pool.map(math.sqrt, floats),
            },
        ),
        Row(
            "a map of 2",
            100,
            {
                OURS: lambda: ours.pmap(square, [1, 2]),
                POOL: lambda: pool.map(square, [1, 2]),
                EXECUTOR: lambda: list(executor.map(square, [1, 2])),
            },
        ),
        Row(
            "submit and result",
            150,
            {
                OURS: lambda: ours.submit(square, 2).result(),
                POOL: lambda: pool.apply(square, (2,)),
                EXECUTOR: lambda: executor.submit(square, 2).result(),
            },
        ),
    ]


def large_maps(pools: Pools) -> list[Row]:
    ours, pool, executor = pools
    many = range(300_000)
    return [
        Row(
            "200 items of 1 ms",
            5,
            {
                OURS: lambda: ours.pmap(wait_a_millisecond, range(200)),
                POOL: lambda: pool.map(wait_a_millisecond, range(200)),
                EXECUTOR: lambda: list(executor.map(wait_a_millisecond, range(200), chunksize=10)),
            },
        ),
        *(
            Row(
                f"300,000 tiny items, {function.__name__}",
                5,
                {
                    OURS: functools.partial(ours.pmap, function, many),
                    POOL: functools.partial(pool.map, function, many),
                },
            )
            for function in (square, abs)
        ),
    ]


def arrays(pools: Pools) -> list[Row]:
    numpy = importlib.import_module("numpy")
    small = [numpy.arange(20.0) + x for x in range(16)]
    return [
        Row(
            "16 small arrays",
            60,
            {
                OURS: lambda: pools.ours.pmap(numpy.sum, small),
                POOL: lambda: pools.pool.map(numpy.sum, small),
            },
        )
    ]


def groups(pools: Pools) -> list[Row]:
    pandas = importlib.import_module("pandas")
    frame = pandas.DataFrame({"key": [x // 20 for x in range(20_000)], "value": range(20_000)})
    found = list(frame.groupby("key"))
    return [
        Row(
            "1,000 pandas groups of 20 rows",
            2,
            {
                OURS: lambda: pools.ours.pmap(summarized, found),
                EXECUTOR: lambda: list(pools.executor.map(summarized, found, chunksize=50)),
            },
        )
    ]


def coroutines(pools: Pools) -> list[Row]:
    async def many(executor: Executor) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(executor, square, x) for x in range(300)))

    return [
        Row(
            "asyncio, 300 small calls",
            5,
            {
                OURS: lambda: asyncio.run(many(pools.ours)),
                EXECUTOR: lambda: asyncio.run(many(pools.executor)),
            },
        )
    ]


def sampler(pools: Pools) -> list[Row]:
    emcee = importlib.import_module("emcee")
    numpy = importlib.import_module("numpy")
    start = numpy.random.default_rng(1).normal(size=(32, 5))

    def sample(pool: Any) -> None:
        emcee.EnsembleSampler(32, 5, likelihood, pool=pool).run_mcmc(start, 40, progress=False)

    return [
        Row(
            "emcee, 32 walkers, 40 steps",
            2,
            {OURS: lambda: sample(pools.ours), POOL: lambda: sample(pools.pool)},
        )
    ]


def optimizer(pools: Pools) -> list[Row]:
    optimize = importlib.import_module("scipy.optimize")

    def evolve(workers: Any) -> None:
        optimize.differential_evolution(
            likelihood,
            [(0, 2)] * 4,
            workers=workers,
            updating="deferred",
            maxiter=30,
            popsize=10,
            polish=False,
        )

    return [
        Row(
            "SciPy, differential evolution",
            2,
            {OURS: lambda: evolve(pools.ours.map), POOL: lambda: evolve(pools.pool.map)},
        )
    ]


ROWS = (small_maps, arrays, sampler, optimizer, coroutines, groups, large_maps)


# ── measuring ─────────────────────────────────────────────────────────────────────────────────────


def measured(row: Row) -> dict[str, float]:
    """Return the median seconds of each library, in turns within each round."""
    laps: dict[str, list[float]] = {name: [] for name in row.actions}
    for _ in range(ROUNDS):
        for name, action in row.actions.items():
            for _ in range(row.count):
                began = time.perf_counter()
                action()
                laps[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in laps.items()}


def main(words: list[str]) -> None:
    """Print one line for each row: our time, and its ratio to the best other one."""
    context = multiprocessing.get_context("forkserver")
    with (
        Pool(workers=2) as ours,
        context.Pool(2) as pool,
        ProcessPoolExecutor(2, mp_context=context) as executor,
    ):
        pools = Pools(ours, pool, executor)
        for start in (ours.pmap, pool.map, executor.map):
            list(start(square, range(100)))
        for rows in ROWS:
            found: list[Row] = []
            with suppress(ImportError):
                found = rows(pools)
            for row in found:
                if words and not any(word in row.name for word in words):
                    continue
                seconds = measured(row)
                ours_took = seconds.pop(OURS)
                best = min(seconds, key=lambda name: seconds[name])
                ratio = ours_took / seconds[best]
                print(f"{row.name:34} {ours_took * 1e3:9.2f} ms {ratio:6.2f} x {best}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
