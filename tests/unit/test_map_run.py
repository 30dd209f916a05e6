"""The dispatcher of maps, on a back-end that is stepped by hand: each rule without processes."""

import gc
import itertools
import os
import weakref

import pytest
from stepped import SteppedBackend, collect, finish, stepped_map, take

from parallel_facade import TaskTimeoutError, WorkerCrashedError
from parallel_facade._dispatch.chunk_sizer import TARGET_SECONDS
from parallel_facade._dispatch.poll_timer import (
    FIRST_POLL_SECONDS,
    RECOUNT_SECONDS,
)
from parallel_facade._worker.outcomes import Failure
from parallel_facade._worker.run_chunk import THE_ARGUMENTS, THE_CALLABLE
from parallel_facade.backends.base import Stage


def double(x):
    return 2 * x


@pytest.fixture
def stepped():
    return SteppedBackend()


@pytest.fixture
def map_on(monkeypatch, stepped, clock):
    """Makes a map on the stepped back-end."""

    def make(func, items, **how):
        return stepped_map(monkeypatch, stepped, func, items, clock, **how)

    return make


# ── order, window, laziness ──────────────────────────────────────────────────────────────────────


def test_results_come_in_the_order_of_the_items(map_on, stepped):
    run = map_on(double, range(4))
    run.fill()
    last, *earlier = reversed(stepped.unfinished())

    last.end()
    assert take(run) == []
    for task in earlier:
        task.end()
    assert take(run) + finish(run, stepped) == [0, 2, 4, 6]


def test_results_come_as_they_end_where_that_was_asked_for(map_on, stepped):
    run = map_on(double, range(4), plan={"ordered": False})
    run.fill()
    first, *_, last = stepped.unfinished()

    last.end()
    assert take(run) == [6]
    first.end()
    assert take(run) == [0]


def test_two_chunks_for_each_worker_are_in_flight(map_on, stepped):
    run = map_on(double, range(100))
    run.fill()
    assert stepped.items() == [[0], [1], [2], [3]]

    stepped.tasks[1].end()
    collect(run)
    run.fill()
    assert len(stepped.unfinished()) == 4


def test_fewer_workers_get_one_chunk_each(map_on, stepped):
    stepped.workers = 4
    run = map_on(double, range(100), plan={"max_items": 1})
    run._window = run._source.window = 2  # what `window_for` returns for workers=2 of 4
    run.fill()

    assert stepped.items() == [[0], [1]]


def test_a_worker_that_joins_while_the_others_are_busy_gets_its_share(monkeypatch, clock):
    cluster = SteppedBackend(workers=1, is_remote=True, can_take_back=False)
    run = stepped_map(monkeypatch, cluster, double, range(9), clock)
    run.fill()
    assert cluster.items() == [[0], [1]]

    cluster.workers = 2
    assert run._seconds_to_wait() == RECOUNT_SECONDS, "without a report, too"
    run.fill()
    assert cluster.items() == [[0], [1], [2], [3]]


def test_a_lazy_map_pulls_what_there_is_room_for_and_nothing_else(map_on, stepped):
    pulled = []
    run = map_on(double, (pulled.append(x) or x for x in itertools.count()), chunksize=1)
    assert pulled == []

    run.fill()
    assert pulled == [0, 1, 2, 3]
    stepped.tasks[0].end()
    assert take(run) == [0]
    run.fill()
    assert len(pulled) > 4


@pytest.mark.parametrize("buffersize", [1, 2, 7])
def test_a_lazy_map_never_holds_more_than_its_buffer(map_on, stepped, buffersize):
    pulled, taken = [], 0
    items = (pulled.append(x) or x for x in range(50))
    run = map_on(double, items, plan={"buffersize": buffersize})
    while not run.is_over:
        run.fill()
        assert len(pulled) - taken <= buffersize
        for task in stepped.unfinished():
            task.end()
        taken += len(take(run))

    assert taken == len(pulled) == 50


