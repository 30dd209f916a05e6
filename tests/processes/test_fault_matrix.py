"""Every fault at every moment of a worker's life: the guilty item fails, and nothing else does."""

import os

import psutil
import pytest
from faults import (
    DEADLY,
    FAULTS,
    Fault,
    FaultWhenPickled,
    FaultWhenRebuilt,
    fault_at_exit,
    fault_when_told,
    fault_while_sending,
)

from parallel_facade import Pool, SerializationError, TaskTimeoutError, WorkerCrashedError

PATIENCE = 60


@pytest.fixture(params=FAULTS)
def fault(request):
    return request.param


@pytest.fixture
def pool(start_method, no_warm_pools):
    """A pool that still works at the end of the test, and then leaves nothing."""
    before = set(psutil.Process().children(recursive=True))
    with Pool(workers=2, start_method=start_method) as pool:
        yield pool
        assert pool.pmap(abs, range(-8, 0), chunksize=1, timeout=PATIENCE) == list(range(8, 0, -1))
    left = set(psutil.Process().children(recursive=True)) - before
    assert [process.cmdline() for process in left] == []


def seen(fault, error, *, raised):
    """Return whether *error* says what *fault* did to an item."""
    if fault in DEADLY:
        return type(error) is WorkerCrashedError and DEADLY[fault] in str(error)
    return type(error) is (TaskTimeoutError if fault == "hang" else raised)


def limits(fault):
    # Only what hangs is timed: a timed item is alone in its chunk, and the others shall not be.
    return {"task_timeout": 0.5} if fault == "hang" else {"chunksize": 4}


def run_with_one_bad_item(pool, fault, func, bad, *, raised):
    items = [0, 1, bad, 3, 4, 5, 6, 7]
    results = pool.pmap(func, items, return_exceptions=True, timeout=PATIENCE, **limits(fault))

    assert [results[index] for index in (0, 1, 3, 4, 5, 6, 7)] == [0, 1, 3, 4, 5, 6, 7]
    assert seen(fault, results[2], raised=raised), repr(results[2])
    assert results[2].__notes__[-1].startswith("while running item 2: ")
    if fault != "raise":
        assert results[2].index == 2


def test_while_the_arguments_are_rebuilt(pool, fault):
    run_with_one_bad_item(
        pool, fault, lambda x: x, FaultWhenRebuilt(fault), raised=SerializationError
    )


def test_while_the_item_runs(pool, fault):
    run_with_one_bad_item(pool, fault, lambda x: FAULTS[fault]() if x == 2 else x, 2, raised=Fault)


def test_while_the_result_is_pickled(pool, fault):
    run_with_one_bad_item(
        pool,
        fault,
        lambda x: FaultWhenPickled(fault) if x == 2 else x,
        2,
        raised=SerializationError,
    )


def test_while_the_result_is_sent(pool, fault):
    data, *others = pool.pmap(
        lambda x: fault_while_sending(fault) if x == 0 else x,
        range(4),
        return_exceptions=True,
        timeout=PATIENCE,
        **limits(fault),
    )

    assert others == [1, 2, 3]
    # It may have been sent before the fault strikes.
    assert data == bytes(64 << 20) or seen(fault, data, raised=Fault)


def test_while_the_worker_is_idle(pool, fault, gate):
    told = gate()
    pid = pool.submit(fault_when_told, fault, told).result(PATIENCE)
    worker = psutil.Process(pid)
    told.wait_for_arrivals(1)

    told.open()

    if fault in DEADLY:
        worker.wait(PATIENCE)
    assert pool.pmap(abs, range(-20, 0), chunksize=1, timeout=PATIENCE) == list(range(20, 0, -1))


def test_while_workers_start(start_method, fault):
    with Pool(workers=2, start_method=start_method, initializer=FAULTS[fault]) as pool:
        with pytest.raises((WorkerCrashedError, TaskTimeoutError, Fault)) as caught:
            pool.pmap(abs, [1], timeout=2 if fault == "hang" else PATIENCE)

        assert seen(fault, caught.value, raised=Fault)
        if fault in DEADLY:
            assert "3 workers in a row died while they started" in str(caught.value)


def test_while_the_pool_closes(start_method, fault, monkeypatch, capfd):
    monkeypatch.setattr("parallel_facade.backends.process.backend.LEAVE_PATIENCE", 0.5)
    with Pool(
        workers=2, start_method=start_method, initializer=fault_at_exit, initargs=(fault,)
    ) as pool:
        pids = pool.pmap(lambda _: os.getpid(), range(8), chunksize=1)

    assert [pid for pid in set(pids) if psutil.pid_exists(pid)] == []
    capfd.readouterr()  # what is raised at exit is printed there
