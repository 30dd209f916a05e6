"""The libraries that a user would pick instead, each behind the same three methods.

A peer is opened before it is measured and used as its own documentation says: with its own chunks
where it makes any, and with those of `multiprocessing.Pool` where it would send items one by one.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

CHUNKS_PER_WORKER = 4
"""As `multiprocessing.Pool.map` divides its input."""

LAZY_CHUNK = 1_000
"""For the lazy maps of those that would send items one by one."""


class Peer:
    """One library with its workers.

    Args:
        workers: How many processes.
    """

    name = ""
    needs = ""
    """The module that has to be installed."""
    carries_closures = True

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.open()

    def open(self) -> None:
        """Start the workers."""

    def map(self, func: Callable[..., Any], items: Sequence[Any], chunksize: int | None) -> Any:
        """Return the results for *items*, in order; `None` takes the default chunks."""
        raise NotImplementedError

    def call(self, func: Callable[..., Any], arg: Any) -> Any:
        """Return the result of one call."""
        raise NotImplementedError

    def lazy(self, func: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        """Return an iterator over the results, in order."""
        raise NotImplementedError

    def close(self) -> None:
        """End the workers."""

    def chunks(self, items: Sequence[Any], chunksize: int | None) -> int:
        """Return *chunksize*, or the chunks of `multiprocessing.Pool`."""
        return chunksize or max(1, math.ceil(len(items) / (CHUNKS_PER_WORKER * self.workers)))


class Ours(Peer):
    """parallel_facade, with its defaults."""

    name = "parallel_facade"
    needs = "parallel_facade"

    def open(self) -> None:
        from parallel_facade import Pool

        self.pool = Pool(workers=self.workers)

    def map(self, func: Callable[..., Any], items: Sequence[Any], chunksize: int | None) -> Any:
        return self.pool.pmap(func, items, chunksize=chunksize)

    def call(self, func: Callable[..., Any], arg: Any) -> Any:
        return self.pool.apply_async(func, (arg,)).get()

    def lazy(self, func: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        return self.pool.imap(func, items)

    def close(self) -> None:
        self.pool.close()


class StandardPool(Peer):
    """multiprocessing.Pool, by fork."""

    name = "multiprocessing.Pool"
    needs = "multiprocessing"
    carries_closures = False

    def open(self) -> None:
        import multiprocessing

        self.pool = multiprocessing.get_context("fork").Pool(self.workers)

    def map(self, func: Callable[..., Any], items: Sequence[Any], chunksize: int | None) -> Any:
        return self.pool.map(func, items, chunksize)

    def call(self, func: Callable[..., Any], arg: Any) -> Any:
        return self.pool.apply_async(func, (arg,)).get()

    def lazy(self, func: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        return self.pool.imap(func, items, LAZY_CHUNK)

    def close(self) -> None:
        self.pool.terminate()
        self.pool.join()


class _ExecutorPeer(Peer):
    executor: Any

    def map(self, func: Callable[..., Any], items: Sequence[Any], chunksize: int | None) -> Any:
        return list(self.executor.map(func, items, chunksize=self.chunks(items, chunksize)))

    def call(self, func: Callable[..., Any], arg: Any) -> Any:
        return self.executor.submit(func, arg).result()

    def lazy(self, func: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        found: Iterator[Any] = self.executor.map(func, items, chunksize=LAZY_CHUNK)
        return found

    def close(self) -> None:
        self.executor.shutdown()


class StandardExecutor(_ExecutorPeer):
    """concurrent.futures.ProcessPoolExecutor, by fork."""

    name = "ProcessPoolExecutor"
    needs = "concurrent.futures"
    carries_closures = False

    def open(self) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        fork = multiprocessing.get_context("fork")
        self.executor = ProcessPoolExecutor(self.workers, mp_context=fork)


class Loky(_ExecutorPeer):
    """loky's reusable executor."""

    name = "loky"
    needs = "loky"

    def open(self) -> None:
        from loky import ProcessPoolExecutor

        self.executor = ProcessPoolExecutor(self.workers)