def test_what_the_input_raises_comes_behind_the_results(map_on, stepped):
    def items():
        yield from range(3)
        raise KeyError("the input")

    run = map_on(double, items())

    assert finish(run, stepped) == [0, 2, 4]
    with pytest.raises(KeyError, match="the input"):
        run.finish()


def test_an_item_that_may_change_is_sent_before_the_next_is_pulled(map_on, stepped):
    buffer = []

    def filled_again_and_again():
        for x in range(3):
            buffer[:] = [x]
            yield buffer

    run = map_on(tuple, filled_again_and_again(), plan={"is_passive": False, "buffersize": 10})
    run.fill()

    assert [len(items) for items in stepped.items()] == [1, 1, 1]


# ── chunk sizes ──────────────────────────────────────────────────────────────────────────────────


def test_chunks_grow_until_each_is_worth_a_message(map_on, stepped):
    run = map_on(double, range(100_000))
    sizes = []
    for _ in range(12):
        run.fill()
        task = stepped.unfinished()[0]
        sizes.append(len(task.chunk.items))
        task.end(seconds=1e-5 * len(task.chunk.items))
        collect(run)

    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    assert sizes[-1] <= TARGET_SECONDS / 1e-5


def test_what_is_slow_goes_alone(map_on, stepped):
    run = map_on(double, range(100))
    for _ in range(5):
        run.fill()
        stepped.unfinished()[0].end(seconds=1.0)
        collect(run)
    run.fill()

    assert {len(items) for items in stepped.items()} == {1}


def test_chunksize_is_begun_together(map_on, stepped):
    run = map_on(double, range(10), chunksize=4)
    run.fill()

    assert stepped.items() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_chunksize_bounds_what_one_crash_can_lose_where_more_is_not_known(monkeypatch, clock):
    stepped = SteppedBackend(tells_what_ran=False)
    run = stepped_map(monkeypatch, stepped, double, range(1000), clock, chunksize=2)
    for _ in range(10):
        run.fill()
        stepped.unfinished()[0].end(seconds=1e-9)
        collect(run)
    run.fill()

    assert {len(items) for items in stepped.items()} == {2}


# ── failures and retries ─────────────────────────────────────────────────────────────────────────


def fails_at(*bad):
    def func(x):
        if x in bad:
            raise ValueError(x)
        return x

    return func


def test_the_failure_with_the_lowest_index_ends_the_call(map_on, stepped):
    run = map_on(fails_at(1, 3), range(10))
    run.fill()
    zero, one, _, three = stepped.unfinished()

    three.end()
    collect(run)
    run.fill()
    assert len(stepped.tasks) == 4, "nothing behind a failure is begun"
    one.end()
    zero.end()

    assert take(run)[0] == 0
    assert str(run._policy.first_failure[1].error) == "1"


def test_what_lies_behind_a_failure_is_cancelled_and_what_lies_before_is_not(map_on, stepped):
    run = map_on(fails_at(1), range(10))
    run.fill()
    zero, one, two, three = stepped.unfinished()
    one.end()
    collect(run)

    assert (two.cancelled(), three.cancelled()) == (True, True)
    assert not zero.done()


def test_failures_stay_in_their_places_where_that_was_asked_for(map_on, stepped):
    run = map_on(fails_at(1, 2), range(4), return_exceptions=True)

    outcomes = finish(run, stepped)

    assert outcomes[0::3] == [0, 3]
    assert [str(one) for one in outcomes[1:3]] == ["1", "2"]
    assert outcomes[1].__notes__ == ["while running item 1: 1"]


def test_an_item_is_retried_as_often_as_was_asked_for(map_on, stepped):
    run = map_on(fails_at(0), [0], retries=2, retry_on=ValueError, return_exceptions=True)

    [error] = finish(run, stepped)

    assert len(stepped.tasks) == 3
    assert [note for note in error.__notes__ if "attempt" in note], error.__notes__


