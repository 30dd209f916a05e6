"""The library's own cost per call and per item, beside `multiprocessing.Pool`, in one run.

python benchmarks/bench_overhead.py
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable

from parallel_facade import Pool

ROUNDS = 7
WORKERS = 2


def square(x: int) -> int:
    """Return the square of *x*: as little work as an item can be."""
    return x * x


def milliseconds(call: Callable[[], object]) -> float:
    """Return the wall time of *call*."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    """Print medians of interleaved rounds, and their ratio."""
    plain = multiprocessing.get_context("forkserver").Pool(WORKERS)
    with plain, Pool(workers=WORKERS) as ours:
        cases: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "map of 2 items": (
                lambda: ours.pmap(square, range(2)),
                lambda: plain.map(square, range(2)),
            ),
            "one call and its result": (
                lambda: ours.apply_async(square, (3,)).get(),
                lambda: plain.apply_async(square, (3,)).get(),
            ),
            "1,000 items, one each": (
                lambda: ours.pmap(square, range(1_000), chunksize=1),
                lambda: plain.map(square, range(1_000), chunksize=1),
            ),
            "100,000 items, default chunks": (
                lambda: ours.pmap(square, range(100_000)),
                lambda: plain.map(square, range(100_000)),
            ),
        }
        print(f"{'':32}{'ours':>10}{'Pool':>10}{'ratio':>8}")
        for name, pair in cases.items():
            laps = [[milliseconds(call) for call in pair] for _ in range(ROUNDS)]
            mine, theirs = (statistics.median(column) for column in zip(*laps, strict=True))
            print(f"{name:32}{mine:7.2f} ms{theirs:7.2f} ms{mine / theirs:8.2f}")


if __name__ == "__main__":
    main()
