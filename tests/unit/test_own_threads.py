"""Our own threads: what they cannot do is told, and nobody waits for it for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from parallel_facade import Pool
from parallel_facade._common.task_errors import WorkerCrashedError
from parallel_facade.backends import thread as _thread
from parallel_facade.backends.engines import executor_threads as _executor_threads
from parallel_facade.backends.engines.dask_gatherer import DaskFuture, DaskGatherer

PATIENCE = 60


class NoThread:
    """A thread of a system that has no more threads."""

    def __init__(self, *_, **__):
        pass

    def start(self):
        raise RuntimeError("can't start new thread")


def test_a_thread_pool_goes_on_without_a_helper_that_cannot_be_started(monkeypatch):
    with Pool(backend="thread", workers=1) as pool:
        monkeypatch.setattr(_thread, "new_thread", NoThread)
        monkeypatch.setattr(pool._backend._register, "waiting", lambda: {1})
        monkeypatch.setattr(pool._backend._waiting, "due", list)

        assert pool.pmap(abs, [-1, -2], timeout=PATIENCE) == [1, 2]


def test_a_chunk_of_an_executor_whose_helper_cannot_be_started_fails(monkeypatch):
    monkeypatch.setattr(_executor_threads, "new_thread", NoThread)
    busy = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(busy.wait)
        future = _executor_threads.ThreadFuture(executor, lambda: None)
        future.run_in_helper()
        busy.set()

        with pytest.raises(RuntimeError, match="can't start new thread"):
            future.result(PATIENCE)


def test_a_chunk_on_dask_that_the_gatherer_cannot_fetch_fails():
    tasks = {}
    gatherer = DaskGatherer(client=None, tasks=tasks)
    tasks[1] = DaskFuture(1, SimpleNamespace(), worker=None)  # without a status
    inner = tasks[1]
    gatherer.ensure_running()
    gatherer.put(inner)

    with pytest.raises(AttributeError, match="status"):
        inner.result(PATIENCE)
    gatherer.close(PATIENCE)


def test_a_pool_that_cannot_grow_by_our_own_bug_says_so(monkeypatch, gate):
    held = gate()
    with Pool(workers=3) as pool:
        results = [pool.apply_async(held.pass_through) for _ in range(2)]
        held.wait_for_arrivals(2)
        monkeypatch.setattr("parallel_facade.backends.process.crash_errors.START_ATTEMPTS", 1)
        monkeypatch.setattr("parallel_facade.backends.process.manager_thread.START_ATTEMPTS", 1)
        monkeypatch.setattr(pool._backend._context, "start_another", lambda: 1 / 0)

        with pytest.raises(WorkerCrashedError, match="ZeroDivisionError"):
            pool.apply_async(abs, (-1,)).get(PATIENCE)
        held.open()
        for result in results:
            result.get(PATIENCE)
