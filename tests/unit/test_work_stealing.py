"""Running tasks are split for idle workers: by real journals, and workers that the test plays."""

import itertools
import os
import threading
from collections import deque
from types import SimpleNamespace

import pytest

from parallel_facade._serialization.encoder import Payload
from parallel_facade._worker.outcomes import Received, encode_part
from parallel_facade._worker.run_chunk import THE_ARGUMENTS
from parallel_facade.backends.base import Splitting
from parallel_facade.backends.process.journal import Journal, new_memory
from parallel_facade.backends.process.scheduler import TaskScheduler
from parallel_facade.backends.process.tasks import CallHandle, SentCall, Task
from parallel_facade.backends.process.work_stealing import (
    FIRST_LOOK_SECONDS,
    LONGEST_LOOK_SECONDS,
    WorkStealer,
)
from parallel_facade.backends.process.worker_handle import WorkerHandle


class NoChannel:
    """Takes messages."""

    def queue(self, *_, **__):
        pass

    def flush(self):
        pass


class PlayedWorker(WorkerHandle):
    """A worker without a process; the test runs its items."""

    def __init__(self):
        self.journal_there = Journal.new(fd := new_memory())
        self.theirs = Journal(fd)
        os.close(fd)
        self.tasks = deque()
        self.channel = NoChannel()
        self.known_calls = set()
        self.stopped_for = None
        self.is_leaving = self.is_limited = self.is_left = False
        self._caller_side = SimpleNamespace(journal=self.journal_there)

    def begin(self, task):
        self.theirs.begin(task.number)

    def run(self, count):
        """Run items as a worker does; return how many of *count* it was allowed to run."""
        self.theirs.enter()
        ran = 0
        while ran < count and self.theirs.may_begin(self.theirs.read().outcomes):
            self.theirs.write(b"N")
            ran += 1
        return ran

    def close(self):
        self.journal_there.close()
        self.theirs.close()


class Played:
    """A scheduler and a stealer over two workers, of which one is busy."""

    def __init__(self, clock):
        self.clock = clock
        self.waits = lambda: None
        self.scheduler = TaskScheduler(itertools.count(1), clock, lambda: None)
        self.stealer = WorkStealer(self.scheduler, threading.RLock(), clock, lambda _: self.waits())
        self.workers = [PlayedWorker(), PlayedWorker()]
        self.call = CallHandle(SentCall(0, Payload(b"")), None)
        self.stealer.allow(self.call, are_allowed=True)
        self.splits = []

    def submit(self, items=10, begin_size=1):
        task = Task(
            self.call,
            Payload(b""),
            None,
            splitting=Splitting(items, begin_size, lambda *split: self.splits.append(split)),
        )
        self.scheduler.pending.append(task)
        self.scheduler.hand_out()
        return task

    def join(self, worker):
        self.scheduler.workers.add(worker)
        self.scheduler.idle.append(worker)


@pytest.fixture
def played(clock):
    made = Played(clock)
    made.join(made.workers[0])
    yield made
    for worker in made.workers:
        worker.close()


def busy_with(played, ran, items=10, begin_size=1):
    """Return a task of which *ran* items have ended, a second each, and have a worker idle."""
    task = played.submit(items, begin_size)
    busy, idle = played.workers
    busy.begin(task)
    busy.run(ran)
    played.clock.now += max(1, ran)
    played.join(idle)
    return task, busy, idle


def test_an_idle_worker_gets_half_of_what_is_left(played):
    task, busy, idle = busy_with(played, ran=3)
    played.stealer.split_for_idle()

    [(split, rest, kept)] = played.splits
    assert (split, kept, rest.first, rest.splitting.items) == (task, 7, 7, 3)
    assert list(idle.tasks) == [rest]
    assert busy.run(100) == 4, "the worker stops where the rest begins"


def test_the_rest_of_a_rest_is_counted_from_the_payload(played):
    _, busy, idle = busy_with(played, ran=1, items=9)
    played.stealer.split_for_idle()
    rest = played.splits[0][1]
    played.scheduler.take(busy)
    busy.lift_limit()
    played.scheduler.idle.append(busy)
    idle.begin(rest)
    idle.run(1)
    played.clock.now += 1
    played.stealer.split_for_idle()

    last = played.splits[1][1]
    assert (rest.first, rest.splitting.items) == (5, 3)
    assert (last.first, last.splitting.items) == (8, 1)


def test_whole_groups_are_split_where_items_begin_together(played):
    _, _, idle = busy_with(played, ran=1, items=12, begin_size=4)
    played.stealer.split_for_idle()

    assert played.splits[0][2] == 8
    assert idle.tasks[0].splitting.items == 4


