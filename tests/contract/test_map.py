"""What `pmap` promises, on every back-end."""

import dataclasses
import os
import sys
import threading
from collections.abc import Iterator

import pytest

import parallel_facade
from parallel_facade import Progress, imap, pmap


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


def test_the_exit_of_an_item_is_its_result_with_return_exceptions(backend, caplog):
    def main(x):
        return sys.exit(x) if x in {2, 3} else x

    results = pmap(main, range(5), return_exceptions=True)

    assert [results[index] for index in (0, 1, 4)] == [0, 1, 4]
    assert [(type(results[index]), results[index].code) for index in (2, 3)] == [
        (SystemExit, 2),
        (SystemExit, 3),
    ]
    assert caplog.records == []


def test_the_exit_of_an_item_is_raised_and_logged(backend, caplog):
    with pytest.raises(SystemExit) as left:
        pmap(lambda x: sys.exit(7) if x == 2 else x, range(4), chunksize=1)

    assert left.value.code == 7
    said = [record.getMessage() for record in caplog.records]
    assert said == ["item 2 has raised SystemExit(7), which ends the program"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit("x")])
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


def test_an_iterable_that_does_not_know_its_length_is_as_good_as_any(backend):
    assert pmap(abs, imap(lambda x: -x, iter(range(5)))) == [0, 1, 2, 3, 4]
