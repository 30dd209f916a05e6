"""What cannot travel, or cannot be rebuilt, costs no other item."""

import threading

import pytest

from parallel_facade import SerializationError, pmap


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


def test_locks_that_are_free_travel_and_locks_that_are_held_are_refused(backend):
    lock, condition = threading.RLock(), threading.Condition()

    def use(x):
        with lock, condition:
            return x

    assert pmap(use, [1, 2]) == [1, 2]
    if backend.capabilities.needs_serialization:
        with lock, pytest.raises(SerializationError, match="a lock that is held cannot travel"):
            pmap(use, [1])
