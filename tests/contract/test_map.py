"""What `pmap` promises, on every back-end."""

import asyncio
import dataclasses
import os
import random
import sys
import threading
from collections.abc import Iterator

import pytest

import parallel_facade
from parallel_facade import (
    ConfigurationError,
    Progress,
    SerializationError,
    TaskTimeoutError,
    WorkerCrashedError,
    config,
    imap,
    pmap,
    trace,
)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


class OwnError(Exception):
    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


def test_results_are_in_the_order_of_the_items(backend):
    assert pmap(lambda x: x * x, range(500)) == [x * x for x in range(500)]


@pytest.mark.parametrize("chunksize", [1, 3, 500, None])
def test_any_chunksize_gives_the_same_results(backend, chunksize):
    assert pmap(str, range(40), chunksize=chunksize) == [str(x) for x in range(40)]


def test_several_iterables_zip_to_the_shortest(backend):
    assert pmap(pow, [2, 3, 4], iter([5, 2])) == [32, 9]
    assert pmap(lambda a, b, c: (a, b, c), "ab", [1, 2], (None, True)) == [
        ("a", 1, None),
        ("b", 2, True),
    ]


def test_strict_refuses_iterables_of_different_length_before_anything_runs(backend, tmp_path):
    trace = tmp_path / "trace"

    with pytest.raises(ValueError, match="shorter"):
        pmap(lambda a, b: trace.touch(), [1, 2], [1], strict=True)

    assert not trace.exists()


def test_no_items_give_no_results(backend):
    assert pmap(abs, []) == []
    assert pmap(abs, iter(())) == []


def test_an_exception_is_the_users_own_and_names_the_item(backend):
    def fail(x):
        if x == 3:
            raise OwnError("no", code=7)
        return x

    with pytest.raises(OwnError, match="no") as caught:
        pmap(fail, range(5))

    assert caught.value.code == 7
    assert caught.value.__notes__ == ["while running item 3: 3"]


@pytest.mark.requires("needs_serialization")
def test_an_exception_shows_the_workers_traceback(backend):
    def inner(x):
        return 1 // x

    with pytest.raises(ZeroDivisionError) as caught:
        pmap(lambda x: inner(x), [0])

    assert "in inner" in str(caught.value.__cause__)


def test_a_local_exception_class_is_caught_as_itself(backend):
    class LocalError(Exception):
        pass

    def fail(x):
        raise LocalError(x)

    with pytest.raises(LocalError):
        pmap(fail, [1])


@pytest.mark.parametrize("repetition", range(5))
def test_of_several_failures_the_lowest_index_is_raised(backend, repetition):
    def fail(x):
        raise ValueError(x)

    with pytest.raises(ValueError) as caught:
        pmap(fail, range(8), chunksize=1)

    assert caught.value.args == (0,)