def test_a_worker_that_runs_on_while_it_is_told_makes_the_split_be_given_up(played):
    task, busy, idle = busy_with(played, ran=3)
    played.waits = lambda: [busy.theirs.write(b"N") for _ in range(5)]  # it has not looked yet
    played.stealer.split_for_idle()

    assert (played.splits, list(idle.tasks)) == ([], [])
    assert task.splitting.items == 10
    assert busy.run(100) == 0
    report = [Received(encode_part(("", b""), [None] * 8, {}, {}))]
    played.scheduler.take(busy)
    played.stealer.requeue_left(busy, task, report)

    [(_, rest, kept)] = played.splits
    assert (kept, rest.first, rest.splitting.items) == (8, 8, 2)
    assert list(idle.tasks) == [rest], "nobody may be there to run what it has left"


@pytest.mark.parametrize("why", ["nothing is left", "a failure", "unread", "left", "not allowed"])
def test_nothing_is_handed_out_that_was_not_left_because_of_a_limit(played, why):
    task, busy, _ = busy_with(played, ran=3)
    busy.limit(task, 5)
    values, failures, unread = [None] * 5, {}, ""
    if why == "nothing is left":
        values = [None] * 10
    elif why == "a failure":
        failures = {4: ("ValueError", "it stopped here")}
    elif why == "unread":
        unread = THE_ARGUMENTS
    elif why == "left":
        played.stealer.leave_rest(task)
    else:
        played.stealer.allow(task.call, are_allowed=False)
    report = [Received(encode_part(("", b""), values, {}, failures, unread))]
    played.stealer.requeue_left(busy, task, report)

    assert played.splits == []


def test_what_waits_in_a_channel_goes_to_the_idle_worker(played):
    task, busy, idle = busy_with(played, ran=3)
    waiting = Task(task.call, Payload(b""), None, splitting=task.splitting._replace(items=5))
    played.scheduler.pending.append(waiting)
    played.scheduler._worker_for = lambda _: busy
    busy_tasks = busy.tasks
    played.scheduler._give(busy, played.scheduler.pending.popleft())
    del played.scheduler._worker_for
    played.stealer.split_for_idle()

    assert [split[0] for split in played.splits] == [waiting, task]
    assert waiting.is_taken_back
    assert list(busy_tasks) == [task, waiting]
    busy.begin(waiting)
    assert busy.run(5) == 0
    assert idle.tasks


def test_one_item_is_not_split(played):
    _, _, idle = busy_with(played, ran=0, items=1)
    played.stealer.split_for_idle()

    assert (played.splits, list(idle.tasks)) == ([], [])


@pytest.mark.parametrize("why", ["not allowed", "left", "stopped", "little left"])
def test_what_is_not_split(played, why):
    task, busy, idle = busy_with(
        played, ran=0 if why == "one item" else 3, items=1 if why == "one item" else 10
    )
    if why == "not allowed":
        played.stealer.allow(task.call, are_allowed=False)
    elif why == "left":
        played.stealer.leave_rest(task)
    elif why == "stopped":
        busy.stopped_for = RuntimeError()
    elif why == "little left":
        task.sent_at = played.clock.now - 1e-5
    played.stealer.split_for_idle()

    assert (played.splits, list(idle.tasks)) == ([], [])


def test_a_task_whose_callable_is_rebuilt_goes_to_a_worker_that_has_it_only(played):
    task = played.submit()
    busy, idle = played.workers
    played.clock.now += 1
    played.join(idle)
    played.stealer.split_for_idle()
    assert played.splits == []

    idle.known_calls.add(task.call.number)
    played.stealer.split_for_idle()
    assert [kept for _, _, kept in played.splits] == [5]
    busy.begin(task)
    assert busy.run(100) == 5


def test_it_looks_again_later_and_later(played):
    played.submit()
    busy, idle = played.workers
    assert played.stealer.seconds_to_next() is None, "no worker is idle"
    played.join(idle)
    waits = []
    for _ in range(10):
        played.stealer.split_for_idle()
        waits.append(played.stealer.seconds_to_next())
        played.clock.now += waits[-1]

    assert waits[:3] == pytest.approx([FIRST_LOOK_SECONDS * 2**power for power in range(3)])
    assert waits[-1] == pytest.approx(LONGEST_LOOK_SECONDS)


def test_a_worker_that_is_left_begins_nothing_more(played):
    task, busy, _ = busy_with(played, ran=3)
    played.stealer.leave_rest(task)

    assert busy.run(100) == 0
    busy.lift_limit()
    assert busy.run(2) == 2
