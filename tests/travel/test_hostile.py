"""Payloads that do harm: each ends in an error of its own item, and the pool goes on."""

import gc
import os

import hostile
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallel_facade import RemoteError, SerializationError, WorkerCrashedError, config, pmap

EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
GOOD = "good"
CALLER = os.getpid()

# What a __del__ raises, nobody can catch.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

kinds = st.sampled_from(hostile.KINDS)
behaviours = st.sampled_from(hostile.BEHAVIOURS)
in_chunks = given(
    kind=kinds,
    behaviour=behaviours,
    position=st.integers(0, 4),
    chunksize=st.sampled_from([1, 2, 5]),
)
harmless_to_the_caller = st.sampled_from([one for one in hostile.BEHAVIOURS if one != "kill"])


@pytest.fixture(autouse=True)
def warm(start_method):
    with config(backend="process", workers=2, start_method=start_method):
        yield
    gc.collect()  # here, where what a __del__ raises is expected


def is_told(outcome):
    """Return whether *outcome* is an error that says what happened to one item."""
    return isinstance(outcome, SerializationError | WorkerCrashedError)


def check(results, bad):
    """Assert that only the items in *bad* failed, and that the pool goes on."""
    for index, outcome in enumerate(results):
        if index in bad:
            assert outcome == GOOD or is_told(outcome), repr(outcome)
        else:
            assert outcome == GOOD, (index, outcome)
    assert pmap(abs, [-1, -2, -3]) == [1, 2, 3]


def take(item):
    """Ignore what came; the harm is done on the way."""
    del item
    return GOOD


def neighbours(position, make):
    """Return five items, of which one is hostile."""
    return [make() if index == position else index for index in range(5)]


def returned(index, position, kind, args):
    if index != position:
        return index
    made = kind(*args)
    return {made: 1} if kind is hostile.Compares and not made.harm() else made


def raise_at(index, position, args):
    if index == position:
        raise hostile.HostileError(*args)
    return GOOD


@EXAMPLES
@given(kind=kinds, behaviour=harmless_to_the_caller, position=st.integers(0, 4))
def test_arguments_that_harm_while_they_are_sent(kind, behaviour, position):
    items = neighbours(position, lambda: kind(behaviour, False, CALLER))

    check(pmap(take, items, return_exceptions=True, chunksize=1), {position})


@EXAMPLES
@in_chunks
def test_arguments_that_harm_in_the_worker(kind, behaviour, position, chunksize):
    if kind is hostile.Dies and behaviour == "kill":
        chunksize = 1  # an item is dropped when all of its chunk have run

    def make():
        made = kind(behaviour, True, CALLER)
        return {made: 1} if kind is hostile.Compares else made

    items = neighbours(position, make)

    check(pmap(take, items, return_exceptions=True, chunksize=chunksize), {position})


@EXAMPLES
@in_chunks
def test_results_that_harm_in_the_worker(kind, behaviour, position, chunksize):
    if behaviour == "kill":
        chunksize = 1  # the results of those before it in a chunk are lost with the worker
    args = behaviour, True, CALLER

    results = pmap(
        lambda index: returned(index, position, kind, args),
        range(5),
        return_exceptions=True,
        chunksize=chunksize,
    )

    for index, outcome in enumerate(results):
        if index == position:
            assert is_told(outcome) or isinstance(outcome, kind)
        elif index == position + 1 and kind is hostile.Dies and behaviour == "kill":
            # The worker drops the result while it runs this item.
            assert outcome == index or isinstance(outcome, WorkerCrashedError)
        else:
            assert outcome == index
    assert pmap(abs, [-1, -2, -3]) == [1, 2, 3]


@EXAMPLES
@given(kind=kinds, behaviour=harmless_to_the_caller, position=st.integers(0, 4))
def test_results_that_harm_the_caller(kind, behaviour, position):
    args = behaviour, False, CALLER

    results = pmap(
        lambda index: returned(index, position, kind, args), range(5), return_exceptions=True
    )

    bad = results.pop(position)
    assert is_told(bad) or isinstance(bad, kind | dict)
    assert results == [index for index in range(5) if index != position]
    assert pmap(abs, [-1, -2, -3]) == [1, 2, 3]


@EXAMPLES
@given(
    hook=st.sampled_from(hostile.ERROR_HOOKS),
    behaviour=behaviours,
    in_worker=st.booleans(),
    position=st.integers(0, 4),
)
def test_exceptions_that_harm(hook, behaviour, in_worker, position):
    if behaviour == "kill" and not in_worker:
        behaviour = "exit"
    args = hook, behaviour, in_worker, CALLER

    results = pmap(
        lambda index: raise_at(index, position, args),
        range(5),
        return_exceptions=True,
        chunksize=1,
    )

    expected = hostile.HostileError | RemoteError | WorkerCrashedError
    assert isinstance(results.pop(position), expected)
    assert results == [GOOD] * 4
    assert pmap(abs, [-1, -2, -3]) == [1, 2, 3]


@EXAMPLES
@given(kind=kinds, behaviour=behaviours, in_worker=st.booleans(), position=st.integers(0, 4))
def test_callables_that_harm(kind, behaviour, in_worker, position):
    if behaviour == "kill" and not in_worker:
        behaviour = "exit"
    part = kind(behaviour, in_worker, CALLER)
    func = hostile.HostileCallable({part: 1} if in_worker and kind is hostile.Compares else part)

    try:
        results = pmap(func, range(5), return_exceptions=True, chunksize=1)
    except SerializationError:
        assert not in_worker
    else:
        assert all(one == index or is_told(one) for index, one in enumerate(results))
    assert pmap(abs, [-1, -2, -3]) == [1, 2, 3]
