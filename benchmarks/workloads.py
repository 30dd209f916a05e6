"""What is measured: the work, what its results have to be, and the physical limit beside it."""

from __future__ import annotations

import functools
import heapq
import importlib.util
import itertools
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from limits import bare_fork, bare_pipe, copy_of
from peers import Peer

SLEEP_SEED = 7


class Workload(NamedTuple):
    """One row of the table.

    Attributes:
        name: As in the table, such as ``"W1a"``.
        title: What it is, in words.
        run: Does it with a peer, and returns what came of it.
        is_right: Whether that is what had to come.
        limit: Returns seconds that no library can be faster than, with a number of workers.
        limit_name: What that is.
        has_closure: The callable is a closure, which plain pickle cannot carry.
        times: How often it runs in one round, if once is too short to be timed.
        prepare: Called before each round, and not timed.
        inputs: Returns the function and the items, where that is all there is to it.
    """

    name: str
    title: str
    run: Callable[[Peer], Any]
    is_right: Callable[[Any], bool]
    limit: Callable[[int], float]
    limit_name: str
    has_closure: bool = False
    times: int = 1
    prepare: Callable[[], object] = int
    inputs: Callable[[], tuple[Any, list[Any]]] = lambda: (None, [])


def square(x: int) -> int:
    """Be as little work as an item can be."""
    return x * x


def ones(x: int) -> Any:
    """Return 8 MB."""
    return np.full(1_000_000, float(x))


def total(array: Any) -> float:
    """Read all of an array."""
    return float(array[::4096].sum())


def sleep(seconds: float) -> float:
    """Sleep, as a task that waits for something does."""
    time.sleep(seconds)
    return seconds


def mandelbrot_row(y: int, width: int = 300, depth: int = 60) -> int:
    """Count the points of a row that stay small: plain Python, some milliseconds."""
    inside = 0
    for x in range(width):
        z, c = 0j, complex(-2 + 3 * x / width, -1 + 2 * y / 200)
        for _ in range(depth):
            z = z * z + c
            if abs(z) > 2:
                break
        else:
            inside += 1
    return inside


def fit(seed: int) -> float:
    """Fit a curve to noise, with SciPy."""
    from scipy.optimize import curve_fit

    rng = np.random.default_rng(seed)
    x = np.linspace(0, 4, 400)
    y = 2.5 * np.exp(-1.3 * x) + rng.normal(0, 0.1, x.size)
    found, _ = curve_fit(lambda t, a, b: a * np.exp(-b * t), x, y)
    return float(found[0])