def test_other_errors_are_not_retried(map_on, stepped):
    run = map_on(fails_at(0), [0], retries=2, retry_on=KeyError, return_exceptions=True)

    assert len(finish(run, stepped)) == len(stepped.tasks) == 1


def test_a_retry_waits_for_its_delay_and_others_go_on(map_on, stepped, clock):
    left = [1]

    def fails_once(x):
        if x == 0 and left:
            left.pop()
            raise ValueError(x)
        return x

    run = map_on(fails_once, range(3), retries=1, retry_on=ValueError, retry_delay=60.0)
    run.fill()
    for task in stepped.unfinished():
        task.end()
    collect(run)
    run.fill()
    assert stepped.unfinished() == []
    assert run.must_wait

    clock.now += 60
    assert finish(run, stepped) == [0, 1, 2]


# ── deadlines ────────────────────────────────────────────────────────────────────────────────────


def test_a_call_whose_time_is_up_says_how_far_it_came(map_on, stepped, clock):
    run = map_on(double, range(10), timeout=5.0)
    run.fill()
    stepped.tasks[0].end()
    assert take(run) == [0]

    clock.now += 5
    with pytest.raises(TaskTimeoutError, match=r"within 5 seconds; 1 of 10 items"):
        collect(run)
    assert run.is_too_late


# ── fair shares and splits ───────────────────────────────────────────────────────────────────────

FAIR = {"takes_shares": True}


def test_each_worker_gets_its_fair_share_at_once(map_on, stepped):
    run = map_on(double, range(9), plan=FAIR)
    run.check_ahead()
    run.fill()

    assert stepped.items() == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    assert stepped.are_splits_allowed, "there is nothing else for a worker that ends first"
    assert finish(run, stepped) == [2 * x for x in range(9)]


def test_shares_are_made_of_whole_groups(map_on, stepped):
    run = map_on(double, range(10), chunksize=4, plan=FAIR)
    run.fill()

    assert [len(items) for items in stepped.items()] == [8, 2]


@pytest.mark.parametrize(
    "how",
    [
        {"task_timeout": 5.0},
        {"plan": {"takes_shares": False}},
        {"plan": {"max_items": 3, **FAIR}},
        {"plan": {"buffersize": 100, **FAIR}},
    ],
)
def test_there_are_no_shares_where_chunks_must_be_short(map_on, stepped, how):
    how = {"plan": FAIR, **how}
    run = map_on(double, range(100), **how)
    run.fill()

    assert {len(items) for items in stepped.items()} == {1}


def test_a_split_chunk_and_its_rest_end_one_by_one(map_on, stepped, clock):
    run = map_on(double, range(10), plan=FAIR)
    run.fill()
    busy, other = stepped.tasks
    other.end()
    busy.run(2)
    rest = busy.split(3)
    collect(run)
    poll(run, clock)

    assert rest.chunk.items == [3, 4]
    assert take(run) == [0, 2], "nor do results wait for the rest of their chunk"
    rest.end()
    assert take(run) == []
    busy.end()
    assert take(run) == [2 * x for x in range(2, 10)]
    assert run.is_over


def test_the_rest_of_a_split_is_split_again(map_on, stepped):
    run = map_on(double, range(16), plan=FAIR)
    run.fill()
    busy, other = stepped.tasks
    rest = busy.split(4)
    last = rest.split(1)
    for task in (last, other, busy, rest):
        task.end()

    assert finish(run, stepped) == [2 * x for x in range(16)]


def test_a_chunk_that_leaves_a_part_for_its_own_reasons_has_it_run_again(map_on, stepped):
    run = map_on(double, range(8), plan=FAIR)
    run.fill()
    busy, other = stepped.tasks
    rest = busy.split(3)
    busy.run(1)
    busy.report()
    for task in (rest, other):
        task.end()

    assert finish(run, stepped) == [2 * x for x in range(8)]
    assert [task.chunk.items for task in stepped.tasks[2:]] == [[1, 2]]


