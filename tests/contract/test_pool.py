"""What `Pool` promises, on every back-end."""

import asyncio
import concurrent.futures
import itertools
import multiprocessing
import os
import threading
import warnings

import pytest
from leftovers import Resources

from parallel_facade import (
    ConfigurationError,
    Pool,
    PoolClosedError,
    TaskTimeoutError,
    WorkerCrashedError,
    pmap,
)

pytestmark = pytest.mark.each_start_method

FORKSERVER = multiprocessing.get_context("forkserver")

SETTING = None


def remember(value):
    global SETTING
    SETTING = value


def test_it_has_the_three_verbs(backend):
    with backend.pool() as pool:
        assert pool.pmap(lambda x: x + 1, range(3)) == [1, 2, 3]
        assert list(pool.imap(lambda x: x + 1, range(3))) == [1, 2, 3]
        assert pool.apply_async(lambda x: x + 1, (1,)).get() == 2


def test_it_is_an_executor(backend):
    with backend.pool() as pool:
        assert isinstance(pool, concurrent.futures.Executor)
        assert pool.submit(int, "ff", base=16).result() == 255
        assert list(pool.map(pow, [2, 3], [5, 2], timeout=60, chunksize=2)) == [32, 9]
        assert next(pool.map(abs, itertools.count(), buffersize=2)) == 0
        for bound in (None, 2):
            results = pool.map(lambda x: 1 // x, [1, 0], buffersize=bound, return_exceptions=True)
            one, error = results
            assert (one, type(error)) == (1, ZeroDivisionError)
            with pytest.raises(ValueError, match="argument 2 is shorter"):
                list(pool.map(pow, [1, 2], [1], buffersize=bound, strict=True))


def test_asyncio_takes_it_as_an_executor(backend):
    async def main(pool):
        return await asyncio.get_running_loop().run_in_executor(pool, divmod, 7, 2)

    with backend.pool() as pool:
        assert asyncio.run(main(pool)) == (3, 1)


def test_map_starts_at_once(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial runs a task when its result is asked for")
    closed = gate()
    with backend.pool() as pool:
        results = pool.map(closed.pass_through, ["a", "b"])

        closed.wait_for_arrivals(2)

        closed.open()
        assert list(results) == ["a", "b"]


def test_closing_waits_for_what_was_accepted(backend):
    pool = backend.pool()
    results = [pool.submit(abs, -n) for n in range(20)]

    pool.close()

    if "executor" in backend.name:
        concurrent.futures.wait(results)  # its workers are the user's, and go on
    assert [result.get() for result in results] == list(range(20))


def test_a_closed_pool_says_so_and_closing_twice_is_fine(backend):
    pool = backend.pool()
    pool.close()
    pool.close()
    pool.shutdown()

    for use in (pool.pmap, pool.imap, pool.map, pool.submit):
        with pytest.raises(PoolClosedError, match=r"closed> cannot be used any more"):
            use(abs, [1])
    with pytest.raises(PoolClosedError):
        pool.apply_async(abs, (1,))


def test_an_exception_ends_the_block_without_waiting(backend, gate):
    if backend.capabilities.runs_in_caller or "executor" in backend.name:
        pytest.skip("nothing of ours is running")
    never_opened = gate()

    with pytest.raises(LookupError), backend.pool() as pool:
        result = pool.submit(never_opened.pass_through)
        never_opened.wait_for_arrivals(1)
        raise LookupError

    assert not result.done() or isinstance(result.exception(), PoolClosedError)


def test_shutdown_can_return_at_once(backend):
    pool = backend.pool()
    result = pool.submit(abs, -1)

    pool.shutdown(wait=False)

    assert result.result(30) == 1
    with pytest.raises(PoolClosedError):
        pool.submit(abs, 1)


def test_nothing_is_left_behind(backend, no_warm_pools):
    if "executor" in backend.name:
        pytest.skip("the executor's workers are the user's")
    backend.pool().close()  # what is imported or opened once stays
    before = Resources()

    for _ in range(3):
        with backend.pool() as pool:
            pool.pmap(abs, [1, 2, 3])
            pool.submit(abs, 1).add_done_callback(lambda _: None)

    added = Resources().added_to(before)
    if backend.name == "ray":
        added.pop("descriptors", None)  # its driver's log stays open, and some sockets
    assert added == {}


def test_an_unclosed_pool_warns(backend):
    pool = backend.pool()
    if not pool._backend.owns_workers:
        pool.close()
        pytest.skip("it has no workers of its own")

    with pytest.warns(ResourceWarning, match="unclosed <parallel_facade.Pool"):
        pool.__del__()

    pool.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool.__del__()


@pytest.mark.requires("can_initialize")
def test_the_initializer_sets_globals_for_the_tasks(backend):
    try:
        with backend.pool(initializer=remember, initargs=("a model",)) as pool:
            assert pool.pmap(lambda x: (SETTING, x), [1, 2]) == [("a model", 1), ("a model", 2)]
    finally:
        remember(None)


@pytest.mark.requires("can_initialize", "needs_serialization")
def test_what_the_initializer_set_stays_for_later_calls(backend):
    space = {"MODEL": None, "OTHER": 1, "__name__": "__main__"}
    exec("def init(v):\n global MODEL\n MODEL = v\ndef use(x): return (MODEL, OTHER, x)", space)

    with backend.pool(initializer=space["init"], initargs=(5,)) as pool:
        assert pool.pmap(space["use"], [1]) == [(5, 1, 1)]
        space["OTHER"] = 2
        assert pool.pmap(space["use"], [1]) == [(5, 2, 1)]


@pytest.mark.requires("can_initialize")
def test_what_the_initializer_changed_in_place_stays_too(backend):
    connections = {}

    class Model:
        weights = None

        def predict(self, x):
            return Model.weights, x

    def set_up(path):
        connections["db"] = path
        Model.weights = path

    with backend.pool(initializer=set_up, initargs=("w",)) as pool:
        assert pool.pmap(Model().predict, [1]) == [("w", 1)]
        assert pool.pmap(Model().predict, [2]) == [("w", 2)]
    space = {"CONNECTIONS": {}, "__name__": "__main__"}
    exec("def init(v): CONNECTIONS['db'] = v\ndef use(x): return CONNECTIONS.get('db')", space)
    with backend.pool(initializer=space["init"], initargs=("w",)) as pool:
        assert pool.pmap(space["use"], [1]) == ["w"]


@pytest.mark.requires("can_initialize")
def test_an_initializer_that_raises_reaches_the_caller(backend):
    def refuse():
        raise LookupError("no model")

    with (
        backend.pool(initializer=refuse) as pool,
        pytest.raises(LookupError, match="no model\nwhile the pool's initializer ran"),
    ):
        pool.pmap(abs, [1])


@pytest.mark.requires("can_recycle")
def test_workers_are_replaced_after_their_number_of_tasks(backend):
    with backend.pool(workers=1, max_tasks_per_worker=3) as pool:
        pids = pool.pmap(lambda _: os.getpid(), range(9), chunksize=1)

    assert [len(set(pids[start : start + 3])) for start in (0, 3, 6)] == [1, 1, 1]
    assert len(set(pids)) == 3


def test_what_a_back_end_cannot_do_is_refused(backend):
    wanted = {
        "can_initialize": {"initializer": print},
        "can_recycle": {"max_tasks_per_worker": 5},
    }
    for capability, options in wanted.items():
        if not getattr(backend.capabilities, capability):
            with pytest.raises(ConfigurationError, match=f"{next(iter(options))}=.*not possible"):
                backend.pool(**options)
    if not backend.capabilities.can_time_tasks:
        with backend.pool() as pool, pytest.raises(ConfigurationError, match="task_timeout=1"):
            pool.pmap(abs, [1], task_timeout=1)


def test_options_that_the_pool_has_fixed_are_refused_by_its_calls(backend):
    with (
        backend.pool() as pool,
        pytest.raises(ConfigurationError, match="backend='thread' is fixed"),
    ):
        pool.pmap(abs, [1], backend="thread")


def test_a_pool_is_a_backend_for_the_verbs(backend):
    with backend.pool() as pool:
        assert pmap(lambda x: x + 1, [1, 2], backend=pool) == [2, 3]
        assert pool.pmap(abs, [-1]) == [1]


def test_a_timeout_frees_the_workers(backend, gate):
    if not backend.capabilities.can_stop_running_task:
        pytest.skip("its running tasks cannot be stopped")
    never_opened = gate()
    with backend.pool(workers=1) as pool:
        with pytest.raises(TaskTimeoutError):
            pool.pmap(never_opened.pass_through, [1], timeout=0.2)

        assert pool.pmap(abs, [-1]) == [1]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_is_told_that_the_pool_is_not_its_own(backend):
    if backend.capabilities.runs_in_caller or not hasattr(os, "fork"):
        pytest.skip("serial has no workers")
    if backend.name == "executor-interpreter":
        pytest.skip("Python cannot fork beside subinterpreters")
    with backend.pool() as pool:
        pid = os.fork()
        if pid == 0:
            try:
                pool.pmap(abs, [1])
            except PoolClosedError as exc:
                os._exit(17 if "forked" in str(exc) else 1)
            os._exit(2)

        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17


def test_its_repr_says_what_it_is():
    pool = Pool(backend="thread", workers=2)

    assert repr(pool) == "<parallel_facade.Pool thread workers=2>"
    pool.close()
    assert repr(pool) == "<parallel_facade.Pool thread closed>"


def test_a_call_whose_pool_is_closed_under_it_says_so(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial has nothing waiting")
    blocker = gate()
    pool = backend.pool()
    blockers = [pool.submit(blocker.pass_through) for _ in range(2)]
    blocker.wait_for_arrivals(2)
    waiting = pool.map(abs, range(12), chunksize=1)  # more than an executor holds ready

    pool.shutdown(wait=False, cancel_futures=True)
    blocker.open()

    with pytest.raises(PoolClosedError, match="before the task ran"):
        list(waiting)
    assert [one.result(30) for one in blockers] == [None, None]


@pytest.mark.requires("can_stop_running_task")
def test_running_calls_are_stopped_at_shutdown_if_asked(backend, gate):
    blocker = gate()
    pool = backend.pool()
    running = pool.submit(blocker.pass_through)
    blocker.wait_for_arrivals(1)

    pool.shutdown(cancel_futures=True, stop_running=True)

    assert isinstance(running.exception(30), PoolClosedError)


def test_results_of_map_can_be_taken_after_the_block(backend):
    with backend.pool() as pool:
        results = pool.map(lambda x: x + 1, range(50), chunksize=1)

    assert list(results) == list(range(1, 51))


def test_an_iterator_of_a_closed_pool_says_so(backend):
    pool = backend.pool()
    results = pool.imap(abs, itertools.count())
    next(results)

    pool.close(cancel=True)

    with pytest.raises(PoolClosedError):
        for _ in results:
            pass


@pytest.mark.requires("can_initialize")
def test_a_failing_initializer_is_raised_again_and_in_nobodys_place(backend):
    def refuse():
        raise LookupError("no model")

    with backend.pool(initializer=refuse) as pool:
        for _ in range(2):
            with pytest.raises(LookupError, match="no model"):
                pool.pmap(abs, [1], return_exceptions=True)
        assert not pool.is_usable


def test_bad_arguments_of_a_pool_and_its_calls_are_refused(backend):
    with pytest.raises(ConfigurationError, match=r"initargs=\(1,\) needs an initializer"):
        backend.pool(initargs=(1,))
    with backend.pool() as pool:
        with pytest.raises(TypeError, match="^callback must be callable, got 5"):
            pool.apply_async(abs, (1,), callback=5)
        with pytest.raises(TypeError, match="^error_callback must be callable"):
            pool.apply_async(abs, (1,), error_callback="x")
        with pytest.raises(ConfigurationError, match="max_tasks_per_worker=1 is not possible"):
            Pool(backend=pool, max_tasks_per_worker=1) if not (
                backend.capabilities.can_recycle
            ) else Pool(backend="thread", max_tasks_per_worker=1)


def test_a_second_close_waits_for_the_first(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial has nothing to wait for")
    closed = gate()
    pool = backend.pool()
    result = pool.submit(closed.pass_through, "through")
    closed.wait_for_arrivals(1)
    pool.shutdown(wait=False)
    opener = threading.Thread(target=closed.open)

    opener.start()
    pool.close()

    assert result.done()
    opener.join()


def test_functions_among_the_results_leave_nothing_behind(backend):
    from parallel_facade._serialization.modules.state import worker

    before = set(worker.spaces)

    with backend.pool() as pool:
        made = pool.pmap(lambda x: lambda: x, [1, 2])
        assert [function() for function in made] == [1, 2]
        assert pool.apply_async(lambda: lambda: 3).get()() == 3

    assert set(worker.spaces) == before


def test_an_executor_that_breaks_fails_its_items(backend):
    if backend.name != "executor-process":
        pytest.skip("its workers are replaced, or cannot die alone")

    with concurrent.futures.ProcessPoolExecutor(1, mp_context=FORKSERVER) as executor:
        results = pmap(os._exit, [1, 1], backend=executor, chunksize=1, return_exceptions=True)
        with pytest.raises(WorkerCrashedError, match="the executor lost its workers"):
            pmap(abs, [1], backend=executor)

    assert {type(result) for result in results} == {WorkerCrashedError}


def test_a_map_can_be_awaited_while_the_event_loop_goes_on(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial runs the items in the event loop's own thread")
    held = gate()

    async def open_it():
        await asyncio.to_thread(held.wait_for_arrivals, 2)
        held.open()

    async def main(pool):
        results, _ = await asyncio.gather(pool.amap(held.pass_through, ["a", "b"]), open_it())
        return results

    with backend.pool() as pool:
        assert asyncio.run(main(pool)) == ["a", "b"]


def test_an_awaited_map_raises_as_a_map_does(backend):
    async def main(pool):
        with pytest.raises(ZeroDivisionError) as caught:
            await pool.amap(lambda x: 1 // x, [1, 0])
        kept = await pool.amap(lambda x: 1 // x, [1, 0], return_exceptions=True)
        assert (kept[0], type(kept[1])) == (1, ZeroDivisionError)
        return caught.value

    with backend.pool() as pool:
        error = asyncio.run(main(pool))

    assert error.__notes__ == ["while running item 1: 0"]
    assert error.partial_results[0] == 1


@pytest.mark.requires("can_stop_running_task")
@pytest.mark.parametrize("how", ["amap", "apply_async"])
def test_cancelling_who_awaits_ends_what_runs(backend, gate, how):
    held = gate()

    async def call(pool):
        if how == "amap":
            await pool.amap(held.pass_through, ["never"])
        else:
            await pool.apply_async(held.pass_through, ("never",))

    async def main(pool):
        calling = asyncio.ensure_future(call(pool))
        await asyncio.to_thread(held.wait_for_arrivals, 1)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

    with backend.pool(workers=1) as pool:
        asyncio.run(main(pool))
        assert pool.pmap(abs, [-1], timeout=60) == [1]


def test_a_system_without_more_threads_says_so(monkeypatch):
    start, left = threading.Thread.start, [2]

    def refuse(self):
        if left[0] <= 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        return start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Pool("thread", workers=4)
