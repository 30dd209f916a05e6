"""Large arrays to workers and back, on every start method."""

import gc
import itertools
import os
import sys
import threading

import numpy
import pandas
import pytest

from parallel_facade import Pool, WorkerCrashedError, apply_async, config, imap, pmap
from parallel_facade._serialization.buffers.shared_memory import CAN_SHARE, PLACED_BYTES

COUNT = PLACED_BYTES // 4
"""Numbers of 8 bytes that are placed."""
PATIENCE = 60

needs_sharing = pytest.mark.skipif(not CAN_SHARE, reason="needs memfd_create")


@pytest.fixture
def pool(start_method):
    with Pool(workers=2, start_method=start_method) as pool:
        yield pool


def shared_memory(pid="self"):
    """Return how many descriptors of shared memory for buffers the process *pid* has."""
    links = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            continue
    return sum(link.startswith("/memfd:parallel_facade ") for link in links)


def test_arguments_are_what_they_were_and_may_be_changed(pool):
    def change(array):
        before = array[0]
        array[:] = -1
        return before, array.sum()

    array = numpy.full(COUNT, 7.0)

    assert pool.pmap(change, [array] * 6) == [(7.0, -COUNT)] * 6
    assert array[0] == 7.0


def test_an_array_that_its_generator_changes_arrives_as_it_was_each_time(pool):
    def rows():
        array = numpy.zeros(COUNT)
        for number in range(30):
            array[:] = number
            yield array

    assert list(pool.imap(lambda a: (a[0], a[-1]), rows())) == [(n, n) for n in range(30)]


def test_an_array_that_the_caller_changes_between_calls_arrives_changed(pool):
    array = numpy.zeros(COUNT)
    for number in range(10):
        array[:] = number
        assert pool.pmap(lambda a: (a[0], a[-1]), [array] * 3) == [(number, number)] * 3
        assert pool.apply_async(lambda: (array[0], array[-1])).get() == (number, number)


def test_what_a_worker_keeps_of_an_argument_stays_as_it_was(pool):
    def keep(array):
        import builtins

        kept = vars(builtins).setdefault("_kept_by_test", [])
        kept.append(array)
        return [int(one[0]) for one in kept], os.getpid()

    seen = {}
    for number in range(20):
        [(values, pid)] = pool.pmap(keep, [numpy.full(COUNT, number)])
        assert values[:-1] == seen.get(pid, [])
        seen[pid] = values

    assert sum(map(len, seen.values())) == 20


def test_results_are_the_callers_own(pool):
    def make(number):
        return numpy.full(COUNT, number)

    kept = pool.pmap(make, range(40))
    for array in kept[::2]:
        array += 100
    del array
    more = pool.pmap(make, range(40, 80))

    assert [int(array[-1]) for array in kept] == [n + 100 * (n % 2 == 0) for n in range(40)]
    assert [int(array[-1]) for array in more] == list(range(40, 80))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_results_that_a_copy_of_the_caller_has_stay_as_they_were(pool):
    kept = pool.pmap(lambda n: numpy.full(COUNT, n), range(4))
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.close(theirs)
            os.read(ours, 1)  # until the parent has dropped them, and made others
            os._exit(0 if [int(array[-1]) for array in kept] == [0, 1, 2, 3] else 1)
        finally:
            os._exit(2)
    os.close(ours)
    kept.clear()
    gc.collect()
    for _ in range(5):
        pool.pmap(lambda n: numpy.full(COUNT, -1), range(8))
    os.close(theirs)

    assert os.waitpid(child, 0)[1] == 0


def test_callables_hold_arrays(pool):
    class Model:
        def __init__(self):
            self.weights = numpy.arange(COUNT)

        def predict(self, x):
            return int(self.weights[x]) + offset[x]

    offset = numpy.arange(COUNT) * 2

    assert pool.pmap(Model().predict, range(50)) == [3 * x for x in range(50)]


@needs_sharing
def test_what_a_callable_held_is_there_for_the_next_one_when_its_call_has_ended(pool):
    came_back = threading.Event()
    segment_pool = pool._backend.segment_pool
    reclaim = segment_pool.reclaim
    segment_pool.reclaim = lambda *args, **kwds: (reclaim(*args, **kwds), came_back.set())
    array = numpy.zeros(COUNT)

    pool.pmap(lambda x: array[x], range(3))

    assert came_back.wait(PATIENCE)


def test_frames_of_pandas_and_what_holds_many_arrays(pool):
    frame = pandas.DataFrame({name: numpy.arange(COUNT) for name in "abc"})

    [back, many] = pool.pmap(
        lambda x: x, [frame, {n: numpy.full(COUNT, n) for n in range(5)}], chunksize=1
    )

    pandas.testing.assert_frame_equal(back, frame)
    assert {n: int(array[0]) for n, array in many.items()} == {n: n for n in range(5)}


@needs_sharing
def test_nothing_is_left_when_results_are_dropped_and_the_pool_is_closed(start_method):
    before = shared_memory()
    with Pool(workers=2, start_method=start_method) as pool:
        results = pool.pmap(lambda a: a + 1, [numpy.zeros(COUNT) for _ in range(20)])
        assert shared_memory() > before
    assert shared_memory() == before
    assert sum(array[0] for array in results) == 20


@needs_sharing
def test_results_take_no_descriptors(pool):
    fds = len(os.listdir("/proc/self/fd"))

    results = pool.pmap(lambda n: numpy.full(COUNT, n), range(300))

    assert len(os.listdir("/proc/self/fd")) < fds + 50
    assert [int(array[0]) for array in results] == list(range(300))


@needs_sharing
def test_a_worker_that_dies_with_an_array_leaves_its_memory_to_nobody(pool):
    def die(array):
        if array[0] == 3:
            os._exit(7)
        return int(array[0])

    found = pool.pmap(
        die, [numpy.full(COUNT, n) for n in range(8)], return_exceptions=True, chunksize=1
    )

    assert [x for x in found if isinstance(x, int)] == [0, 1, 2, 4, 5, 6, 7]
    assert type(found[3]) is WorkerCrashedError
    arrays = pool.pmap(lambda n: numpy.full(COUNT, n), range(20))
    assert [int(array[-1]) for array in arrays] == list(range(20))


def test_large_results_come_one_by_one_before_the_chunk_ends(pool):
    results = pool.imap(lambda n: numpy.full(COUNT, n), itertools.count(), chunksize=4)

    assert [int(array[0]) for array in itertools.islice(results, 9)] == list(range(9))
    results.close()


def test_other_back_ends_give_the_same():
    arrays = [numpy.full(COUNT, n) for n in range(3)]
    for backend in ("serial", "thread"):
        with config(backend=backend):
            assert [int(a[0]) for a in pmap(lambda a: a + 1, arrays)] == [1, 2, 3]
            assert [int(a[0]) for a in imap(lambda a: a + 1, arrays)] == [1, 2, 3]
            assert apply_async(lambda a: a[0], (arrays[2],)).get() == 2


@pytest.mark.skipif(sys.platform != "linux", reason="its standard folder for shared memory")
def test_nothing_is_put_where_names_are_left_behind(pool):
    before = set(os.listdir("/dev/shm"))

    kept = pool.pmap(lambda a: a * 2, [numpy.ones(COUNT) for _ in range(10)])

    assert len(kept) == 10
    assert {name for name in set(os.listdir("/dev/shm")) - before if "facade" in name} == set()