def test_a_lost_worker_loses_nothing_that_was_split_off(map_on, stepped):
    run = map_on(double, range(8), plan=FAIR, return_exceptions=True)
    run.fill()
    busy, other = stepped.tasks
    rest = busy.split(2)
    busy.run(1)
    busy.lose(Stage.ITEMS, WorkerCrashedError("it died", exitcode=1))
    for task in (rest, other):
        task.end()

    outcomes = finish(run, stepped)
    assert outcomes[2:] == [2 * x for x in range(2, 8)]
    assert (outcomes[0], type(outcomes[1])) == (0, WorkerCrashedError)


@pytest.mark.parametrize("kept", [1, 3])
def test_an_argument_that_cannot_be_rebuilt_is_not_taken_for_another_one_of_its_payload(
    map_on, stepped, kept
):
    run = map_on(double, range(8), plan=FAIR, return_exceptions=True)
    run.fill()
    busy, other = stepped.tasks
    other.end()
    rest = busy.split(kept)
    for task in (busy, rest):  # both rebuild all items of the payload
        task.failures = {0: Failure(TypeError("item 2 cannot be rebuilt"))}
        task.report(unread=THE_ARGUMENTS)
    collect(run)
    run.fill()
    for task in stepped.unfinished():
        assert len(task.chunk.items) == 1
        if task.chunk.items == [2]:
            task.failures = {0: Failure(TypeError("item 2 cannot be rebuilt"))}
            task.report(unread=THE_ARGUMENTS)
        else:
            task.end()

    outcomes = finish(run, stepped)
    assert type(outcomes.pop(2)) is TypeError
    assert outcomes == [2 * x for x in (0, 1, 3, 4, 5, 6, 7)]


def test_a_worker_that_dies_over_the_arguments_of_a_split_chunk_costs_its_item_alone(
    map_on, stepped
):
    run = map_on(double, range(4), plan=FAIR, return_exceptions=True)
    run.fill()
    busy, other = stepped.tasks
    rest = busy.split(1)
    for task in (busy, rest):
        task.lose(Stage.ARGUMENTS, WorkerCrashedError("it died", exitcode=1))
    other.end()

    assert finish(run, stepped) == [0, 2, 4, 6]


def test_what_lies_behind_a_failure_is_left(map_on, stepped):
    run = map_on(fails_at(0), range(8), plan=FAIR)
    run.fill()
    first, second = stepped.tasks
    second.begin()
    rest = second.split(2)
    first.run(1)
    first.report()
    collect(run)

    assert second.was_left
    assert rest.cancelled()


def test_a_closed_map_leaves_what_its_workers_have_not_begun(map_on, stepped):
    run = map_on(double, range(8), plan=FAIR)
    run.fill()
    first, second = stepped.tasks
    for task in (first, second):
        task.begin()
    rest = first.split(2)
    rest.begin()
    run.close(stop_running=False)

    assert [task.was_left for task in (first, second, rest)] == [True] * 3
    assert not stepped.are_splits_allowed
    for task in (first, second):
        task.end()
    assert stepped.dropped == []
    rest.end()
    assert len(stepped.dropped) == 1


def test_splits_wait_while_there_is_more_to_submit(map_on, stepped):
    run = map_on(double, range(1000))
    run.fill()
    assert not stepped.are_splits_allowed

    assert finish(run, stepped) == [2 * x for x in range(1000)]


def test_idle_workers_help_where_the_consumer_waits_for_a_slow_item(map_on, stepped, clock):
    run = map_on(double, iter(range(100)), plan={"buffersize": 2})
    run.fill()
    assert not stepped.are_splits_allowed, "more may be pulled in a moment"

    poll(run, clock)
    assert stepped.are_splits_allowed
    stepped.tasks[0].end()
    assert take(run) == [0]
    run.fill()
    assert not stepped.are_splits_allowed


