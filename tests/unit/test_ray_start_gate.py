"""Who may begin on the start gate of Ray; without Ray, as it is a plain class."""

import asyncio

import pytest

from parallel_facade.backends.engines.ray_start_gate import StartGate


@pytest.fixture
def gate():
    return StartGate()


def begin(gate, number, worker="w", *, is_loading=False):
    return asyncio.run(gate.begin(number, "host", worker, is_loading))


def mark_for_kill(gate, number):
    return asyncio.run(gate.mark_for_kill(number))


def test_a_task_that_was_called_off_never_begins(gate):
    assert begin(gate, 0)
    assert asyncio.run(gate.revoke([0, 1])) == [1], "0 has begun"
    assert not begin(gate, 1)


def test_nothing_begins_in_a_worker_that_may_be_ended(gate):
    assert begin(gate, 0)
    assert begin(gate, 1, "other")
    assert mark_for_kill(gate, 0)
    assert not begin(gate, 2)
    assert begin(gate, 3, "other")


def test_a_worker_is_not_ended_for_a_task_that_another_has_followed(gate):
    assert begin(gate, 0)
    assert begin(gate, 1)
    assert not mark_for_kill(gate, 0)
    assert begin(gate, 2)


def test_a_task_that_is_ended_before_it_begins_never_does(gate):
    assert not mark_for_kill(gate, 0)
    assert not begin(gate, 0)
    assert begin(gate, 1), "its worker is as good as any"


def test_what_was_told_is_taken_once(gate):
    for number in range(3):
        begin(gate, number)

    assert asyncio.run(gate.take(0)) == [(number, "host", False) for number in range(3)]
    begin(gate, 3)
    assert asyncio.run(gate.take(3)) == [(3, "host", False)]


def test_a_worker_that_has_to_rebuild_the_callable_says_so_and_when_it_has(gate):
    begin(gate, 0, is_loading=True)
    asyncio.run(gate.note_loaded(0, "host"))

    assert asyncio.run(gate.take(0)) == [(0, "host", True), (0, "host", False)]
