"""What `imap` promises, on every back-end."""

import asyncio
import concurrent.futures
import gc
import itertools
import operator
import os
import threading

import pytest

from parallel_facade import PoolClosedError, SerializationError, TaskTimeoutError, imap, pmap
from parallel_facade._common.deadlines import Deadline
from parallel_facade._dispatch.chunk_sizer import MOST_ITEMS

PATIENCE = 60


class Source:
    """Endless items, remembering who pulled them."""

    def __init__(self) -> None:
        self.pulled = 0
        self.threads: set[str] = set()

    def __iter__(self):
        for item in itertools.count():
            self.pulled += 1
            self.threads.add(threading.current_thread().name)
            yield item


def test_results_are_in_the_order_of_the_items(backend):
    assert list(imap(lambda x: -x, range(50))) == [-x for x in range(50)]


def test_unordered_results_are_all_there(backend):
    assert sorted(imap(lambda x: -x, range(50), ordered=False)) == sorted(-x for x in range(50))


def test_unordered_yields_the_finished_task_first(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial runs one item at a time")
    gates = {"slow": gate(), "fast": gate()}
    results = imap(lambda name: gates[name].pass_through(name), ["slow", "fast"], ordered=False)

    def open_fast():
        gates["fast"].wait_for_arrivals(1)
        gates["fast"].open()

    opener = threading.Thread(target=open_fast)
    opener.start()

    assert next(results) == "fast"

    opener.join()
    gates["slow"].wait_for_arrivals(1)
    gates["slow"].open()
    assert next(results) == "slow"


@pytest.mark.parametrize(("buffersize", "chunksize"), [(1, None), (3, None), (5, 2), (4, 10)])
def test_no_more_items_are_pulled_than_the_buffer_holds(backend, buffersize, chunksize):
    source = Source()
    results = imap(lambda x: x, source, buffersize=buffersize, chunksize=chunksize)

    for expected in range(7):
        assert next(results) == expected
        assert source.pulled <= expected + 1 + buffersize
    results.close()


def test_the_default_buffer_is_bounded(backend):
    source = Source()

    assert next(imap(lambda x: x, source)) == 0

    assert source.pulled <= 2 * 2 * MOST_ITEMS


def test_nothing_is_pulled_before_the_first_result_is_asked_for(backend):
    source = Source()

    imap(lambda x: x, source).close()

    assert source.pulled == 0


def test_input_is_pulled_in_the_consumers_thread(backend):
    source = Source()

    list(itertools.islice(imap(lambda x: x, source), 10))

    assert source.threads == {threading.current_thread().name}


def test_dropping_the_iterator_frees_the_pool(backend):
    results = imap(lambda x: x, itertools.count())
    next(results)

    del results

    assert pmap(abs, [-1, -2]) == [1, 2]


def test_a_closed_iterator_is_at_its_end(backend):
    results = imap(abs, [1, 2, 3])
    next(results)

    results.close()
    results.close()

    assert list(results) == []


def test_its_input_may_close_it(backend):
    def items():
        for n in itertools.count():
            if n == 4:
                results.close()
            yield n

    results = imap(abs, items(), buffersize=10)

    found = list(results)
    assert found == list(range(len(found)))
    assert len(found) <= 4
    assert pmap(abs, [-1, -2], chunksize=1) == [1, 2]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_is_told_that_the_results_are_not_its_own(backend, gate):
    if backend.capabilities.runs_in_caller or not hasattr(os, "fork"):
        pytest.skip("serial has no workers")
    if backend.name == "executor-interpreter":
        pytest.skip("Python cannot fork beside subinterpreters")
    held = gate()
    with backend.pool() as pool:
        results = pool.imap(abs, itertools.count())
        next(results)
        result = pool.apply_async(held.pass_through)
        held.wait_for_arrivals(1)
        pid = os.fork()
        if pid == 0:
            told = 0
            for ask in (result.get, results.__next__):
                try:
                    ask()
                except PoolClosedError as exc:
                    told += "forked" in str(exc)
            os._exit(told)

        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
        held.open()
        assert result.get(PATIENCE) is None
        results.close()


def test_a_with_block_closes_it(backend):
    with imap(abs, itertools.count()) as results:
        assert next(results) == 0

    assert list(results) == []


def test_length_is_what_is_still_to_come_where_known(backend):
    known, unknown = imap(abs, [1, 2, 3]), imap(abs, iter([1, 2, 3]))

    next(known)

    assert len(known) == 2
    assert operator.length_hint(unknown) == 0
    with pytest.raises(TypeError, match="not known"):
        len(unknown)
    assert list(unknown) == [1, 2, 3]
    assert bool(unknown)


def test_results_before_a_failure_are_given_first(backend):
    results = imap(lambda x: 1 // (2 - x), range(10))

    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert caught.value.__notes__ == ["while running item 2: 2"]
    assert list(results) == []


def test_return_exceptions_goes_on_after_failures(backend):
    results = list(imap(lambda x: 1 // x, [0, 1, 0, 2], return_exceptions=True))

    assert [type(result) for result in results] == [ZeroDivisionError, int, ZeroDivisionError, int]


@pytest.mark.requires("needs_serialization")
def test_an_item_that_cannot_travel_is_refused_when_its_turn_comes(backend):
    results = imap(lambda x: x, [1, 2, (x for x in [1]), 4], buffersize=4, chunksize=2)

    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(SerializationError, match="cannot send item 2"):
        next(results)


def test_many_items_that_cannot_travel_are_kept_in_place(backend):
    if not backend.capabilities.needs_serialization:
        pytest.skip("everything travels within a process")
    items = ((x for x in [1]) for _ in range(1_500))

    results = list(imap(lambda x: x, items, return_exceptions=True))

    assert {type(result) for result in results} == {SerializationError}
    assert len(results) == 1_500


def test_the_input_iterators_own_error_reaches_the_consumer(backend):
    def items():
        yield 1
        raise LookupError("input")

    with pytest.raises(LookupError, match="input"):
        list(imap(abs, items()))

    assert pmap(abs, [-1]) == [1]


def test_timeout_counts_from_the_call(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial cannot interrupt the caller's own thread")
    never_opened = gate()
    results = imap(never_opened.pass_through, iter([1]), timeout=0.1)

    with pytest.raises(TaskTimeoutError, match="0 items had ended"):
        next(results)


def test_retries_keep_the_order(backend, tmp_path):
    def fail_once(x):
        if x == 1 and not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            raise OSError
        return x

    assert list(imap(fail_once, range(4), retries=1, retry_on=OSError)) == [0, 1, 2, 3]


def test_it_works_in_async_for(backend):
    async def collect():
        return [result async for result in imap(lambda x: x + 1, range(20))]

    assert asyncio.run(collect()) == list(range(1, 21))


def test_async_for_lets_the_event_loop_go_on(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial runs in the event loop's own thread")
    closed = gate()

    async def main():
        results = imap(closed.pass_through, ["through"])
        first = asyncio.ensure_future(anext(results))
        await asyncio.get_running_loop().run_in_executor(None, closed.wait_for_arrivals, 1)
        assert not first.done()
        closed.open()
        return await first

    assert asyncio.run(main()) == "through"


def test_async_timeout_ends_the_wait(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial cannot interrupt the caller's own thread")
    never_opened = gate()

    async def main():
        async for _ in imap(never_opened.pass_through, [1], timeout=0.1):
            pass

    with pytest.raises(TaskTimeoutError):
        asyncio.run(main())


def test_a_bar_is_not_shown_outside_of_a_terminal(backend, capsys):
    list(imap(abs, range(5), progress="counting"))

    assert capsys.readouterr().err == ""


def test_what_was_pulled_before_the_input_failed_is_given_first(backend):
    def items():
        yield from range(5)
        raise LookupError("input")

    results = imap(lambda x: x * 10, items(), chunksize=2)

    assert [next(results) for _ in range(5)] == [0, 10, 20, 30, 40]
    with pytest.raises(LookupError, match="input"):
        next(results)


def test_a_stop_iteration_of_the_function_is_not_the_end(backend):
    def stop(x):
        if x == 2:
            raise StopIteration("mine")
        return x

    results = imap(stop, range(5))

    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(RuntimeError, match="the function raised StopIteration") as caught:
        next(results)
    assert caught.value.__cause__.args == ("mine",)


def test_a_second_consumer_is_refused_and_not_left_waiting(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial never waits")
    closed = gate()
    results = imap(lambda x: x if x else closed.pass_through(x), range(50))
    first = []
    consumer = threading.Thread(target=lambda: first.extend(results))
    consumer.start()
    closed.wait_for_arrivals(1)

    with pytest.raises(ValueError, match="already waiting"):
        next(results)

    closed.open()
    consumer.join()
    assert first == list(range(50)), "the first consumer is none the wiser"


def test_two_who_take_turns_share_the_results(backend):
    results = imap(abs, range(40))
    first, second = iter(results), iter(results)

    taken = [(next(first), next(second), next(results)) for _ in range(5)]

    assert taken == [(n, n + 1, n + 2) for n in range(0, 15, 3)]
    assert len(results) == 25
    assert list(first) == list(range(15, 40))
    assert list(results) == []


def test_a_loop_ends_where_its_iterator_is_closed(backend):
    seen = []
    results = imap(abs, range(1_000))
    for value in results:
        seen.append(value)
        if value == 3:
            results.close()

    assert seen == [0, 1, 2, 3]


def test_iterators_dropped_by_the_garbage_collector_hold_nobody_up(backend):
    class Cycle:
        def __init__(self):
            self.results = imap(lambda x: x, range(20))
            self.itself = self

    thresholds = gc.get_threshold()
    gc.set_threshold(40, 2, 2)
    try:
        first = [next(Cycle().results) for _ in range(60)]
    finally:
        gc.set_threshold(*thresholds)

    assert first == [0] * 60


def test_what_has_ended_is_given_also_when_the_time_is_up(backend, monkeypatch):
    if backend.capabilities.runs_in_caller:
        pytest.skip("nothing ends before it is asked for")
    with imap(abs, [-1, -2, -3], timeout=3600, ordered=False) as results:
        taken = [next(results)]
        run = results._slices.run
        concurrent.futures.wait(list(run._in_flight), PATIENCE)
        monkeypatch.setattr(run, "_deadline", Deadline(0))
        assert sorted([*taken, *results]) == [1, 2, 3]


def test_an_input_may_be_longer_than_any_length(backend):
    results = imap(lambda x: x + 1, range(10**20))

    assert [next(results) for _ in range(3)] == [1, 2, 3]
    results.close()