def test_a_timed_item_is_not_split(map_on, stepped):
    run = map_on(double, range(2), task_timeout=5.0)
    run.fill()

    assert [task.splitting for task in stepped.tasks] == [None, None]
    assert not stepped.are_splits_allowed


def poll(run, clock, seconds=FIRST_POLL_SECONDS):
    collect(run)  # chooses the time of the next poll
    clock.now += seconds
    collect(run)


# ── losses ───────────────────────────────────────────────────────────────────────────────────────


def lost_at(map_on, stepped, stage, ran=0, **how):
    run = map_on(double, range(4), chunksize=4, return_exceptions=True, **how)
    run.fill()
    [task] = stepped.tasks
    task.run(ran)
    task.lose(stage, WorkerCrashedError("it died", exitcode=1))
    return run, take(run)


def test_a_worker_that_dies_running_an_item_loses_that_item_alone(map_on, stepped):
    run, outcomes = lost_at(map_on, stepped, Stage.ITEMS, ran=2)
    outcomes += finish(run, stepped)

    assert outcomes[:2] + outcomes[3:] == [0, 2, 6]
    assert isinstance(outcomes[2], WorkerCrashedError)
    assert outcomes[2].index == 2


def test_a_worker_that_dies_rebuilding_arguments_is_tried_with_one_at_a_time(map_on, stepped):
    run, outcomes = lost_at(map_on, stepped, Stage.ARGUMENTS)
    run.fill()
    assert outcomes == []
    assert stepped.items() == [[0], [1], [2], [3]]

    guilty = stepped.unfinished()[1]
    guilty.lose(Stage.ARGUMENTS, WorkerCrashedError("it died again", exitcode=1))
    outcomes = finish(run, stepped)
    assert outcomes[:1] + outcomes[2:] == [0, 4, 6]
    assert "it died again" in str(outcomes[1])


@pytest.mark.parametrize("stage", [Stage.CALLABLE, Stage.UNKNOWN])
def test_all_items_of_a_chunk_are_lost_where_it_is_not_known_what_ran(map_on, stepped, stage):
    _, outcomes = lost_at(map_on, stepped, stage)

    assert [one.index for one in outcomes] == [0, 1, 2, 3]
    assert "the worker held items 0 to 3" in outcomes[0].__notes__
    assert outcomes[0] is not outcomes[1], "each has its own notes"


def test_what_is_lost_is_tried_again_where_that_was_asked_for(map_on, stepped):
    run, outcomes = lost_at(map_on, stepped, Stage.UNKNOWN, retries=1)

    assert outcomes + finish(run, stepped) == [0, 2, 4, 6]


def test_an_argument_that_cannot_be_rebuilt_fails_alone(map_on, stepped):
    run = map_on(double, range(3), chunksize=3, return_exceptions=True)
    run.fill()
    [task] = stepped.tasks
    task.failures[0] = Failure(TypeError("not to be rebuilt"))
    task.report(unread=THE_ARGUMENTS)
    collect(run)
    run.fill()
    assert stepped.items() == [[0], [1], [2]]

    bad = stepped.unfinished()[2]
    bad.failures[0] = Failure(TypeError("not to be rebuilt"))
    bad.report(unread=THE_ARGUMENTS)
    outcomes = finish(run, stepped)
    assert outcomes[:2] == [0, 2]
    assert isinstance(outcomes[2], TypeError)


def test_a_callable_that_cannot_be_rebuilt_fails_all_items(map_on, stepped):
    run = map_on(double, range(3), chunksize=3, return_exceptions=True)
    run.fill()
    [task] = stepped.tasks
    task.failures[0] = Failure(TypeError("not to be rebuilt"))
    task.report(unread=THE_CALLABLE)

    assert [type(one) for one in take(run)] == [TypeError] * 3


# ── the end ──────────────────────────────────────────────────────────────────────────────────────


