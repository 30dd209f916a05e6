"""From what size on a buffer is worth placing in shared memory, by size, in one run.

python benchmarks/bench_placing.py

Sixteen arrays to two workers, and sixteen back, each way with all of them in the messages and with
all of them placed; a ratio above 1 says that the message took longer. `PLACED_BYTES` follows this.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import parallel_facade._serialization.encoder as payload
from parallel_facade import Pool

COUNT = 16
ROUNDS = 15
ALWAYS, NEVER = 1, 1 << 40


def total(array: Any) -> float:
    """Read an array."""
    return float(array.sum())


def zeros(size: int) -> Any:
    """Return an array of so many bytes."""
    return np.zeros(size // 8)


def set_threshold(threshold: int) -> None:
    """Place buffers from so many bytes on, in this process."""
    payload.PLACED_BYTES = threshold


def seconds(pool: Pool, function: Callable[[Any], object], items: list[Any]) -> float:
    """Return how long a map takes."""
    began = time.perf_counter()
    pool.pmap(function, items)
    return time.perf_counter() - began


def main() -> None:
    """Print one line for each size."""
    pools = {
        threshold: Pool("process", 2, initializer=set_threshold, initargs=(threshold,))
        for threshold in (ALWAYS, NEVER)
    }
    for size in (1 << power for power in range(14, 23)):
        arrays = [np.ones(size // 8) for _ in range(COUNT)]
        laps: dict[tuple[str, int], list[float]] = {}
        for number in range(ROUNDS + 1):
            for threshold, pool in pools.items():
                set_threshold(threshold)
                there = seconds(pool, total, arrays)
                back = seconds(pool, zeros, [size] * COUNT)
                if number:
                    laps.setdefault(("arguments", threshold), []).append(there)
                    laps.setdefault(("results", threshold), []).append(back)
        medians = {key: statistics.median(found) for key, found in laps.items()}
        ratios = "  ".join(
            f"{way} {medians[way, NEVER] / medians[way, ALWAYS]:5.2f}"
            for way in ("arguments", "results")
        )
        print(f"{size >> 10:6} KiB  {ratios}", flush=True)
    for pool in pools.values():
        pool.close()


if __name__ == "__main__":
    main()
