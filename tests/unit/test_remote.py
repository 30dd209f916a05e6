"""What engines have in common, on one whose every step is the test's: races, limits, the watch."""

import gc
import threading
import weakref

import pytest

from parallel_facade import BackendLostError, PoolClosedError, TaskTimeoutError
from parallel_facade._common.polling_thread import PollingThread
from parallel_facade._worker.remote_entry import CALL_IS_MISSING
from parallel_facade.backends.base import Capabilities, WorkerSettings
from parallel_facade.backends.engines.base import RemoteBackend
from parallel_facade.backends.engines.executor import ExecutorBackend
from parallel_facade.backends.engines.tasks import EngineFuture

PATIENCE = 30
ENDED = b"a report"


class Engine(RemoteBackend):
    """An engine that does what the test says, when it says so."""

    capabilities = Capabilities(
        needs_serialization=True, can_time_tasks=True, can_stop_running_task=True
    )

    def __init__(self, clock, workers=1):
        super().__init__(WorkerSettings(workers, start_timeout=60.0), clock)
        self.workers = workers
        self.sent = []
        self.ended = []
        self.on_send = lambda: None

    def send(self, function_arguments):
        self.on_send()
        self.sent.append(EngineFuture())
        return self.sent[-1]

    def end(self, inner):
        self.ended.append(inner)
        return True

    def count(self):
        return self.workers

    def close_engine(self):
        pass

    def only_future(self):
        (future,) = self._tasks
        return future


@pytest.fixture
def engine(clock):
    engine = Engine(clock)
    yield engine
    engine.close(cancel=True)


def submit(engine, task_timeout=None):
    return engine.submit(engine.put(b"call"), b"chunk", task_timeout)


def test_what_is_on_its_way_to_the_engine_runs(engine):
    said = []
    engine.on_send = lambda: said.append(engine.only_future().cancel())

    future = submit(engine)
    engine.sent[0].end_with(ENDED)

    assert said == [False]
    assert [one.data for one in future.result(0)] == [ENDED]


def test_what_is_sent_once_more_as_its_worker_lacks_the_call_runs(engine):
    said = []
    future = submit(engine)
    engine.on_send = lambda: said.append(engine.only_future().cancel())

    engine.sent[0].end_with(CALL_IS_MISSING)
    engine.sent[1].end_with(ENDED)

    assert said == [False]
    assert [one.data for one in future.result(0)] == [ENDED]


def test_what_waits_is_not_sent_while_running_tasks_are_given_up(engine):
    def end_at_once(inner):
        inner.fail_with(ConnectionError("its worker was killed"))
        return True

    engine.end = end_at_once
    running, waiting = submit(engine), submit(engine)

    engine.close(cancel=True)

    assert (len(engine.sent), waiting.cancelled()) == (1, True)
    assert isinstance(running.exception(0), PoolClosedError)


def test_what_is_stopped_on_its_way_is_ended_when_it_is_there(engine):
    said = []
    engine.on_send = lambda: said.append(engine.only_future().stop())

    future = submit(engine)
    engine._supervisor.join()

    assert (said, future.cancelled(), engine.ended) == ([True], True, engine.sent)


def test_what_cannot_be_ended_when_it_is_there_leaves_the_count_of_tasks_right(engine):
    def cannot(_):
        raise LookupError("the engine is gone")

    engine.on_send = lambda: engine.only_future().stop()
    engine.end = cannot
    submit(engine)
    engine._supervisor.join()
    engine.on_send = lambda: None

    running, waiting = submit(engine), submit(engine)
    assert len(engine.sent) == 1, "the one worker is taken"
    engine.sent[0].end_with(ENDED)
    engine.sent[1].end_with(ENDED)
    engine.sent[2].end_with(ENDED)
    assert running.done() and waiting.done()


def test_what_waits_is_cancelled_and_never_sent(engine):
    submit(engine)
    waiting = submit(engine)

    assert waiting.cancel()
    engine.sent[0].end_with(ENDED)
    assert len(engine.sent) == 1


