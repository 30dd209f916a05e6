"""Locks, queues and lists of managers, which tasks share with their caller."""

import multiprocessing

import multiprocess
import pytest

from parallel_facade import Pool


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("library", [multiprocessing, multiprocess])
def test_what_a_manager_gives_travels(start_method, library):
    with Pool(workers=2, start_method=start_method) as pool:
        pool.pmap(abs, [1, 2])  # the workers are there before the manager
        with library.Manager() as manager:
            lock, numbers = manager.Lock(), manager.list()

            def put(x, place):
                with lock:
                    place.append(x)

            pool.pmap(put, range(4), [numbers] * 4)
            assert sorted(numbers[:]) == [0, 1, 2, 3]