class Joblib(Peer):
    """joblib.Parallel, kept open by a `with` block."""

    name = "joblib"
    needs = "joblib"

    def open(self) -> None:
        from joblib import Parallel

        self.parallel = Parallel(n_jobs=self.workers)
        self.parallel.__enter__()

    def map(self, func: Callable[..., Any], items: Sequence[Any], chunksize: int | None) -> Any:
        from joblib import delayed

        self.parallel.batch_size = chunksize or "auto"
        return self.parallel(delayed(func)(item) for item in items)

    def call(self, func: Callable[..., Any], arg: Any) -> Any:
        return self.map(func, [arg], 1)[0]

    def lazy(self, func: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        from joblib import Parallel, delayed

        lazy = Parallel(n_jobs=self.workers, return_as="generator", batch_size=LAZY_CHUNK)
        found: Iterator[Any] = lazy(delayed(func)(item) for item in items)
        return found

    def close(self) -> None:
        self.parallel.__exit__(None, None, None)


class Pathos(Peer):
    """pathos.pools.ProcessPool."""

    name = "pathos"
    needs = "pathos"

    def open(self) -> None:
        from pathos.pools import ProcessPool

        self.pool = ProcessPool(nodes=self.workers, id="benchmark")

    def map(self, func: Callable[..., Any], items: Sequence[Any], chunksize: int | None) -> Any:
        return self.pool.map(func, items, **({"chunksize": chunksize} if chunksize else {}))

    def call(self, func: Callable[..., Any], arg: Any) -> Any:
        return self.pool.apipe(func, arg).get()

    def lazy(self, func: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        found: Iterator[Any] = self.pool.imap(func, items, chunksize=LAZY_CHUNK)
        return found

    def close(self) -> None:
        self.pool.terminate()
        self.pool.join()
        self.pool.clear()


class Mpire(Peer):
    """mpire.WorkerPool, which forks for each call: that is how it shares what a callable holds."""

    name = "mpire"
    needs = "mpire"

    def open(self) -> None:
        from mpire import WorkerPool

        self.pool = WorkerPool(n_jobs=self.workers, start_method="fork")

    def map(self, func: Callable[..., Any], items: Sequence[Any], chunksize: int | None) -> Any:
        # An array would be split by rows, and a tuple be taken for several arguments.
        wrapped = [(item,) for item in items]
        return self.pool.map(func, wrapped, chunk_size=chunksize, concatenate_numpy_output=False)

    def call(self, func: Callable[..., Any], arg: Any) -> Any:
        return self.pool.apply_async(func, (arg,)).get()

    def lazy(self, func: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        found: Iterator[Any] = self.pool.imap(func, items, chunk_size=LAZY_CHUNK)
        return found

    def close(self) -> None:
        self.pool.terminate()


class Pebble(Peer):
    """pebble.ProcessPool, by fork."""

    name = "pebble"
    needs = "pebble"
    carries_closures = False

    def open(self) -> None:
        import multiprocessing

        from pebble import ProcessPool

        fork = multiprocessing.get_context("fork")
        self.pool = ProcessPool(max_workers=self.workers, context=fork)

    def map(self, func: Callable[..., Any], items: Sequence[Any], chunksize: int | None) -> Any:
        found = self.pool.map(func, items, chunksize=self.chunks(items, chunksize))
        return list(found.result())

    def call(self, func: Callable[..., Any], arg: Any) -> Any:
        return self.pool.schedule(func, args=(arg,)).result()

    def lazy(self, func: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        found: Iterator[Any] = self.pool.map(func, items, chunksize=LAZY_CHUNK).result()
        return found

    def close(self) -> None:
        self.pool.stop()
        self.pool.join()


class Dask(Peer):
    """dask.distributed on this machine, one thread in each process."""

    name = "dask"
    needs = "distributed"

    def open(self) -> None:
        from distributed import Client

        self.client = Client(
            n_workers=self.workers, threads_per_worker=1, dashboard_address=None, processes=True
        )

    def map(self, func: Callable[..., Any], items: Sequence[Any], chunksize: int | None) -> Any:
        size = self.chunks(items, chunksize)
        return self.client.gather(self.client.map(func, items, pure=False, batch_size=size))

    def call(self, func: Callable[..., Any], arg: Any) -> Any:
        return self.client.submit(func, arg, pure=False).result()

    def close(self) -> None:
        self.client.shutdown()


class Ray(Peer):
    """ray on this machine, one task for each item."""

    name = "ray"
    needs = "ray"

    def open(self) -> None:
        import ray

        ray.init(num_cpus=self.workers, include_dashboard=False, log_to_driver=False)
        self.ray = ray

    def map(self, func: Callable[..., Any], items: Sequence[Any], chunksize: int | None) -> Any:
        held = self.ray.put(func)
        remote = self.ray.remote(_apply_all)
        size = self.chunks(items, chunksize)
        parts = [items[at : at + size] for at in range(0, len(items), size)]
        found = self.ray.get([remote.remote(held, part) for part in parts])
        return [value for part in found for value in part]

    def call(self, func: Callable[..., Any], arg: Any) -> Any:
        return self.ray.get(self.ray.remote(func).remote(arg))

    def close(self) -> None:
        self.ray.shutdown()


def _apply_all(func: Callable[..., Any], items: Sequence[Any]) -> list[Any]:
    return [func(item) for item in items]


PEERS: tuple[type[Peer], ...] = (
    Ours,
    StandardPool,
    StandardExecutor,
    Loky,
    Joblib,
    Pathos,
    Mpire,
    Pebble,
    Dask,
    Ray,
)


OURS = Ours.name


def installed() -> list[str]:
    """Return the names of the peers whose library is there, ours first."""
    return [peer.name for peer in PEERS if importlib.util.find_spec(peer.needs.partition(".")[0])]
