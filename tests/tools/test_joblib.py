"""What runs on joblib runs here, with joblib's own contract for back-ends."""

import gc
import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

joblib = pytest.importorskip("joblib")

from joblib import Parallel, delayed, parallel_config  # noqa: E402
from joblib.parallel import SequentialBackend  # noqa: E402

import parallel_facade.joblib  # noqa: E402
from parallel_facade import (  # noqa: E402
    ConfigurationError,
    Pool,
    SerializationError,
    TaskTimeoutError,
    WorkerCrashedError,
    config,
    pmap,
)
from parallel_facade._integrations.joblib_backend import ParallelFacadeBackend  # noqa: E402
from parallel_facade.joblib import register  # noqa: E402


@pytest.fixture(autouse=True)
def chosen():
    """Have joblib use this library, with two workers."""
    register()
    with parallel_config(backend="parallel_facade", n_jobs=2):
        yield


def test_results_are_in_order_and_any_function_travels():
    offset = 10

    results = Parallel()(delayed(lambda x, y=0: x + y + offset)(x, y=x) for x in range(100))

    assert results == [2 * x + 10 for x in range(100)]


def test_tasks_run_in_workers_of_ours():
    pids = set(Parallel()(delayed(os.getpid)() for _ in range(8)))

    with Pool(backend="process", workers=2):
        assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2


@pytest.mark.parametrize("name", ["thread", "process", "serial"])
def test_the_settings_choose_where_tasks_run(name):
    with config(backend=name):
        results = Parallel()(delayed(lambda x: (x, os.getpid()))(x) for x in range(10))

    assert [x for x, _ in results] == list(range(10))
    assert ({pid for _, pid in results} == {os.getpid()}) == (name != "process")


def test_shared_memory_is_there_where_tasks_run_in_this_process():
    seen = []
    with config(backend="thread"):
        Parallel(require="sharedmem")(delayed(seen.append)(x) for x in range(10))

    assert sorted(seen) == list(range(10))
    assert not ParallelFacadeBackend().supports_sharedmem


