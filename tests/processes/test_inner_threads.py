"""How many threads libraries use inside a worker."""

import os

import numpy
import pytest
from threadpoolctl import threadpool_info

from parallel_facade import ConfigurationError, Pool, config, cpu_count, pmap
from parallel_facade.backends.process import thread_limits as _inner_threads
from parallel_facade.backends.process.thread_limits import VARIABLES


def threads_of_blas(_):
    assert numpy.ones(1) @ numpy.ones(1) == 1  # it is loaded

    return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def no_number_of_the_users(monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_each_worker_has_its_share(start_method):
    workers = 2
    with Pool(workers=workers, start_method=start_method) as pool:
        [found] = pool.pmap(threads_of_blas, [0])

    assert found == {max(1, cpu_count() // workers)}


def test_a_number_of_the_pools(start_method):
    with Pool(workers=2, start_method=start_method, inner_threads=3) as pool:
        [threads, variable] = pool.pmap(
            lambda ask: ask(0), [threads_of_blas, lambda _: os.environ["OMP_NUM_THREADS"]]
        )

    # A library may have a most of its own, which was fixed when it was built, or loaded.
    assert max(threads) <= 3
    assert variable == "3"


def test_no_limit(start_method):
    with Pool(workers=2, start_method=start_method, inner_threads=0) as pool:
        [found] = pool.pmap(lambda _: [name for name in VARIABLES if name in os.environ], [0])

    assert found == []


def test_a_number_of_the_users_is_left_alone(start_method, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with Pool(workers=2, start_method=start_method) as pool:
        [found] = pool.pmap(lambda _: os.environ["OMP_NUM_THREADS"], [0])

    assert found == "5"


def test_the_callers_own_threads_are_as_they_were(start_method):
    before = threads_of_blas(0)
    with Pool(workers=2, start_method=start_method, inner_threads=1) as pool:
        pool.pmap(threads_of_blas, [0])

    assert threads_of_blas(0) == before
    assert "OMP_NUM_THREADS" not in os.environ


def test_the_shared_pool_follows_the_configuration():
    for count in (1, 2):
        with config(inner_threads=count, workers=1):
            assert pmap(lambda _: os.environ["OMP_NUM_THREADS"], [0]) == [str(count)]


@pytest.mark.parametrize("backend", ["serial", "thread"])
def test_who_starts_no_processes_refuses_a_number(backend):
    with pytest.raises(ConfigurationError, match=f"inner_threads=1 .* the {backend}"):
        Pool(backend=backend, inner_threads=1)


def test_a_bad_number_is_refused():
    with pytest.raises(ConfigurationError, match="inner_threads=-1"):
        Pool(inner_threads=-1)


def test_forks_that_cannot_be_told_are_refused_where_a_number_is_asked_for(monkeypatch):
    find_spec = _inner_threads.find_spec
    monkeypatch.setattr(
        _inner_threads,
        "find_spec",
        lambda name: None if name == "threadpoolctl" else find_spec(name),
    )

    with pytest.raises(ConfigurationError, match="inner_threads=3 is not .* without threadpoolctl"):
        Pool(workers=1, start_method="fork", inner_threads=3)
    with Pool(workers=1, start_method="forkserver", inner_threads=3) as pool:
        assert pool.pmap(abs, [-1]) == [1]
