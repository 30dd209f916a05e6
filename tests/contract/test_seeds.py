"""Random numbers, on every back-end: with a seed, and without."""

import random

import pytest

from parallel_facade import ConfigurationError, pmap

pytestmark = pytest.mark.each_start_method


@pytest.mark.requires("has_private_state")
def test_a_seed_gives_each_item_its_own_stream_whatever_the_chunks(backend):
    def draw(_):
        return random.random()

    drawn = pmap(draw, range(6), seed=42, chunksize=1)

    assert pmap(draw, range(6), seed=42, chunksize=4) == drawn
    assert pmap(draw, range(6), seed=42, backend="serial") == drawn
    assert len(set(drawn)) == 6
    assert pmap(draw, range(6), seed=43) != drawn


@pytest.mark.requires("has_private_state")
def test_a_seed_reaches_numpy_also_where_the_task_is_the_first_to_import_it(backend):
    pytest.importorskip("numpy")

    def draw(_):
        import numpy as np

        from parallel_facade import rng

        return float(np.random.random()), float(rng().random()), float(rng().random())

    drawn = pmap(draw, range(6), seed=42, chunksize=1)

    assert pmap(draw, range(6), seed=42, backend="serial") == drawn
    assert len({number for numbers in drawn for number in numbers}) == 18


def test_without_a_seed_each_worker_has_a_generator_of_its_own(backend):
    pytest.importorskip("numpy")
    if backend.name == "executor-interpreter":
        pytest.skip("NumPy does not load in subinterpreters")

    def draw(_):
        from parallel_facade import rng

        return float(rng().random())

    assert len(set(pmap(draw, range(20)))) == 20


def test_a_seed_leaves_the_callers_own_randomness_alone(backend):
    if not backend.capabilities.has_private_state:
        with pytest.raises(ConfigurationError, match="seed=1 is not possible"):
            pmap(abs, [1], seed=1)
        return
    random.seed(5)
    expected = random.random()
    random.seed(5)

    pmap(abs, [1], seed=1)

    assert random.random() == expected


def test_a_nested_seed_is_refused_only_where_the_random_state_is_shared(backend):
    def row(n):
        return pmap(lambda _: random.random(), range(n), seed=1)

    if backend.capabilities.has_private_state:
        assert pmap(row, [3]) == [pmap(lambda _: random.random(), range(3), seed=1)]
        return
    with pytest.raises(ConfigurationError, match="not possible in a worker that may share"):
        pmap(row, [3])


@pytest.mark.requires("has_private_state")
def test_a_seed_reaches_calls_in_tasks_too(backend):
    def row(n):
        return pmap(lambda _: random.random(), range(n))

    assert pmap(row, [2, 3], seed=4, backend="serial") == pmap(row, [2, 3], seed=4)
