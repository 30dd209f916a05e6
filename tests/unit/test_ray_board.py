"""Who may begin on the board of Ray's tasks; without Ray, as it is a plain class."""

import asyncio

import pytest

from parallel_facade.backends.engines.ray_start_gate import Board


@pytest.fixture
def board():
    return Board()


def begin(board, number, worker="w"):
    return asyncio.run(board.begin(number, "host", worker))


def doom(board, number):
    return asyncio.run(board.doom(number))


def test_a_task_that_was_called_off_never_begins(board):
    assert begin(board, 0)
    assert asyncio.run(board.call_off([0, 1])) == [1], "0 has begun"
    assert not begin(board, 1)


def test_nothing_begins_in_a_worker_that_may_be_ended(board):
    assert begin(board, 0)
    assert begin(board, 1, "other")
    assert doom(board, 0)
    assert not begin(board, 2)
    assert begin(board, 3, "other")


def test_a_worker_is_not_ended_for_a_task_that_another_has_followed(board):
    assert begin(board, 0)
    assert begin(board, 1)
    assert not doom(board, 0)
    assert begin(board, 2)


def test_a_task_that_is_ended_before_it_begins_never_does(board):
    assert not doom(board, 0)
    assert not begin(board, 0)
    assert begin(board, 1), "its worker is as good as any"


def test_what_was_told_is_taken_once(board):
    for number in range(3):
        begin(board, number)

    assert asyncio.run(board.take(0)) == [(0, "host"), (1, "host"), (2, "host")]
    begin(board, 3)
    assert asyncio.run(board.take(3)) == [(3, "host")]