def test_closing_cancels_what_waits_and_drops_the_call_when_the_rest_has_ended(map_on, stepped):
    run = map_on(double, range(4))
    run.fill()
    running, *waiting = stepped.tasks
    running.begin()

    run.close(stop_running=False)
    assert all(task.cancelled() for task in waiting)
    assert (running.was_stopped, stepped.dropped) == (False, [])
    running.end()
    assert len(stepped.dropped) == 1
    run.close(stop_running=True)
    assert len(stepped.dropped) == 1, "closing twice is fine"


def test_closing_in_a_hurry_stops_what_runs(map_on, stepped):
    run = map_on(double, range(4))
    run.fill()
    stepped.tasks[0].begin()
    run.close(stop_running=True)

    assert stepped.tasks[0].was_stopped


def test_what_a_closed_map_leaves_waits_for_no_garbage_collector(map_on, stepped):
    run = map_on(double, range(4))
    run.fill()
    stepped.tasks[0].begin()
    run.close(stop_running=False)
    stepped.tasks[0].end()
    left = [weakref.ref(task) for task in stepped.tasks]
    gc.disable()
    try:
        del run
        stepped.tasks.clear()

        assert [reference() for reference in left] == [None] * 4
    finally:
        gc.enable()


def test_what_has_ended_and_was_not_taken_is_known(map_on, stepped):
    run = map_on(double, range(6), chunksize=2)
    run.fill()
    first, second, third = stepped.tasks
    third.end()
    second.run(1)
    first.begin()

    assert run.values_not_taken() == {2: 4, 4: 8, 5: 10}


def test_results_belong_to_the_process_that_made_the_call(map_on, monkeypatch):
    run = map_on(double, range(4))
    monkeypatch.setattr(os, "getpid", lambda: -1)

    with pytest.raises(RuntimeError, match="from which this process was forked"):
        run.fill()


# ── slow inputs ──────────────────────────────────────────────────────────────────────────────────


def test_results_that_are_ready_come_before_a_slow_input_is_pulled_again(map_on, stepped, clock):
    pulled = []

    def slow():
        for x in range(9):
            clock.now += 1
            if stepped.tasks:  # meanwhile the worker has ended
                stepped.tasks[-1].end()
            pulled.append(x)
            yield x

    run = map_on(double, slow(), chunksize=1, plan={"is_passive": False})

    run.fill()
    assert pulled == [0, 1]
    assert take(run) == [0]
    run.fill()
    assert take(run) == [2]
    assert len(pulled) <= 3


def test_a_slow_input_fills_no_chunk(map_on, stepped, clock):
    def burst_and_trickle():
        yield from range(2000)
        while True:
            clock.now += 1
            yield 7

    run = map_on(double, burst_and_trickle(), plan={"is_passive": False})
    for _ in range(40):
        run.fill()
        for task in stepped.unfinished():
            task.end(seconds=1e-6 * len(task.chunk.items))
        take(run)
        if stepped.tasks[-1].chunk.items[-1] == 7:
            break

    slow = [task.chunk.items for task in stepped.tasks if 7 in task.chunk.items[-1:]]
    assert max(items.count(7) for items in slow) <= 17
    run.fill()
    assert stepped.tasks[-1].chunk.items == [7]


def test_a_quick_input_is_pulled_while_results_are_ready(map_on, stepped):
    run = map_on(double, itertools.count(), chunksize=1)
    run.fill()
    stepped.tasks[0].end()

    run.fill()
    assert len(stepped.unfinished()) == 4
    assert take(run) == [0]


def test_a_split_of_a_rest_that_an_interrupt_has_lost(map_on, stepped):
    run = map_on(double, range(8))
    run.fill()
    busy = stepped.tasks[0]
    rest = busy.split(2)
    assert run._queue.take(0).rest is rest, "it is taken, and then Ctrl-C is raised"
    rest.split(1)

    run.close(stop_running=True)

    assert not rest.cancelled(), "the back-end stops it, when the call is dropped"
