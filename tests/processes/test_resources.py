"""Descriptors, threads, processes, files and memory: what was there before is there after."""

import gc
import itertools
import os
import tracemalloc
from pathlib import Path

import psutil
import pytest
from faults import FAULTS
from leftovers import Resources

from parallel_facade import Pool, WorkerCrashedError, imap, pmap

PATIENCE = 60


@pytest.fixture
def temporary_files(tmp_path, monkeypatch):
    """A folder for temporary files, and nothing in it at the end."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path
    assert os.listdir(tmp_path) == []


def test_calls_keep_nothing(start_method, no_warm_pools, temporary_files):
    with Pool(workers=2, start_method=start_method) as pool:
        pool.pmap(abs, range(4), chunksize=1)
        before = Resources()

        for _ in range(150):
            pool.pmap(lambda x: [x], range(4), chunksize=2)
            pool.apply_async(lambda: 1).get(PATIENCE)
            next(pool.imap(abs, itertools.count()))

        assert Resources().added_to(before) == {}


def test_pools_keep_nothing(start_method, no_warm_pools, temporary_files):
    Pool(workers=1, start_method=start_method).close()
    before = Resources()

    for _ in range(10):
        with Pool(workers=1, start_method=start_method) as pool:
            assert pool.pmap(abs, [-1]) == [1]

    assert Resources().added_to(before) == {}


def test_new_processes_make_no_file(start_method, no_warm_pools, temporary_files):
    # Not even for a moment, in which they may be killed: the folder would have another time.
    before = temporary_files.stat().st_mtime_ns

    with Pool(workers=2, start_method=start_method) as pool:
        assert pool.pmap(abs, [-1, -2], chunksize=1) == [1, 2]

    assert temporary_files.stat().st_mtime_ns == before


@pytest.mark.parametrize("fault", ["kill", "exit", "segfault", "hang"])
def test_faults_keep_nothing(start_method, no_warm_pools, temporary_files, fault):
    Pool(workers=1, start_method=start_method).close()
    before = Resources()

    with Pool(workers=2, start_method=start_method) as pool:
        for _ in range(5):
            pool.pmap(
                lambda x: FAULTS[fault]() if x == 1 else x,
                range(3),
                return_exceptions=True,
                **({"task_timeout": 0.2} if fault == "hang" else {}),
            )

    assert Resources().added_to(before) == {}


def test_a_pool_that_cannot_start_keeps_nothing(start_method, no_warm_pools, temporary_files):
    Pool(workers=1, start_method=start_method).close()
    before = Resources()

    for _ in range(3):
        with (
            Pool(workers=2, start_method=start_method, initializer=os._exit, initargs=(1,)) as pool,
            pytest.raises(WorkerCrashedError),
        ):
            pool.pmap(abs, [1])

    assert Resources().added_to(before) == {}


def test_a_lazy_map_holds_what_its_bound_says(backend):
    pulled = 0

    def items():
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    bound = 10
    results = imap(lambda x: x, items(), buffersize=bound, chunksize=3)
    for taken, _ in enumerate(itertools.islice(results, 500), start=1):
        assert pulled - taken <= bound
    results.close()


def test_memory_stays_flat_over_a_long_lazy_map(backend):
    def use(count):
        results = imap(lambda x: x, itertools.count(), chunksize=100, buffersize=5_000)
        for _ in itertools.islice(results, count):
            pass

    use(5_000)
    tracemalloc.start()
    try:
        use(50_000)
        before = tracemalloc.get_traced_memory()[0]
        use(250_000)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    # The smallest object is 16 bytes. What is in flight when it ends differs, by a fiftieth.
    assert after - before < 250_000 * 16 / 3


def test_memory_stays_flat_over_many_maps(backend):
    def use(count):
        for _ in range(count):
            pmap(lambda x: x, range(4), chunksize=2)

    use(100)
    tracemalloc.start()
    try:
        use(100)
        before = tracemalloc.get_traced_memory()[0]
        use(400)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    # A call that is kept holds more than a kilobyte; what is in flight differs by some kilobytes.
    assert after - before < 400 * 128


def grow(x):
    import __main__

    kept = __main__.__dict__.setdefault("kept", [])
    kept.append(bytearray(b"x" * (16 << 20)))
    return os.getpid()


def test_a_worker_that_has_grown_is_replaced_and_loses_nothing(start_method):
    with Pool(workers=1, start_method=start_method) as pool:
        usual = pool.submit(lambda: psutil.Process().memory_info().rss).result(PATIENCE)
    limit = usual + (40 << 20)

    with Pool(workers=1, start_method=start_method, max_memory_per_worker=limit) as pool:
        pids = pool.pmap(grow, range(12), chunksize=1, timeout=PATIENCE)

    assert len(pids) == 12
    assert 3 <= len(set(pids)) <= 6


def test_a_limit_below_what_a_worker_needs_is_refused(start_method):
    from parallel_facade import ConfigurationError

    with (
        Pool(workers=1, start_method=start_method, max_memory_per_worker=1000) as pool,
        pytest.raises(ConfigurationError, match="max_memory_per_worker=1000 is less than"),
    ):
        pool.pmap(abs, [1])


def test_recycling_loses_and_doubles_nothing(start_method, tmp_path):
    ran = tmp_path / "ran"
    ran.mkdir()

    def note(x):
        Path(ran, f"{x}-{os.getpid()}-{os.urandom(4).hex()}").touch()
        return x

    with Pool(workers=2, start_method=start_method, max_tasks_per_worker=5) as pool:
        assert pool.pmap(note, range(60), chunksize=3, timeout=PATIENCE) == list(range(60))

    assert sorted(int(name.split("-")[0]) for name in os.listdir(ran)) == list(range(60))


def sizes_of_tables(_cls):
    """Return how much a worker remembers, without what has died."""
    from parallel_facade._serialization.modules import state as _state
    from parallel_facade._serialization.rules import class_tokens as _tokens

    gc.collect()
    tables = {**vars(_state.caller), **vars(_state.worker), "tokens": _tokens._tokens}
    return {name: len(table) for name, table in tables.items()}


def test_a_worker_that_lives_long_does_not_grow_with_the_classes_that_it_is_sent(start_method):
    def made(x):
        class Local:
            value = x

        return Local

    with Pool(workers=1, start_method=start_method) as pool:
        # A fork has the heap of the whole suite, which each collection would walk.
        pool.apply_async(gc.freeze).get()
        early, late = (
            [pool.apply_async(sizes_of_tables, (made(x),)).get() for x in range(count)][-1]
            for count in (10, 100)
        )

    assert {name: late[name] - early[name] for name in late if late[name] > early[name]} == {}
