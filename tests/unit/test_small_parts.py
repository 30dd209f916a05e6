"""Deadlines, chunks, seeds, methods: the pure parts."""

import random
import select
import socket

import numpy
import pytest

from parallel_facade._common.deadlines import Deadline
from parallel_facade._serialization.rules.methods import (
    bind_method,
    find_definition,
    mangle,
    reduce_method,
)
from parallel_facade._worker.seeds import kept_state, seed_item, stream_seed
from parallel_facade.backends.process.starting.lockless_queue import LocklessQueue


def test_a_deadline_comes_when_its_seconds_have_passed(clock):
    deadline = Deadline(2.5, clock=clock)

    clock.now += 2
    assert (deadline.remaining(), deadline.has_passed()) == (0.5, False)
    clock.now += 2
    assert (deadline.remaining(), deadline.has_passed()) == (0.0, True)


@pytest.mark.parametrize("seconds", [None, float("inf")])
def test_a_deadline_without_limit_never_comes(seconds):
    deadline = Deadline(seconds)

    assert (deadline.remaining(), deadline.has_passed()) == (None, False)


def test_streams_differ_by_seed_and_by_index():
    streams = {stream_seed(seed, index) for seed in range(20) for index in range(20)}

    assert len(streams) == 400


def test_seeding_an_item_covers_random_and_numpy_and_is_undone():
    random.seed(1)
    numpy.random.seed(1)
    expected = random.random(), numpy.random.random()
    random.seed(1)
    numpy.random.seed(1)

    with kept_state():
        seed_item(5, 3)
        first = random.random(), numpy.random.random()
        seed_item(5, 3)
        again = random.random(), numpy.random.random()

    assert first == again
    assert (random.random(), numpy.random.random()) == expected


class _Under:
    def __secret(self):
        return "under"

    def plain(self):
        return "under"


class Child(_Under):
    def plain(self):
        return "child"

    def up(self):
        return super().plain


def test_names_are_mangled_as_the_compiler_does():
    assert mangle("__secret", _Under) in vars(_Under)
    assert mangle("__init__", _Under) == "__init__"
    assert mangle("plain", _Under) == "plain"
    assert mangle("__x", type("___", (), {})) == "__x"


def test_a_method_is_found_where_it_is_defined():
    child = Child()

    assert find_definition(child.plain) == (Child, "plain")
    assert find_definition(child.up()) == (_Under, "plain")
    assert find_definition(child._Under__secret) == (_Under, "_Under__secret")


def test_a_method_that_no_class_holds_is_rebuilt_from_its_parts():
    child = Child()
    loose = (lambda self: "loose").__get__(child)

    build, parts = reduce_method(loose)

    assert build(*parts)() == "loose"
    assert bind_method(child, _Under, "plain")() == "under"


@pytest.mark.skipif(not hasattr(select, "poll"), reason="there is no poll here")
def test_a_queue_ends_with_its_reader():
    parent_watch, far_end = socket.socketpair()
    queue = LocklessQueue()
    queue._reader.receive_until_end_of(parent_watch.fileno())

    queue.put("first")
    assert queue.get() == "first"
    far_end.close()
    with pytest.raises(EOFError):
        queue.get()
    queue.put("last")
    assert queue.get() == "last"

    queue.close()
    parent_watch.close()


def test_requests_to_exit_that_nobody_takes_hold_nobody_up():
    from parallel_facade.backends.process.starting.lockless_queue import LocklessQueue

    queue = LocklessQueue()
    for _ in range(5000):
        queue.put(None)

    assert queue.get() is None
    queue.close()