def test_a_time_that_is_up_just_when_its_task_comes_back_is_no_matter(engine):
    future = submit(engine)
    task = future.task
    engine.sent[0].end_with(ENDED)

    engine._time_out(task, engine.sent[0])

    assert [one.data for one in future.result(0)] == [ENDED]


def test_the_time_of_a_task_begins_anew_when_it_is_sent_once_more(engine, clock):
    future = submit(engine, task_timeout=10.0)
    engine.sent[0].has_begun = True
    task = future.task
    assert engine._seconds_left(task, engine.sent[0]) == 10
    clock.now += 9
    engine.sent[0].end_with(CALL_IS_MISSING)
    engine.sent[1].has_begun = True

    assert engine._seconds_left(task, engine.sent[1]) == 10
    engine.sent[1].end_with(ENDED)


def test_the_time_of_a_task_begins_when_its_worker_has_the_callable(engine, clock):
    future = submit(engine, task_timeout=1.0)
    inner = engine.sent[0]
    inner.is_loading = inner.has_begun = True
    engine._poll()
    clock.now += 59
    engine._poll()
    assert not future.done(), "it is rebuilt, for which there is a minute"

    inner.is_loading = False
    engine._poll()
    clock.now += 1
    engine._poll()

    with pytest.raises(TaskTimeoutError, match="a task took longer than 1 seconds"):
        future.result(0)


def test_a_callable_that_is_never_rebuilt_ends_its_task(engine, clock):
    future = submit(engine, task_timeout=1.0)
    engine.sent[0].is_loading = engine.sent[0].has_begun = True
    engine._poll()
    clock.now += 60

    engine._poll()

    with pytest.raises(TaskTimeoutError, match="rebuilding a callable took longer than 60 seconds"):
        future.result(0)


def test_a_call_does_not_pay_for_the_time_that_another_had_no_workers(clock):
    engine = Engine(clock, workers=0)
    first = submit(engine)
    engine._poll()
    first.cancel()
    assert engine._poll() is None, "there is nothing to look at"
    clock.now += 1000
    second = submit(engine)

    engine._poll()
    assert not second.done()
    clock.now += 61
    engine._poll()
    with pytest.raises(BackendLostError, match="no worker was free for 60 seconds"):
        second.result(0)
    engine.close(cancel=True)


class Stubborn:
    """An executor of which no task can be stopped."""

    def __init__(self, workers):
        self.held = []
        if workers is not None:
            self._max_workers = workers

    def submit(self, *_):
        self.held.append(EngineFuture())
        return self.held[-1]


def stuck_on(executor):
    """Have a task given up that the executor goes on with; return its future there."""
    backend = ExecutorBackend(WorkerSettings(1), executor)
    inner = backend.send(())
    backend._note_never_ending(inner)
    return inner


def test_an_executor_whose_workers_never_come_back_is_known_to_the_next_call():
    executor = Stubborn(workers=1)
    inner = stuck_on(executor)

    assert ExecutorBackend(WorkerSettings(1), executor).capacity() == 0
    inner.end_with(ENDED)
    assert ExecutorBackend(WorkerSettings(1), executor).capacity() == 1


def test_an_executor_that_does_not_say_how_many_workers_it_has_may_have_more():
    executor = Stubborn(workers=None)
    stuck_on(executor)

    assert ExecutorBackend(WorkerSettings(1), executor).capacity() == 1


def test_an_executor_with_a_task_that_never_ends_is_not_kept():
    executor = Stubborn(workers=1)
    stuck_on(executor)

    gone = weakref.ref(executor)
    del executor
    gc.collect()
    assert gone() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watch_looks_again_after_a_look_that_failed():
    looks, looked = [], threading.Event()

    def look():
        looks.append(1)
        if len(looks) == 1:
            raise LookupError("once")
        looked.set()

    watch = PollingThread(look)
    watch.wake()
    watch.join()
    watch.wake()

    assert looked.wait(PATIENCE)
    watch.join()


def test_a_thread_that_cannot_be_started_is_started_by_the_next_wake(monkeypatch):
    polled = threading.Event()
    polling = PollingThread(lambda: polled.set())

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            polling.wake()
    polling.wake()

    assert polled.wait(PATIENCE)
    polling.join()
