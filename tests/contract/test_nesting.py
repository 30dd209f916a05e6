"""Calls in calls, and calls beside calls: nobody has more workers than were asked for."""

import asyncio
import os
import threading

import pytest

from parallel_facade import config, get_config, pmap, trace

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
