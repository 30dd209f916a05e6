"""Items that take too long: theirs is the failure, and they end with all that they started."""

import concurrent.futures
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress

import psutil
import pytest
from programs import survivors

from parallel_facade import Pool, TaskTimeoutError, apply_async
from parallel_facade.backends.base import LOAD_PATIENCE
from parallel_facade.backends.process import manager_thread as _manager
from parallel_facade.backends.process import reaper as _reaper

PATIENCE = 60


class ManualClock:
    """A clock that stands still until it is told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def advance(self, pool, seconds):
        """Let time pass, and have *pool* look at the clock."""
        self.now += seconds
        pool._backend._manager._selector.wake()


@pytest.fixture
def clock(monkeypatch):
    """The clock of all pools that the test makes."""
    made = ManualClock()
    monkeypatch.setattr(_manager.ManagerThread.__init__, "__kwdefaults__", {"clock": made})
    return made


def hang():
    threading.Event().wait()


def is_alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command_of(process):
    with suppress(psutil.NoSuchProcess):  # one of another pool's
        return process.cmdline()
    return []


def start_a_child_and_hang(gate, ignore_sigterm):
    code = "import signal, socket, sys\n"
    if ignore_sigterm:
        code += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code += (
        "waiting = socket.socket(socket.AF_UNIX); waiting.connect(sys.argv[1])\n"
        "waiting.recv(1)\n"
        "signal.pause()\n"
    )
    subprocess.Popen([sys.executable, "-c", code, str(gate.path)])
    hang()


@pytest.mark.parametrize("ignore_sigterm", [False, True])
@pytest.mark.parametrize("how", ["task_timeout", "stop"])
def test_what_the_item_started_ends_with_it(
    clock, start_method, no_warm_pools, gate, ignore_sigterm, how
):
    child_is_there = gate()
    before = set(psutil.Process().children(recursive=True))
    with Pool(workers=1, start_method=start_method) as pool:
        options = {"task_timeout": 3} if how == "task_timeout" else {}
        result = pool.apply_async(
            start_a_child_and_hang, (child_is_there, ignore_sigterm), **options
        )
        child_is_there.wait_for_arrivals(1)
        started = set(psutil.Process().children(recursive=True)) - before
        (child,) = [one for one in started if str(child_is_there.path) in command_of(one)]
        if how == "stop":
            assert result.stop()
        while not result.done() or is_alive(child):
            clock.advance(pool, 0.5)
        if how == "task_timeout":
            with pytest.raises(TaskTimeoutError, match="longer than 3 seconds"):
                result.get(PATIENCE)
        assert pool.pmap(abs, [-1], timeout=PATIENCE) == [1]

    assert survivors(started) == []


def test_an_item_may_clean_up_when_it_is_told_to_end(clock, start_method, gate, tmp_path):
    hears = gate()

    def clean_up_when_told():
        def leave(*_):
            (tmp_path / "cleaned").touch()
            os._exit(0)

        signal.signal(signal.SIGTERM, leave)
        for _ in range(8):  # the system may hand a signal to any of them
            threading.Thread(target=hang, daemon=True).start()
        hears.pass_through()
        hang()

    with Pool(workers=1, start_method=start_method) as pool:
        result = pool.apply_async(clean_up_when_told, task_timeout=5)
        hears.wait_for_arrivals(1)
        hears.open()
        [worker] = pool._backend._manager._scheduler.workers
        while worker.task.deadline.seconds != 5:  # that it has started may be heard a moment later
            clock.advance(pool, 0)
        clock.advance(pool, 6)
        with pytest.raises(TaskTimeoutError):
            result.get(PATIENCE)

    assert (tmp_path / "cleaned").exists()


class LoadsSlowly:
    """Takes longer to be rebuilt than an item may take; the clock has not started then."""

    def __init__(self, gate):
        self.gate = gate

    def __setstate__(self, state):
        self.__dict__ = state
        self.gate.pass_through()

    def __call__(self, x):
        return x


def test_the_clock_of_an_item_starts_when_it_does(clock, start_method, gate):
    loading, running = gate(), gate()

    with Pool(workers=1, start_method=start_method) as pool:
        slow = LoadsSlowly(loading)
        result = pool.apply_async(lambda: running.pass_through(slow(7)), task_timeout=5)
        loading.wait_for_arrivals(1)
        clock.advance(pool, LOAD_PATIENCE - 1)
        loading.open()
        running.wait_for_arrivals(1)
        assert not result.done()

        while not result.done():  # that it has started may be heard a moment later
            clock.advance(pool, 6)

        with pytest.raises(TaskTimeoutError, match="a task took longer than 5 seconds"):
            result.get(PATIENCE)
        clock.now += _reaper.TERM_PATIENCE
    running.open()


def test_an_item_that_began_in_time_is_not_ended_by_a_late_look_at_the_clock(
    clock, start_method, gate, monkeypatch
):
    loading, running, is_late = gate(), gate(), threading.Event()

    with Pool(workers=1, start_method=start_method) as pool:
        slow = LoadsSlowly(loading)
        result = pool.apply_async(lambda: running.pass_through(slow(7)), task_timeout=5)
        loading.wait_for_arrivals(1)
        manager = pool._backend._manager
        listen = manager._selector.select

        def listen_before_it_begins(seconds):
            manager._selector.wake()
            heard = listen(seconds)
            if not is_late.is_set():
                loading.open()
                running.wait_for_arrivals(1)
                clock.now += LOAD_PATIENCE + 1
                is_late.set()
            return heard

        monkeypatch.setattr(manager._selector, "select", listen_before_it_begins)
        clock.advance(pool, 0)
        assert is_late.wait(PATIENCE)
        running.open()

        assert result.get(PATIENCE) == 7


def test_a_worker_that_never_gets_to_its_item_is_replaced(clock, start_method, gate):

    with Pool(workers=1, start_method=start_method) as pool:
        pid = pool.submit(os.getpid).result(PATIENCE)
        os.kill(pid, signal.SIGSTOP)
        result = pool.apply_async(os.getpid, task_timeout=5)
        clock.advance(pool, LOAD_PATIENCE + 1)
        while psutil.pid_exists(pid):
            clock.advance(pool, _reaper.TERM_PATIENCE)

        assert result.get(PATIENCE) not in {pid, os.getpid()}


def test_a_timed_item_that_ends_in_time_is_left_alone(start_method):
    with Pool(workers=2, start_method=start_method) as pool:
        pids = pool.pmap(lambda _: os.getpid(), range(40), task_timeout=PATIENCE)

    assert len(set(pids)) <= 2


def test_stop_from_many_threads_at_once(start_method):
    with Pool(workers=2, start_method=start_method) as pool:
        results = [pool.apply_async(hang) for _ in range(2)]
        while not all(result.running() for result in results):
            pass
        threads = [threading.Thread(target=result.stop) for result in results for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert all(result.cancelled() for result in results)
        assert pool.pmap(abs, range(-4, 0), timeout=PATIENCE) == [4, 3, 2, 1]


def test_a_stopped_item_is_cancelled_also_when_its_end_is_heard_before_the_caller_goes_on(
    start_method, gate, monkeypatch
):
    running = gate()
    with Pool(workers=1, start_method=start_method) as pool:
        result = pool.apply_async(running.pass_through, retries=1)
        running.wait_for_arrivals(1)
        stop = pool._backend._manager._control.stop

        def stop_and_hear_the_end(*arguments):
            was_stopped = stop(*arguments)
            result.wait(PATIENCE)
            return was_stopped

        monkeypatch.setattr(pool._backend._manager._control, "stop", stop_and_hear_the_end)
        assert result.stop()
        assert result.cancelled()


def test_the_default_pool_goes_on_after_a_stop():
    result = apply_async(hang)
    while not result.running():
        pass

    assert result.stop()
    assert apply_async(abs, (-1,)).get(PATIENCE) == 1


@contextmanager
def no_descriptors_left():
    """Have this process open all files that it may."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    held = []
    try:
        with suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in held:
            os.close(fd)


def test_an_item_is_stopped_also_when_the_caller_has_no_descriptors_left(start_method, gate):
    running = gate()
    with Pool(workers=1, start_method=start_method) as pool:
        result = pool.apply_async(running.pass_through)
        running.wait_for_arrivals(1)
        with no_descriptors_left():
            assert result.stop()
            ended = concurrent.futures.wait([result._call._inner], PATIENCE)

        assert ended.not_done == set()
        assert result.cancelled()
