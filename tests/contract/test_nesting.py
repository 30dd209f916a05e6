"""Calls in calls, and calls beside calls: nobody has more workers than were asked for."""

import asyncio
import concurrent.futures
import os
import threading

import pytest

from parallel_facade import apply_async, config, configure, get_config, imap, pmap, trace

pytestmark = pytest.mark.each_start_method


def test_calls_may_nest(backend):
    def row(n):
        return pmap(lambda x: x + 1, range(n))

    assert pmap(row, [1, 2, 3]) == [[1], [1, 2], [1, 2, 3]]


def test_nested_calls_run_in_their_worker(backend):
    def places(_):
        return {(os.getpid(), threading.get_ident())} == set(
            pmap(lambda _: (os.getpid(), threading.get_ident()), range(4), workers=4)
        )

    if backend.capabilities.runs_in_caller:
        pytest.skip("serial is the caller's own thread, not a worker")
    assert pmap(places, range(2)) == [True, True]


def test_calls_from_several_threads_do_not_disturb_each_other(backend):
    results = {}

    def call(offset):
        results[offset] = pmap(lambda x: x + offset, range(30), **backend_options)

    backend_options = {key: backend.settings[key] for key in ("backend", "workers")}
    threads = [threading.Thread(target=call, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == {offset: [x + offset for x in range(30)] for offset in range(4)}


def test_a_call_with_more_workers_lifts_no_limit_for_others(backend):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial has one worker")
    counts = []
    for workers in (None, 2, None):
        with config(workers=1), trace() as timeline:
            pmap(abs, range(4), workers=workers)
        counts.append(timeline.report().workers)

    assert counts == [1, 2, 1]


def test_fewer_workers_than_the_pool_has_are_honoured(backend, gate):
    turnstile = gate()
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial is one worker anyway")
    arrived = []

    def watch():
        for _ in range(3):
            turnstile.wait_for_arrivals(1)
            arrived.append(len(turnstile._waiting))
            turnstile.open()

    watcher = threading.Thread(target=watch)
    watcher.start()
    pmap(turnstile.pass_through, range(3), workers=1, chunksize=1)
    watcher.join()

    assert arrived == [1, 1, 1]


def test_a_nested_call_in_another_thread_of_asyncio_is_a_nested_call(backend):
    def row(n):
        async def main():
            return await asyncio.to_thread(pmap, abs, range(-n, 0))

        return asyncio.run(main())

    assert pmap(row, [1, 2, 3, 4]) == [[1], [2, 1], [3, 2, 1], [4, 3, 2, 1]]


@pytest.mark.requires("can_stop_running_task")
def test_a_nested_call_may_ask_for_what_its_worker_cannot_do(backend):
    assert pmap(lambda n: pmap(abs, [-n], task_timeout=60), [1, 2]) == [[1], [2]]


def test_a_nested_call_has_the_callers_settings(backend, tmp_path):
    def flaky(x):
        if not (tmp_path / str(x)).exists():
            (tmp_path / str(x)).touch()
            raise OSError("the first time")
        return x

    with config(retries=1, chunksize=2):
        assert pmap(lambda n: pmap(flaky, [n], retry_on=OSError), [1, 2]) == [[1], [2]]
        assert pmap(lambda _: get_config()[4:8], [0]) == [get_config()[4:8]]
    assert pmap(lambda _: get_config().retries, [0]) == [0], "and not any more"


def in_a_thread(function, *args):
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *args).result()


VERBS = {
    "pmap": lambda n: pmap(abs, [-n, -1]),
    "imap": lambda n: list(imap(abs, [-n, -1])),
    "apply_async": lambda n: [apply_async(abs, (-n,)).get(60), apply_async(abs, (-1,)).get(60)],
}


@pytest.mark.parametrize("verb", VERBS)
def test_tasks_call_from_threads_of_their_own(backend, verb):
    inner = VERBS[verb]

    assert pmap(lambda n: in_a_thread(inner, n), range(6), workers=2) == [[n, 1] for n in range(6)]
    outer = [apply_async(lambda n: in_a_thread(inner, n), (n,)) for n in range(6)]
    assert [result.get(60) for result in outer] == [[n, 1] for n in range(6)]


def test_tasks_call_from_threads_of_threads(backend):
    def deep(n):
        return n and 1 + in_a_thread(lambda: pmap(deep, [n - 1] * 2))[0]

    assert pmap(deep, [3, 3, 3], workers=2) == [3, 3, 3]


def test_tasks_call_their_own_pool_from_threads(backend):
    if not backend.capabilities.runs_in_caller and backend.capabilities.needs_serialization:
        pytest.skip("a pool belongs to the process that made it")
    with backend.pool(workers=2) as pool:
        results = pool.pmap(lambda n: in_a_thread(pool.pmap, abs, [-n]), range(5))

    assert results == [[n] for n in range(5)]


@pytest.mark.parametrize("verb", VERBS)
def test_tasks_on_threads_of_an_executor_call_it_from_threads_of_their_own(verb):
    inner = VERBS[verb]

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        configure(backend=executor)
        assert pmap(lambda n: in_a_thread(inner, n), range(5)) == [[n, 1] for n in range(5)]
        configure(backend=None)
