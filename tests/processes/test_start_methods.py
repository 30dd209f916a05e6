"""Forks beside threads and interpreters, and breakpoints in workers."""

import os
import socket
import subprocess
import sys

import pytest

from parallel_facade import ConfigurationError, Pool, WorkerCrashedError
from parallel_facade.backends.process.starting import worker_process as _worker_process
from parallel_facade.backends.process.starting.lockless_queue import LocklessQueue

THREADS = """
import threading
stay = threading.Event()
for _ in range(3):
    threading.Thread(target=stay.wait, daemon=True).start()
"""


def run(code, *flags, **environment):
    """Run a program; return what it printed and said."""
    ended = subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
        check=False,
        env={**os.environ, **environment},
    )
    return ended.stdout, ended.stderr


def test_pythons_own_warning_of_forks_does_not_come_from_ours():
    code = f"""{THREADS}
import warnings
warnings.filterwarnings("ignore", "start_method='fork'")
from parallel_facade import Pool
with Pool(workers=2, start_method="fork") as pool:
    print(pool.pmap(abs, [-1, -2, -3]))
print([one[0] for one in warnings.filters])
"""
    alone = "import warnings; warnings.filterwarnings('ignore', 'start'); "
    filters, _ = run(alone + "print([one[0] for one in warnings.filters])", "-W", "error")

    assert run(code, "-W", "error") == (f"[1, 2, 3]\n{filters}", "")


def test_a_fork_leaves_the_filters_of_another_thread_to_it():
    """A thread is inside `catch_warnings` while we fork: its filters end with its block."""
    code = """
import threading, warnings
from parallel_facade.backends.process.starting import fork_server as _fork_server
entered, leave, left = threading.Event(), threading.Event(), threading.Event()

def other():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        entered.set()
        leave.wait()
    left.set()

before = list(warnings.filters)
threading.Thread(target=other).start()
entered.wait()
with _fork_server._without_warning_of_threads():
    leave.set()
    left.wait()
print(warnings.filters == before)
"""
    assert run(code) == ("True\n", "")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="this Python has no InterpreterPoolExecutor")
def test_fork_beside_subinterpreters_is_refused_in_words():
    code = """
from concurrent.futures import InterpreterPoolExecutor
from parallel_facade import ConfigurationError, Pool, pmap
with InterpreterPoolExecutor(1) as executor:
    print(pmap(lambda x: x + 1, [1, 2], backend=executor))
    try:
        Pool(start_method="fork")
    except ConfigurationError as exc:
        print(exc)
with Pool(workers=1, start_method="fork") as pool:
    print(pool.pmap(abs, [-1]))
"""
    printed, said = run(code, "-W", "ignore")

    assert printed.splitlines() == [
        "[2, 3]",
        "start_method='fork' while 1 subinterpreter(s) are alive: the child would crash",
        "",
        "Hint: use start_method='forkserver', or shut down the InterpreterPoolExecutor first.",
        "[1]",
    ]
    assert said == ""


BREAKPOINTS = ["breakpoint()", "pdb.set_trace()", "[breakpoint() for _ in range(2)]"]


@pytest.mark.parametrize("stop", BREAKPOINTS)
def test_a_breakpoint_in_a_worker_is_an_error_in_words(stop, start_method):
    code = f"""
import pdb, sys
from parallel_facade import ConfigurationError, pmap

def task(x):
    {stop}
    return x

try:
    pmap(task, [1, 2], workers=1)
except ConfigurationError as exc:
    print(str(exc).splitlines()[0], pmap(abs, [-1]), file=sys.stderr)
"""
    printed, said = run(code, "-W", "ignore", PARALLEL_FACADE_START_METHOD=start_method)

    # The debugger prints where, before it finds that its input has ended.
    assert "(Pdb)" in printed
    assert said == ("a task reached a breakpoint in a worker process, which has no keyboard [1]\n")


def test_workers_that_are_there_take_no_start_method():
    with Pool(workers=1) as pool, pytest.raises(ConfigurationError, match="start_method='spawn'"):
        Pool(backend=pool, start_method="spawn")


def test_a_pool_that_is_closed_in_a_hurry_forgets_where_its_tasks_were(gate, start_method):
    held = gate()
    with Pool(workers=1, start_method=start_method) as pool:
        result = pool.apply_async(held.pass_through)
        held.wait_for_arrivals(1)
        task = result._call._inner
        manager = pool._backend._manager
        pool.close(cancel=True)

        assert task.worker is None
        assert task.progress() == []
        assert not manager._control.stop(task, RuntimeError())


def started(pool):
    """Return how many workers of *pool* have been started."""
    return len(pool._backend._manager._scheduler.workers)


@pytest.mark.parametrize(("workers", "tasks", "expected"), [(300, 3, 3), (5, 7, 5), (300, 1, 2)])
def test_more_than_two_workers_start_when_there_are_tasks_for_them(
    start_method, gate, workers, tasks, expected
):
    held = gate()
    with Pool(workers=workers, start_method=start_method) as pool:
        results = [pool.apply_async(held.pass_through, (i,)) for i in range(tasks)]
        held.wait_for_arrivals(min(tasks, workers))
        assert started(pool) == expected

        held.open()
        held.wait_for_arrivals(max(0, tasks - workers))
        held.open()
        assert [result.get() for result in results] == list(range(tasks))
        assert started(pool) == expected


def test_a_worker_that_was_started_later_is_replaced(start_method, gate):
    with Pool(workers=3, start_method=start_method) as pool:
        for _ in range(2):
            held = gate()
            results = [pool.apply_async(held.pass_through) for _ in range(3)]
            held.wait_for_arrivals(3)
            for worker in list(pool._backend._manager._scheduler.workers):
                worker.process.kill()
            for result in results:
                with pytest.raises(WorkerCrashedError):
                    result.get()


def test_a_pool_that_cannot_grow_tells_what_the_system_said(start_method, gate, monkeypatch):
    held = gate()

    def refuse():
        raise OSError("no more sockets")

    with Pool(workers=3, start_method=start_method) as pool:
        results = [pool.apply_async(held.pass_through, (i,)) for i in range(2)]
        held.wait_for_arrivals(2)
        monkeypatch.setattr(_worker_process, "private_pair", refuse)
        with pytest.raises(WorkerCrashedError, match="OSError: no more sockets"):
            pool.apply_async(abs, (-1,)).get()
        held.open()

        assert [result.get() for result in results] == [0, 1]


def test_a_worker_exits_although_nobody_reads_its_last_result():
    """In a pool of hundreds, the last results fill the queue after its reader has ended."""
    queue = LocklessQueue()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        queue.use_in_worker(ours.fileno())
        for _ in range(5_000):
            queue.put((0, 0, (True, None)))

        assert not queue.empty()
    queue.close()
