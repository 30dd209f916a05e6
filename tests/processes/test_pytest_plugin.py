"""What the library gives to test suites of programs that use it."""

import pytest

pytest_plugins = ["pytester"]

PROGRAM = """
import os
from parallel_facade import Pool, apply_async, imap, pmap

def whereabouts(x):
    return os.getpid()

def pids():
    return set(pmap(whereabouts, range(4), backend="process", workers=2, task_timeout=60))
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """Make a suite of a program; return what runs it."""
    monkeypatch.setenv("PARALLEL_FACADE_START_METHOD", "fork")
    pytester.makepyfile(program=PROGRAM)

    def run(tests, *options):
        pytester.makepyfile(
            test_program=f"import os\nimport pytest\nfrom program import *\n{tests}"
        )
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)

    return run


def test_a_test_can_have_all_calls_in_its_own_thread(suite):
    result = suite(
        """
def test_forced(serial_backend):
    assert pids() == {os.getpid()}
    with Pool(backend="process", start_method="fork", max_tasks_per_worker=1) as pool:
        assert pool.pmap(whereabouts, [1]) == [os.getpid()]

def test_others_are_not():
    assert os.getpid() not in pids()
"""
    )

    result.assert_outcomes(passed=2)


def test_a_run_can_have_all_calls_on_one_back_end(suite):
    tests = "def test_it():\n    assert pids() == {os.getpid()}\n"

    suite(tests, "--parallel-facade-backend", "serial").assert_outcomes(passed=1)
    suite(tests, "--parallel-facade-backend=thread").assert_outcomes(passed=1)
    suite(tests).assert_outcomes(failed=1)


def test_a_back_end_that_is_not_there_is_refused(suite):
    result = suite("def test_it(): pass\n", "--parallel-facade-backend", "serail")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--parallel-facade-backend: *did you mean 'serial'*"])


def test_faults_come_where_they_are_planned(suite):
    result = suite(
        """
from parallel_facade import TaskTimeoutError, WorkerCrashedError

def double(x):
    return 2 * x

def test_a_crash_that_is_not_survived(parallel_faults):
    parallel_faults.crash(item=1)
    with pytest.raises(WorkerCrashedError) as caught:
        pmap(double, [1, 2, 3])
    assert caught.value.index == 1

def test_a_crash_that_is(parallel_faults):
    parallel_faults.crash(item=1).crash(item=2, times=2)
    assert pmap(double, [1, 2, 3], retries=2) == [2, 4, 6]

def test_an_item_that_hangs(parallel_faults):
    parallel_faults.hang(item=0)
    assert list(imap(double, [1, 2], task_timeout=0.2, retries=1)) == [2, 4]

def test_an_error(parallel_faults):
    parallel_faults.fail(item=1, error=OSError("gone"), times=None)
    with pytest.raises(OSError, match="gone") as caught:
        pmap(pow, [1, 2], [3, 4], retries=3, retry_on=OSError)
    assert "while running item 1: (2, 4)" in caught.value.__notes__

def test_single_calls_are_counted(parallel_faults):
    parallel_faults.fail(item=1, error=KeyError("second"))
    first, second = apply_async(double, (1,)), apply_async(double, (2,))
    assert first.get() == 2
    with pytest.raises(KeyError):
        second.get()

def test_in_this_process_the_test_lives(parallel_faults, serial_backend):
    parallel_faults.crash(item=0).hang(item=1)
    crashed, hung = pmap(double, [1, 2], return_exceptions=True)
    assert isinstance(crashed, WorkerCrashedError) and isinstance(hung, TaskTimeoutError)
    assert pmap(double, [1, 2], retries=1) == [2, 4]
    assert apply_async(double, (1,), retries=1).get() == 2

def test_maps_that_tasks_make_are_their_own(parallel_faults, serial_backend):
    parallel_faults.fail(item=1, error=KeyError(1), times=None)
    outcomes = pmap(lambda x: sum(pmap(double, range(3))), range(2), return_exceptions=True)
    assert (outcomes[0], type(outcomes[1])) == (6, KeyError)

def test_bad_faults_are_refused(parallel_faults):
    with pytest.raises(ValueError, match="item=-1 is not valid"):
        parallel_faults.crash(item=-1)
    with pytest.raises(ValueError, match="error='x' is not valid"):
        parallel_faults.fail(item=1, error="x")

def test_nothing_is_left_of_it():
    assert pmap(double, [1, 2]) == [2, 4]
"""
    )

    result.assert_outcomes(passed=9)


def test_a_fault_that_no_call_has_met_fails_the_test(suite):
    result = suite("def test_it(parallel_faults):\n    parallel_faults.crash(item=9)\n")

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*no call has run: [[]9[]]*"])