class ArrayModel:
    """Holds an array of 50 MB."""

    def __init__(self) -> None:
        self.weights = np.ones(50_000_000 // 8)

    def predict(self, x: int) -> float:
        """Use the array."""
        return float(self.weights[x]) * x


class DictModel:
    """Holds some 20 MB of lists and dicts."""

    def __init__(self) -> None:
        self.rows = [{"key": i, "value": float(i), "name": f"row {i}"} for i in range(80_000)]

    def predict(self, x: int) -> int:
        """Use a row."""
        return int(self.rows[x]["key"]) + x


def closure_over_an_array() -> Callable[[int], float]:
    """Return a closure over 100 MB."""
    array = np.ones(100_000_000 // 8)
    return lambda x: float(array[x]) * x


def ideal_schedule(durations: list[float], workers: int) -> float:
    """Return how long the longest of *workers* queues is, longest items first."""
    queues = [0.0] * workers
    for duration in sorted(durations, reverse=True):
        heapq.heapreplace(queues, queues[0] + duration)
    return max(queues)


class Mapped:
    """A map over inputs that are made when they are first needed."""

    def __init__(self, make: Callable[[], tuple[Any, list[Any]]], chunksize: int | None) -> None:
        self.made = functools.cache(make)
        self.chunksize = chunksize

    def run(self, peer: Peer) -> Any:
        """Map with *peer*."""
        return peer.map(*self.made(), self.chunksize)

    def is_right(self, found: Any) -> bool:
        """Return whether *found* is what a loop gives now."""
        func, items = self.made()
        return len(found) == len(items) and all(
            np.array_equal(one, func(item)) for one, item in zip(found, items, strict=True)
        )

    def change(self) -> None:
        """Change each of the inputs, which are arrays, in place."""
        for array in self.made()[1]:
            np.add(array, 1, out=array)


def _map(
    name: str,
    title: str,
    make: Callable[[], tuple[Any, list[Any]]],
    limit: Callable[[int], float],
    limit_name: str,
    *,
    chunksize: int | None = None,
    changes: bool = False,
    has_closure: bool = False,
    times: int = 1,
) -> Workload:
    mapped = Mapped(make, chunksize)
    return Workload(
        name,
        title,
        mapped.run,
        mapped.is_right,
        limit,
        limit_name,
        has_closure=has_closure,
        times=times,
        prepare=mapped.change if changes else int,
        inputs=mapped.made,
    )


def _sleeps(count: int) -> list[float]:
    rng = random.Random(SLEEP_SEED)
    return [min(0.4, 0.02 * rng.lognormvariate(0, 1)) for _ in range(count)]


def _serial(func: Callable[[Any], Any], items: list[Any]) -> Callable[[int], float]:
    def seconds(workers: int) -> float:
        began = time.perf_counter()
        for item in items:
            func(item)
        return (time.perf_counter() - began) / workers

    return seconds


def lazy_sum(peer: Peer, count: int) -> int:
    """Return how many results *peer* gives for so many items, taken one after the other."""
    items = itertools.islice(itertools.count(), count)
    return sum(1 for _ in peer.lazy(square, items))


def workloads(scale: float = 1.0) -> list[Workload]:
    """Return all of them, with *scale* times as many items."""

    def n(count: int) -> int:
        return max(2, round(count * scale))

    sleeps, rows, fits = _sleeps(n(100)), list(range(n(200))), list(range(n(400)))
    tiny, one_each = list(range(n(100_000))), list(range(n(5_000)))
    lazily = n(1_000_000)
    has_scipy = importlib.util.find_spec("scipy") is not None
    found = [
        _map("W1a", f"{len(tiny):,} × x*x, default chunks", lambda: (square, tiny),
             _serial(square, tiny), "serial loop / workers"),
        _map("W1b", f"{len(one_each):,} × x*x, chunksize 1", lambda: (square, one_each),
             bare_pipe(len(one_each)), "a round trip on a bare pipe for each", chunksize=1),
        _map("W2a", f"bound method, 50 MB array, {n(1_000):,} items",
             lambda: (ArrayModel().predict, list(range(n(1_000)))),
             copy_of(50_000_000), "one memcpy"),
        _map("W2b", f"bound method, 20 MB of dicts, {n(1_000):,} items",
             lambda: (DictModel().predict, list(range(n(1_000)))), bare_fork, "a bare fork"),
        _map("W3", f"closure over a 100 MB array, {n(1_000):,} items",
             lambda: (closure_over_an_array(), list(range(n(1_000)))),
             copy_of(100_000_000), "one memcpy", has_closure=True),
        _map("W4", f"{n(100)} arguments of 8 MB, changed each time",
             lambda: (total, [ones(x) for x in range(n(100))]),
             copy_of(8_000_000 * n(100)), "one memcpy", changes=True),
        _map("W5", f"{n(100)} results of 8 MB", lambda: (ones, list(range(n(100)))),
             copy_of(8_000_000 * n(100), kept=True), "one memcpy into new memory"),
        _map("W6", f"{len(sleeps)} uneven sleeps", lambda: (sleep, sleeps),
             lambda workers: ideal_schedule(sleeps, workers), "the ideal schedule", chunksize=1),
        _map("W7a", "map of 2 items, warm", lambda: (square, [1, 2]),
             bare_pipe(1), "a round trip on a bare pipe", times=20),
        Workload("W7b", "one call and its result, warm", lambda peer: peer.call(square, 3),
                 lambda found: found == 9, bare_pipe(1), "a round trip on a bare pipe",
                 times=20),
        Workload("W8", f"lazy map over {lazily:,} items", lambda peer: lazy_sum(peer, lazily),
                 lambda found: found == lazily, _serial(square, list(range(lazily))),
                 "serial loop / workers"),
        _map("W10a", f"{len(rows)} rows of the Mandelbrot set", lambda: (mandelbrot_row, rows),
             _serial(mandelbrot_row, rows), "serial loop / workers"),
        _map("W10b", f"{len(fits)} fits with SciPy", lambda: (fit, fits),
             _serial(fit, fits), "serial loop / workers"),
    ]  # fmt: skip
    return [one for one in found if has_scipy or one.name != "W10b"]
