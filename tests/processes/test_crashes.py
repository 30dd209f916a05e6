"""Workers that die, of every cause and at every moment that this version answers for."""

import faulthandler
import os
import signal
from contextlib import suppress

import pytest

from parallel_facade import Pool, RemoteError, SerializationError, WorkerCrashedError


class ExitsWhenLoaded:
    """Ends the worker before its task has begun."""

    def __reduce__(self):
        return os._exit, (5,)


def die_of(signum):
    faulthandler.disable()  # its report would be noise: this death is meant
    os.kill(os.getpid(), signum)


def kill_itself(_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("signum", ["SIGKILL", "SIGSEGV", "SIGTERM", "SIGABRT"])
def test_a_signal_is_named(start_method, signum):
    with Pool(workers=1, start_method=start_method) as pool:
        with pytest.raises(WorkerCrashedError, match=signum) as caught:
            pool.pmap(die_of, [getattr(signal, signum)])

        assert caught.value.exitcode == -getattr(signal, signum)
        assert pool.pmap(abs, [-1]) == [1]


def test_a_kill_hints_at_memory(start_method):
    with (
        Pool(workers=1, start_method=start_method) as pool,
        pytest.raises(WorkerCrashedError, match="memory ran out"),
    ):
        pool.pmap(kill_itself, [1])


def test_a_payload_that_ends_the_worker(start_method):
    with Pool(workers=1, start_method=start_method) as pool:
        with pytest.raises(WorkerCrashedError, match="exit code 5"):
            pool.pmap(repr, [ExitsWhenLoaded()])

        assert pool.pmap(abs, [-1]) == [1]


def test_a_crash_in_a_chunk_names_its_item_and_spares_those_behind(start_method):
    with Pool(workers=1, start_method=start_method) as pool:
        results = pool.pmap(
            lambda x: kill_itself(x) if x == 1 else x,
            range(4),
            chunksize=4,
            return_exceptions=True,
        )

    assert [*results[:1], *results[2:]] == [0, 2, 3]
    assert results[1].__notes__ == ["while running item 1: 1"]
    assert results[1].index == 1


class KillsWhileItIsRebuilt:
    def __setstate__(self, state):
        kill_itself(state)


def test_a_crash_while_arguments_are_rebuilt_is_that_of_one_item(start_method):
    bad = KillsWhileItIsRebuilt()
    bad.part = 1
    with Pool(workers=1, start_method=start_method) as pool:
        results = pool.pmap(lambda x: x, [0, 1, bad, 3], chunksize=4, return_exceptions=True)

    assert [results[index] for index in (0, 1, 3)] == [0, 1, 3]
    assert type(results[2]) is WorkerCrashedError


class KillsWhenItIsDropped:
    def __init__(self):
        self.caller = os.getpid()

    def __call__(self, x):
        return x

    def __del__(self):
        if os.getpid() != self.caller:
            kill_itself(0)


def test_a_worker_that_dies_between_two_tasks_costs_neither(start_method):
    with Pool(workers=1, start_method=start_method) as pool:
        for _ in range(5):
            assert pool.pmap(KillsWhenItIsDropped(), range(3)) == [0, 1, 2]
            assert pool.pmap(abs, [-1, -2]) == [1, 2]


def test_other_items_keep_their_results(start_method):
    with Pool(workers=2, start_method=start_method) as pool:
        results = pool.pmap(
            lambda x: kill_itself(x) if x in {3, 7, 11} else x,
            range(20),
            chunksize=1,
            return_exceptions=True,
        )

    lost = [index for index, result in enumerate(results) if isinstance(result, Exception)]
    assert lost == [3, 7, 11]
    assert [result for result in results if not isinstance(result, Exception)] == [
        x for x in range(20) if x not in lost
    ]


def test_an_idle_worker_that_dies_is_replaced(start_method):
    with Pool(workers=2, start_method=start_method) as pool:
        pids = set(pool.pmap(lambda _: os.getpid(), range(50), chunksize=1))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

        results = pool.pmap(abs, range(-20, 0), retries=3, chunksize=1)

    assert results == list(range(20, 0, -1))


def test_workers_that_die_while_they_start_are_an_error(start_method):
    with (
        Pool(workers=2, start_method=start_method, initializer=os._exit, initargs=(9,)) as pool,
        pytest.raises(WorkerCrashedError, match=r"3 workers in a row died .*exit code 9"),
    ):
        pool.pmap(abs, [1])


def test_a_broken_pool_says_so_again(start_method):
    with Pool(workers=1, start_method=start_method, initializer=os._exit, initargs=(9,)) as pool:
        for _ in range(2):
            with pytest.raises(WorkerCrashedError):
                pool.pmap(abs, [1])
        assert not pool.is_usable


def test_an_initializer_that_cannot_travel_is_refused_before_anything_starts():
    held = (x for x in [1])

    with pytest.raises(SerializationError, match="cannot send the initializer"):
        Pool(initializer=lambda: held)


def test_many_large_payloads_both_ways_at_once(start_method):
    megabyte = bytes(1 << 20)
    with Pool(workers=2, start_method=start_method) as pool:
        results = pool.pmap(lambda data: data + b"!", [megabyte] * 12, chunksize=1)

    assert results == [megabyte + b"!"] * 12


def test_a_process_that_a_task_left_behind_hides_no_death(start_method, gate):
    left_behind = gate()

    def fork_and_die(_):
        if os.fork() == 0:
            left_behind.pass_through()
            os._exit(0)
        os._exit(6)

    with Pool(workers=1, start_method=start_method) as pool:
        with pytest.raises(WorkerCrashedError, match="exit code 6"):
            pool.pmap(fork_and_die, [1], timeout=30)
        assert pool.pmap(abs, [-1], timeout=30) == [1]

    left_behind.wait_for_arrivals(1)
    left_behind.open()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only the channel tells of a death")
def test_a_copy_of_a_channel_that_python_did_not_make_hides_no_death(start_method, tmp_path):
    left_behind = tmp_path / "pid"

    def fork_without_python_and_die(_):
        import ctypes

        libc = ctypes.PyDLL(None)
        if (pid := libc.fork()) == 0:
            libc.pause()
            libc._exit(0)
        left_behind.write_text(str(pid))
        os._exit(6)

    try:
        with Pool(workers=1, start_method=start_method) as pool:
            with pytest.raises(WorkerCrashedError, match="exit code 6"):
                pool.pmap(fork_without_python_and_die, [1], timeout=30)
            assert pool.pmap(abs, [-1], timeout=30) == [1]
    finally:
        os.kill(int(left_behind.read_text()), signal.SIGKILL)


class EndsWhoeverRebuildsIt(Exception):
    def __reduce__(self):
        return raise_unless_in, (os.getpid(),)


def raise_unless_in(pid):
    if os.getpid() != pid:
        raise SystemExit(9)
    return EndsWhoeverRebuildsIt()


def refuse_rudely():
    raise EndsWhoeverRebuildsIt


def test_an_error_that_cannot_be_rebuilt_here_is_told_and_stops_nothing(start_method):
    with Pool(workers=1, start_method=start_method) as pool:
        with pytest.raises(RemoteError, match=r"EndsWhoeverRebuildsIt.*not rebuilt: SystemExit"):
            pool.pmap(lambda _: refuse_rudely(), [1])
        assert pool.pmap(abs, [-1]) == [1]

    with (
        Pool(workers=1, start_method=start_method, initializer=refuse_rudely) as pool,
        pytest.raises(RemoteError, match="EndsWhoeverRebuildsIt"),
    ):
        pool.pmap(abs, [1])


def test_an_exit_code_that_somebody_else_was_told_is_unknown_and_hangs_nothing():
    with Pool(workers=1, start_method="spawn") as pool:
        pid = pool.pmap(lambda _: os.getpid(), [1])[0]
        dying = pool.submit(os._exit, 3)
        with suppress(ChildProcessError):  # the pool was faster
            os.waitpid(pid, 0)

        with pytest.raises(WorkerCrashedError, match="exit code"):
            dying.result(60)
        assert pool.pmap(abs, [-1], timeout=60) == [1]