def test_the_users_error_is_raised_and_the_next_call_works():
    with pytest.raises(ZeroDivisionError):
        Parallel()(delayed(lambda x: 1 // x)(x) for x in [1, 0, 2])

    assert Parallel()(delayed(abs)(x) for x in [-1, -2]) == [1, 2]


def test_a_worker_that_dies_is_an_error_and_the_next_call_works():
    with pytest.raises(WorkerCrashedError):
        Parallel()(delayed(os._exit)(3) for _ in range(2))

    assert Parallel()(delayed(abs)(x) for x in [-1, -2]) == [1, 2]


def test_settings_of_ours_are_taken(tmp_path):
    def crash_once(x):
        if not (tmp_path / str(x)).exists():
            (tmp_path / str(x)).touch()
            os._exit(3)
        return x

    with parallel_config(backend="parallel_facade", n_jobs=2, retries=1):
        assert Parallel(batch_size=1)(delayed(crash_once)(x) for x in [1, 2]) == [1, 2]
    with (
        parallel_config(backend="parallel_facade", n_jobs=2, task_timeout=0.1),
        pytest.raises(TaskTimeoutError),
    ):
        Parallel(batch_size=1)(delayed(threading.Event().wait)() for _ in range(2))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workers": 2}, "n_jobs sets the number"),
        ({"seed": 2}, "its tasks have no index"),
        ({"retrys": 2}, "did you mean 'retries'"),
        ({"retries": -1}, "retries=-1 in joblib is not valid"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        parallel_config(backend="parallel_facade", **settings)


def test_a_task_that_cannot_be_sent_is_an_error_also_when_others_run():
    items = [(x for x in ()) if x == 50 else x for x in range(100)]

    with pytest.raises(SerializationError, match="generator"):
        Parallel(batch_size=1)(delayed(id)(item) for item in items)

    assert Parallel()(delayed(abs)(x) for x in [-1, -2]) == [1, 2]


def test_failures_that_joblib_was_told_of_are_not_logged(caplog):
    with pytest.raises(ZeroDivisionError):
        Parallel(batch_size=1, pre_dispatch="all")(delayed(lambda x: 1 // x)(0) for _ in range(8))

    Parallel()(delayed(abs)(x) for x in [-1, -2])
    gc.collect()
    assert caplog.records == []


def test_a_seed_in_force_is_refused():
    with config(seed=1), pytest.raises(ConfigurationError, match="its tasks have no index"):
        Parallel()(delayed(abs)(x) for x in [-1, -2])


def test_batches_grow_where_tasks_are_short():
    parallel = Parallel()

    assert parallel(delayed(abs)(-x) for x in range(2_000)) == list(range(2_000))
    assert parallel.n_dispatched_batches < 2_000


def test_generators_give_results_as_they_are_asked_for():
    results = Parallel(return_as="generator")(delayed(abs)(-x) for x in range(10))
    unordered = Parallel(return_as="generator_unordered")(delayed(abs)(-x) for x in range(10))

    assert next(results) == 0
    assert list(results) == list(range(1, 10))
    assert sorted(unordered) == list(range(10))


def test_the_end_of_a_call_leaves_what_another_waits_for(gate):
    held = gate()
    waiting = Parallel(return_as="generator", batch_size=1, pre_dispatch="all")(
        delayed(held.pass_through if x < 2 else abs)(x) for x in range(6)
    )
    held.wait_for_arrivals(2)

    joblib.parallel.get_active_backend()[0].terminate()

    held.open()
    assert list(waiting) == list(range(6))


def test_a_timeout_of_joblib_is_kept():
    with pytest.raises((TimeoutError, joblib.parallel.TimeoutError)):
        Parallel(timeout=0.2, batch_size=1)(delayed(threading.Event().wait)() for _ in range(2))

    assert Parallel()(delayed(abs)(x) for x in [-1, -2]) == [1, 2]


def test_calls_may_nest():
    def rows(n):
        return Parallel(n_jobs=2)(delayed(abs)(-x) for x in range(n))

    def own_rows(n):
        return Parallel(n_jobs=2, backend="parallel_facade")(delayed(abs)(-x) for x in range(n))

    assert Parallel()(delayed(rows)(n) for n in [2, 3]) == [[0, 1], [0, 1, 2]]
    assert Parallel()(delayed(own_rows)(n) for n in [2, 3]) == [[0, 1], [0, 1, 2]]


def test_no_more_run_at_a_time_than_jobs_were_asked_for():
    now, most, lock = [0], [0], threading.Lock()

    def count(x):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        sum(range(100_000))
        with lock:
            now[0] -= 1
        return x

    with config(backend="thread"):
        pmap(abs, range(8), workers=8)  # then there are eight threads
        results = Parallel(n_jobs=2, batch_size=1, pre_dispatch="all")(
            delayed(count)(x) for x in range(40)
        )

    assert results == list(range(40))
    assert most[0] <= 2


def test_the_number_of_jobs_is_counted_as_joblib_does(monkeypatch):
    monkeypatch.setenv("PARALLEL_FACADE_WORKERS", "4")
    backend = ParallelFacadeBackend()

    counts = {n: backend.effective_n_jobs(n) for n in (None, 1, 3, -1, -2, -9)}

    assert counts == {None: 1, 1: 1, 3: 3, -1: 4, -2: 3, -9: 1}
    with pytest.raises(ValueError, match="has no meaning"):
        backend.effective_n_jobs(0)


def test_one_job_is_run_as_joblib_does():
    with Parallel(n_jobs=1) as parallel:
        assert isinstance(parallel._backend, SequentialBackend)
        assert parallel(delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2


def test_arrays_arrive_as_they_are_and_may_be_written_to():
    array = np.arange(1_000_000.0)

    def change(part):
        part[0] = 7
        return part.sum()

    assert Parallel()(delayed(change)(array) for _ in range(2)) == [array.sum() + 7] * 2
    assert array[0] == 0


def test_threads_within_are_limited():
    pytest.importorskip("threadpoolctl")

    def limit():
        return os.environ.get("OMP_NUM_THREADS")

    with parallel_config(backend="parallel_facade", n_jobs=2, inner_max_num_threads=3):
        assert set(Parallel()(delayed(limit)() for _ in range(2))) == {"3"}


def test_it_can_be_the_default(monkeypatch):
    monkeypatch.setattr(joblib.parallel, "DEFAULT_BACKEND", joblib.parallel.DEFAULT_BACKEND)
    register(make_default=True)

    assert joblib.parallel.DEFAULT_BACKEND == parallel_facade.joblib.NAME


def test_joblib_tests_it_as_its_own(tmp_path):
    """Run joblib's tests of whatever back-end is registered; without one in loky's workers."""
    (tmp_path / "with_ours.py").write_text(
        "from parallel_facade.joblib import register\nregister()\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "with_ours"]
        + ["--pyargs", "joblib.test.test_parallel", "-k", "parallel_facade"]
        + ["--deselect", "::test_nested_loop[loky-parallel_facade]"]
        + ["--deselect", "::test_nested_loop[back_compat_backend-parallel_facade]"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout[-5_000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) >= 70
