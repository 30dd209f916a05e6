"""Retries, time limits, and workers that die, on every back-end."""

import os

import pytest

from parallel_facade import TaskTimeoutError, WorkerCrashedError, config, pmap


def test_retry_on_runs_a_failed_item_again(backend, tmp_path):
    def succeed_at_third_attempt(x):
        attempts = len(list(tmp_path.iterdir()))
        (tmp_path / str(attempts)).touch()
        if attempts < 2:
            raise OSError("not yet")
        return x

    assert pmap(succeed_at_third_attempt, [7], retries=2, retry_on=OSError) == [7]


def test_retries_end_in_the_last_error(backend):
    def fail(x):
        raise OSError("never")

    with pytest.raises(OSError, match="never"):
        pmap(fail, [1, 2], retries=2, retry_on=(OSError, KeyError))


def test_other_errors_are_not_retried(backend, tmp_path):
    def fail(x):
        (tmp_path / os.urandom(4).hex()).touch()
        raise ValueError

    with pytest.raises(ValueError):
        pmap(fail, [1], retries=3, retry_on=OSError)

    assert len(list(tmp_path.iterdir())) == 1


def test_timeout_ends_the_call(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial cannot interrupt the caller's own thread")
    never_opened = gate()

    with pytest.raises(TaskTimeoutError, match=r"0\.1 seconds; 0 of 1 items"):
        pmap(never_opened.pass_through, [1], timeout=0.1)


@pytest.mark.requires("can_stop_running_task")
def test_task_timeout_ends_only_the_slow_item(backend, gate):
    never_opened = gate()

    results = pmap(
        lambda x: never_opened.pass_through() if x == 1 else x,
        range(4),
        task_timeout=1,
        return_exceptions=True,
    )

    assert results[:1] + results[2:] == [0, 2, 3]
    assert isinstance(results[1], TaskTimeoutError)
    assert pmap(abs, [-1]) == [1]


@pytest.mark.requires("can_time_tasks", "can_stop_running_task")
def test_items_that_begin_together_are_timed_one_by_one(backend, gate):
    never = gate()

    def task(x):
        return never.pass_through() if x == 3 else x

    results = pmap(task, range(10), chunksize=5, task_timeout=1.0, return_exceptions=True)

    assert isinstance(results.pop(3), TaskTimeoutError)
    assert results == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    with config(chunksize=4):
        assert pmap(abs, [-1, -2], task_timeout=60) == [1, 2]


@pytest.mark.requires("can_time_tasks")
def test_an_item_that_takes_too_long_is_an_error_and_others_go_on(backend, gate):
    slow = gate()

    outcomes = pmap(
        lambda x: slow.pass_through(x) if x == 1 else x,
        range(4),
        task_timeout=1,
        return_exceptions=True,
    )
    slow.wait_for_arrivals(1)
    slow.open()

    assert outcomes[:1] + outcomes[2:] == [0, 2, 3]
    assert isinstance(outcomes[1], TaskTimeoutError)
    assert "while running item 1: 1" in outcomes[1].__notes__


@pytest.mark.requires("survives_crashes")
def test_a_worker_that_dies_is_an_error_and_the_pool_goes_on(backend):
    with pytest.raises(WorkerCrashedError) as caught:
        pmap(lambda x: os._exit(3), [1])

    assert "while running item 0: 1" in caught.value.__notes__
    assert pmap(abs, [-1, -2]) == [1, 2]


@pytest.mark.requires("survives_crashes", "tells_what_ran")
def test_a_worker_that_dies_is_told_of_with_its_exit_code(backend):
    with pytest.raises(WorkerCrashedError, match="exit code 3") as caught:
        pmap(lambda x: os._exit(3), [1])

    assert caught.value.exitcode == 3


@pytest.mark.requires("survives_crashes")
def test_a_crash_is_retried_on_request(backend, tmp_path):
    def crash_once(x):
        if not (tmp_path / "crashed").exists():
            (tmp_path / "crashed").touch()
            os._exit(1)
        return x

    assert pmap(crash_once, [5], retries=1) == [5]


@pytest.mark.parametrize("seconds", [float("inf"), 1e300, 1e12, 1e8])
def test_very_long_limits_are_no_limits(backend, seconds):
    task_timeout = seconds if backend.capabilities.can_stop_running_task else None

    assert pmap(abs, [-1, -2], timeout=seconds, task_timeout=task_timeout) == [1, 2]
