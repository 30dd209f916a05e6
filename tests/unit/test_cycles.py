"""What has ended is freed at once, without the garbage collector."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from parallel_facade import Pool, apply_async

PATIENCE = 30


class Thing:
    pass


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_results_of_threads_of_an_executor_go_with_their_last_reference():
    with ThreadPoolExecutor(1) as executor, Pool(backend=executor) as pool:
        results = pool.pmap(lambda _: Thing(), range(3))
        left = [weakref.ref(one) for one in results]
        del results
        assert pool.pmap(abs, [-1]) == [1]  # the thread itself has the last one until then

        assert [reference() for reference in left] == [None] * 3


@pytest.mark.usefixtures("no_collector")
def test_a_result_does_not_keep_the_executor_of_its_call():
    executor = ThreadPoolExecutor(1)
    result = apply_async(abs, (-1,), backend=executor)
    result.wait(PATIENCE)
    executor.shutdown()
    reference = weakref.ref(executor)
    del executor
    gc.collect()

    assert reference() is None
    assert result.get(PATIENCE) == 1