def test_a_failure_behind_a_slow_item_waits_for_it(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial runs one item at a time")
    slow, first_failed = gate(), gate()

    def run(x):
        if x == 0:
            slow.pass_through()
            raise ValueError("from 0")
        first_failed.pass_through()
        raise ValueError("from 1")

    def open_in_turn():
        slow.wait_for_arrivals(1)
        first_failed.wait_for_arrivals(1)
        first_failed.open()
        slow.open()

    opener = threading.Thread(target=open_in_turn)
    opener.start()

    with pytest.raises(ValueError, match="from 0"):
        pmap(run, [0, 1], chunksize=1)

    opener.join()


def test_the_first_failure_leaves_what_has_not_started_alone(backend, tmp_path, gate):
    closed = gate()

    def run(x):
        (tmp_path / str(x)).touch()
        if x == 0:
            raise ValueError
        closed.pass_through()

    with pytest.raises(ValueError):
        pmap(run, range(200), chunksize=1)

    assert len(os.listdir(tmp_path)) < 200


def test_return_exceptions_puts_them_in_their_place_and_runs_everything(backend):
    results = pmap(lambda x: 1 // x, [1, 0, 2, 0], return_exceptions=True)

    assert [type(result) for result in results] == [int, ZeroDivisionError, int, ZeroDivisionError]
    assert results[3].__notes__ == ["while running item 3: 0"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit("x")])
def test_what_ends_a_program_is_raised_as_itself_even_with_return_exceptions(backend, error):
    def leave(x):
        raise error

    with pytest.raises(type(error)) as caught:
        pmap(leave, [1], return_exceptions=True)

    assert caught.value.args == error.args
    assert getattr(caught.value, "code", None) == getattr(error, "code", None)
    assert pmap(abs, [-1]) == [1]


def test_instances_come_back_as_the_callers_own_class(backend):
    class Local:
        pass

    points = pmap(Point, [1, 2])
    locals_ = pmap(lambda _: Local(), [1, 2])

    assert [type(point) is Point for point in points] == [True, True]
    assert [type(one) is Local for one in locals_] == [True, True]


def test_a_changed_global_is_seen_by_the_next_call(backend):
    space = {"FACTOR": 2, "__name__": "__main__"}
    exec("def scaled(x): return x * FACTOR", space)

    before = pmap(space["scaled"], [1, 2])
    space["FACTOR"] = 10

    assert before == [2, 4]
    assert pmap(space["scaled"], [1, 2]) == [10, 20]


def test_the_input_iterators_own_error_reaches_the_caller(backend):
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("input")

    with pytest.raises(LookupError, match="input"):
        pmap(abs, items())


def test_progress_counts_every_item_and_every_failure(backend):
    states: list[Progress] = []

    pmap(lambda x: 1 // x, [0, 1, 2, 0], progress=states.append, return_exceptions=True)

    assert [state.done for state in states] == [1, 2, 3, 4]
    assert (states[-1].total, states[-1].failed) == (4, 2)
    assert (states[-1].retried, states[-1].in_flight) == (0, 0)


def test_progress_counts_attempts_and_what_is_in_flight(backend):
    states: list[Progress] = []

    with pytest.raises(ZeroDivisionError):
        pmap(
            lambda x: 1 // x,
            [1, 0],
            chunksize=1,
            progress=states.append,
            retries=2,
            retry_on=ZeroDivisionError,
        )

    assert (states[-1].done, states[-1].failed, states[-1].retried) == (2, 1, 2)
    assert all(0 <= state.in_flight <= 2 - state.done for state in states)


def test_an_error_in_a_progress_callable_reaches_the_caller(backend):
    def show(state):
        raise LookupError("display")

    with pytest.raises(LookupError, match="display"):
        pmap(abs, [1], progress=show)

    assert pmap(abs, [-1]) == [1]


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


def test_retry_on_runs_a_failed_item_again(backend, tmp_path):
    def succeed_at_third_attempt(x):
        attempts = len(list(tmp_path.iterdir()))
        (tmp_path / str(attempts)).touch()
        if attempts < 2:
            raise OSError("not yet")
        return x

    assert pmap(succeed_at_third_attempt, [7], retries=2, retry_on=OSError) == [7]


def test_retries_end_in_the_last_error(backend):
    def fail(x):
        raise OSError("never")

    with pytest.raises(OSError, match="never"):
        pmap(fail, [1, 2], retries=2, retry_on=(OSError, KeyError))


def test_other_errors_are_not_retried(backend, tmp_path):
    def fail(x):
        (tmp_path / os.urandom(4).hex()).touch()
        raise ValueError

    with pytest.raises(ValueError):
        pmap(fail, [1], retries=3, retry_on=OSError)

    assert len(list(tmp_path.iterdir())) == 1


def test_timeout_ends_the_call(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial cannot interrupt the caller's own thread")
    never_opened = gate()

    with pytest.raises(TaskTimeoutError, match=r"0\.1 seconds; 0 of 1 items"):
        pmap(never_opened.pass_through, [1], timeout=0.1)


@pytest.mark.requires("can_stop_running_task")
def test_task_timeout_ends_only_the_slow_item(backend, gate):
    never_opened = gate()

    results = pmap(
        lambda x: never_opened.pass_through() if x == 1 else x,
        range(4),
        task_timeout=1,
        return_exceptions=True,
    )

    assert results[:1] + results[2:] == [0, 2, 3]
    assert isinstance(results[1], TaskTimeoutError)
    assert pmap(abs, [-1]) == [1]


@pytest.mark.requires("can_time_tasks")
def test_an_item_that_takes_too_long_is_an_error_and_others_go_on(backend, gate):
    slow = gate()

    outcomes = pmap(
        lambda x: slow.pass_through(x) if x == 1 else x,
        range(4),
        task_timeout=1,
        return_exceptions=True,
    )
    slow.wait_for_arrivals(1)
    slow.open()

    assert outcomes[:1] + outcomes[2:] == [0, 2, 3]
    assert isinstance(outcomes[1], TaskTimeoutError)
    assert "while running item 1: 1" in outcomes[1].__notes__


@pytest.mark.requires("survives_crashes")
def test_a_worker_that_dies_is_an_error_and_the_pool_goes_on(backend):
    with pytest.raises(WorkerCrashedError) as caught:
        pmap(lambda x: os._exit(3), [1])

    assert "while running item 0: 1" in caught.value.__notes__
    assert pmap(abs, [-1, -2]) == [1, 2]


@pytest.mark.requires("survives_crashes", "tells_what_ran")
def test_a_worker_that_dies_is_told_of_with_its_exit_code(backend):
    with pytest.raises(WorkerCrashedError, match="exit code 3") as caught:
        pmap(lambda x: os._exit(3), [1])

    assert caught.value.exitcode == 3


@pytest.mark.requires("survives_crashes")
def test_a_crash_is_retried_on_request(backend, tmp_path):
    def crash_once(x):
        if not (tmp_path / "crashed").exists():
            (tmp_path / "crashed").touch()
            os._exit(1)
        return x

    assert pmap(crash_once, [5], retries=1) == [5]


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


@pytest.mark.requires("needs_serialization")
def test_an_item_that_cannot_travel_is_refused_before_anything_runs(backend, tmp_path):
    trace = tmp_path / "trace"

    with pytest.raises(SerializationError, match="cannot send item 2: .*generator") as caught:
        pmap(lambda x: trace.touch(), [1, 2, (x for x in [1])], chunksize=1)

    assert caught.value.path == "item 2"
    assert not trace.exists()


@pytest.mark.requires("needs_serialization")
def test_an_item_that_cannot_travel_is_kept_in_place_on_request(backend):
    items = [1, (x for x in [1]), 3]

    results = pmap(lambda x: x, items, return_exceptions=True, chunksize=3)

    assert (results[0], results[2]) == (1, 3)
    assert isinstance(results[1], SerializationError)


@pytest.mark.requires("needs_serialization")
def test_a_callable_that_cannot_travel_is_refused_before_anything_runs(backend):
    held = (x for x in [1])

    with pytest.raises(SerializationError, match="cannot send the callable"):
        pmap(lambda x: held, [1])


@pytest.mark.requires("needs_serialization")
def test_a_result_that_cannot_travel_fails_its_item_alone(backend):
    results = pmap(
        lambda x: (y for y in [x]) if x == 1 else x, range(3), return_exceptions=True, chunksize=3
    )

    assert (results[0], results[2]) == (0, 2)
    assert isinstance(results[1], SerializationError)
    assert "a generator" in str(results[1])


class FailsToLoad:
    def __init__(self, x: int) -> None:
        self.x = x

    def __setstate__(self, state: dict[str, int]) -> None:
        if state["x"] == 1:
            raise LookupError("cannot be rebuilt")
        self.__dict__.update(state)


@pytest.mark.requires("needs_serialization")
def test_an_item_that_cannot_be_rebuilt_fails_alone(backend):
    items = [FailsToLoad(x) for x in range(3)]

    results = pmap(lambda item: item.x, items, return_exceptions=True, chunksize=3)

    assert (results[0], results[2]) == (0, 2)
    assert isinstance(results[1], SerializationError)
    assert "cannot be rebuilt" in str(results[1])


@pytest.mark.requires("needs_serialization")
def test_a_result_that_cannot_be_rebuilt_fails_its_item_alone(backend):
    results = pmap(FailsToLoad, range(3), return_exceptions=True, chunksize=3)

    assert [type(result).__name__ for result in results] == [
        "FailsToLoad",
        "SerializationError",
        "FailsToLoad",
    ]


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


def test_the_main_module_is_as_it_was(backend):
    before = sys.modules["__main__"]

    pmap(lambda x: x, [1])

    assert sys.modules["__main__"] is before
    assert parallel_facade.pmap is pmap


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    code: int


def test_an_exception_that_refuses_attributes_is_still_the_users_own(backend):
    def fail(x):
        raise FrozenError(x)

    with pytest.raises(FrozenError) as caught:
        pmap(fail, [7])
    kept = pmap(fail, [8], return_exceptions=True)

    assert caught.value.code == 7
    assert [type(error) for error in kept] == [FrozenError]


def test_locks_that_are_free_travel_and_locks_that_are_held_are_refused(backend):
    lock, condition = threading.RLock(), threading.Condition()

    def use(x):
        with lock, condition:
            return x

    assert pmap(use, [1, 2]) == [1, 2]
    if backend.capabilities.needs_serialization:
        with lock, pytest.raises(SerializationError, match="a lock that is held cannot travel"):
            pmap(use, [1])


@pytest.mark.parametrize("seconds", [float("inf"), 1e300, 1e12, 1e8])
def test_very_long_limits_are_no_limits(backend, seconds):
    task_timeout = seconds if backend.capabilities.can_stop_running_task else None

    assert pmap(abs, [-1, -2], timeout=seconds, task_timeout=task_timeout) == [1, 2]


def test_a_nested_call_in_another_thread_of_asyncio_is_a_nested_call(backend):
    def row(n):
        async def main():
            return await asyncio.to_thread(pmap, abs, range(-n, 0))

        return asyncio.run(main())

    assert pmap(row, [1, 2, 3, 4]) == [[1], [2, 1], [3, 2, 1], [4, 3, 2, 1]]


@pytest.mark.requires("can_stop_running_task")
def test_a_nested_call_may_ask_for_what_its_worker_cannot_do(backend):
    assert pmap(lambda n: pmap(abs, [-n], task_timeout=60), [1, 2]) == [[1], [2]]


def test_a_nested_seed_is_refused_only_where_the_random_state_is_shared(backend):
    def row(n):
        return pmap(lambda _: random.random(), range(n), seed=1)

    if backend.capabilities.has_private_state:
        assert pmap(row, [3]) == [pmap(lambda _: random.random(), range(3), seed=1)]
        return
    with pytest.raises(ConfigurationError, match="seed=1 is not possible in a worker that shares"):
        pmap(row, [3])


def test_an_iterable_that_does_not_know_its_length_is_as_good_as_any(backend):
    assert pmap(abs, imap(lambda x: -x, iter(range(5)))) == [0, 1, 2, 3, 4]
