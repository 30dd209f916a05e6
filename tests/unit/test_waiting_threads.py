"""Which threads get help: those that running tasks wait for, and no others."""

import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from parallel_facade import Pool, pmap
from parallel_facade.backends.waiting_threads import (
    LONG_PATIENCE,
    PATIENCE,
    RunningTasks,
    WaitingThreads,
)

SECONDS = 60
LOOKS = 10_000


class Crew:
    """Threads that stand in given functions until the test ends."""

    def __init__(self):
        self._threads = []
        self._ends = []

    def start(self, stand, end, task):
        """Start a thread, in a *task* if that is given, which stands in *stand* until *end*."""
        ready = queue.SimpleQueue()

        def run():
            if task is not None:
                task.begin()
            ready.put(threading.get_ident())
            stand()
            if task is not None:
                task.end()

        self._ends.append(end)
        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()
        return ready.get(timeout=SECONDS)

    def wait(self, task=None):
        """Start a thread that waits for an event."""
        event = threading.Event()
        return self.start(event.wait, event.set, task)

    def wait_in_c(self, task=None):
        """Start a thread that waits where no frame of Python tells it."""
        lock = threading.Lock()
        lock.acquire()
        return self.start(lock.acquire, lock.release, task)

    def end(self):
        for end in self._ends:
            end()
        for thread in self._threads:
            thread.join(SECONDS)


@pytest.fixture
def crew():
    crew = Crew()
    yield crew
    crew.end()


def test_a_thread_that_a_waiting_task_has_started_gets_help_soon(crew):
    running = RunningTasks(1)
    crew.wait(running)
    child = crew.wait()

    assert PATIENCE in (running.patience_with(child) for _ in range(LOOKS))


@pytest.mark.skipif(not os.path.exists("/proc/self/syscall"), reason="needs /proc/PID/syscall")
def test_a_thread_that_a_task_waits_for_in_c_gets_help_soon(crew):
    running = RunningTasks(1)
    crew.wait_in_c(running)
    child = crew.wait()

    # It may look once before the task stands there, and once to see that it does not move on.
    assert PATIENCE in (running.patience_with(child) for _ in range(LOOKS))


def test_a_thread_gets_help_in_the_end_if_its_task_seems_to_compute(crew):
    running, ended = RunningTasks(1), []

    def look_now_and_then():
        while not ended:
            pass

    crew.start(look_now_and_then, lambda: ended.append(None), running)
    child = crew.wait()

    assert LONG_PATIENCE in (running.patience_with(child) for _ in range(LOOKS))


def test_a_thread_that_is_older_than_the_tasks_gets_no_help(crew):
    running = RunningTasks(1)
    older = crew.wait()
    crew.wait(running)

    assert running.patience_with(older) is None


def test_a_thread_with_the_id_of_an_older_one_that_has_ended_gets_help(crew):
    running = RunningTasks(1)
    older = threading.Thread(target=bool)
    older.start()
    running.begin()
    older.join()
    child = crew.wait()
    threads = {one.ident: one for one in threading.enumerate()}
    threads[child]._ident = older.ident  # as the system may have it
    try:
        assert running.patience_with(older.ident) is not None
    finally:
        threads[child]._ident = child
        running.end()


def test_nobody_gets_help_while_a_worker_does_something_else(crew):
    running = RunningTasks(2)
    crew.wait(running)

    assert running.patience_with(crew.wait()) is None


def test_help_is_due_when_a_thread_has_waited_for_so_long(crew):
    times = iter([0.0, PATIENCE / 2, PATIENCE, 2 * PATIENCE, 3 * PATIENCE])
    running = RunningTasks(1)
    crew.wait(running)
    child = crew.wait()
    assert PATIENCE in (running.patience_with(child) for _ in range(LOOKS)), "the task stands there"
    waiting = WaitingThreads(running, clock=lambda: next(times))

    assert [waiting.due(ids) for ids in ([child], [child], [child], [], [child])] == [
        *([], [], [child]),
        *([], []),
    ]


def test_a_helper_begins_as_the_threads_of_its_executor_do():
    local = threading.local()

    def initialize(name):
        local.connection = name

    def inner(x):
        return local.connection, x

    def outer(x):
        results = []
        thread = threading.Thread(
            target=lambda: results.append(pmap(inner, [x, x], backend=executor))
        )
        thread.start()
        thread.join(SECONDS)
        return results[0]

    with ThreadPoolExecutor(1, initializer=initialize, initargs=("db",)) as executor:
        assert pmap(outer, [1, 2], backend=executor) == [[("db", x)] * 2 for x in (1, 2)]


def run_from_threads(count, call):
    """Run *call* in threads that are all there before the first of them calls it."""
    barrier = threading.Barrier(count)
    threads = [
        threading.Thread(target=lambda: (barrier.wait(SECONDS), call())) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)


@pytest.mark.parametrize("kind", ["thread", "executor"])
def test_plain_threads_that_share_a_pool_wait_for_its_workers(kind):
    now, most = [], []

    def note(x):
        now.append(x)
        most.append(len(now))
        threading.Event().wait(PATIENCE)  # as long as it takes until a child would get help
        now.pop()

    with ThreadPoolExecutor(1) as executor:
        backend = "thread" if kind == "thread" else executor
        with Pool(backend=backend, workers=1) as pool:
            run_from_threads(4, lambda: pool.pmap(note, range(3)))

    assert max(most) == 1
    assert len(most) == 12


def test_results_of_an_executor_are_not_kept():
    class Result:
        count = 0

        def __init__(self):
            Result.count += 1

        def __del__(self):
            Result.count -= 1

    with ThreadPoolExecutor(2) as executor, Pool(backend=executor) as pool:
        held = threading.Event()
        busy = pool.submit(held.wait)

        def call_often():
            for _ in range(10):
                pool.submit(Result).result(SECONDS)

        run_from_threads(1, call_often)
        left = Result.count
        held.set()
        busy.result(SECONDS)

    assert left <= 1  # the pool's own thread may still hold the last
