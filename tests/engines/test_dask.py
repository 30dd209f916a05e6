"""Dask: workers, schedulers, modules that are lost; versions, certificates, the user's client."""

import copyreg
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import ExitStack

import psutil
import pytest
from engines_here import (
    PROJECT,
    await_true,
    certificates_of,
    dask_cluster,
    dask_workers,
    die_once,
    free_port,
    listens,
    needs,
    running,
)
from programs import survivors

from parallel_facade import (
    BackendLostError,
    ConfigurationError,
    Pool,
    SerializationError,
    apply_async,
    config,
    pmap,
)


@needs("dask")
def test_dask_runs_the_tasks_of_a_dead_worker_again(cluster, tmp_path):
    # Its workers have nannies, which start them again.
    cluster(dask_cluster())

    assert pmap(lambda x: die_once(tmp_path, x), range(10), backend="dask") == list(range(10))


@needs("dask")
def test_a_cluster_without_workers_is_given_up(cluster):
    port = free_port()
    scheduler = ("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    with running(sys.executable, "-m", "dask", *scheduler):
        await_true(lambda: listens(port), "the scheduler")
        with (
            config(start_timeout=0.5),
            pytest.raises(BackendLostError, match="was free for 0.5 sec(?s:.*)start_timeout="),
        ):
            Pool(f"dask:tcp://127.0.0.1:{port}")


@needs("dask")
def test_a_scheduler_that_dies_ends_the_call_and_the_next_one_finds_another(cluster, gate):
    never_opened = gate()
    with ExitStack() as stack:
        first = stack.enter_context(dask_cluster())["DASK_SCHEDULER_ADDRESS"]
        result = apply_async(never_opened.pass_through, backend=f"dask:{first}")
        never_opened.wait_for_arrivals(1)
    with pytest.raises(BackendLostError):
        result.get(60)

    with dask_cluster() as found:
        second = found["DASK_SCHEDULER_ADDRESS"]
        assert pmap(abs, [-1], backend=f"dask:{second}") == [1]


class Told(Exception):
    def __init__(self, what, where):
        super().__init__(f"{what} at {where}")
        self.where = where


@pytest.fixture
def exceptions_of_tblib():
    """What Dask does in each process in which it is imported."""
    import tblib.pickling_support

    before = dict(copyreg.dispatch_table)
    tblib.pickling_support.install()
    yield
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(before)


@needs("dask")
@pytest.mark.filterwarnings("ignore:start_method='fork' while other threads")
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_exceptions_are_whole_where_dask_is_imported(exceptions_of_tblib, start_method):
    def leave(_):
        raise SystemExit(3)

    def tell(_):
        raise Told("nothing", "hand")

    with Pool("process", workers=1, start_method=start_method) as pool:
        with pytest.raises(SystemExit) as left:
            pool.pmap(leave, [1])
        (told,) = pool.pmap(tell, [1], return_exceptions=True)

    assert left.value.code == 3
    assert (str(told), told.where) == ("nothing at hand", "hand")


@pytest.mark.filterwarnings("ignore:Mismatched versions found")
@needs("dask")
def test_a_worker_of_another_python_is_refused_before_code_travels(cluster):
    others = [
        found
        for found in PROJECT.glob(".venv-*/bin/python")
        if subprocess.run([found, "-c", "import distributed"], capture_output=True).returncode == 0
        and found.parts[-3] != f".venv-{sys.version_info[0]}.{sys.version_info[1]}"
    ]
    if not others:
        pytest.skip("no other Python with dask is here")
    other = others[0].parts[-3].removeprefix(".venv-")
    with dask_cluster(workers=0) as found:
        address = found["DASK_SCHEDULER_ADDRESS"]
        worker = ("worker", address, "--nworkers", "1", "--no-nanny", "--no-dashboard")
        with running(str(others[0]), "-m", "dask", *worker):
            mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
            with pytest.raises(
                ConfigurationError, match=f"python {mine} here and {other} in the worker"
            ):
                pmap(abs, [1], backend=f"dask:{address}")
            assert dask_workers(address) == 1


@needs("dask")
def test_a_module_that_workers_lack_is_named_and_can_be_sent_along(cluster, tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "only_here"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "tools.py").write_text(
        "def twice(x):\n    return times(x, 2)\n\ndef times(x, n):\n    return x * n\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    from only_here.tools import twice

    for file in (package / "tools.py", package / "__init__.py"):
        file.unlink()
    cluster(dask_cluster())

    with pytest.raises(SerializationError, match=r"no module 'only_here(?s:.*)by_value=\['only_h"):
        pmap(twice, [1, 2], backend="dask")
    with config(by_value=["only_here"]):
        assert pmap(twice, [1, 2], backend="dask") == [2, 4]


@needs("dask")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates need the tool openssl")
def test_the_certificates_of_dasks_settings_are_used_and_without_them_nothing_runs(tmp_path):
    script = (
        "from parallel_facade import pmap\n"
        "from parallel_facade.backends.engines import dask as _dask\n"
        "_dask.ANSWER_SECONDS = 5.0\n"
        "print(pmap(lambda x: x + 1, range(3)))"
    )
    command = [sys.executable, "-c", script]
    with dask_cluster(certificates=certificates_of(tmp_path)) as found:
        env = {**os.environ, **found, "PARALLEL_FACADE_BACKEND": "dask"}
        ours = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env)
        env = {name: value for name, value in env.items() if name not in found}
        env["DASK_SCHEDULER_ADDRESS"] = found["DASK_SCHEDULER_ADDRESS"]
        theirs = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env)

    assert ours.stdout == "[1, 2, 3]\n", ours.stderr
    assert theirs.stdout == ""
    assert "BackendLostError: no Dask scheduler answers at tls://" in theirs.stderr
    assert "COMM__TLS__CA_FILE" in theirs.stderr


@needs("dask")
def test_a_client_of_the_users_is_used_and_stays_open(cluster):
    import distributed

    with (
        dask_cluster() as found,
        distributed.Client(found["DASK_SCHEDULER_ADDRESS"], set_as_default=False) as client,
    ):
        with Pool(client) as pool:
            assert pool.workers == 2
            assert pool.pmap(lambda x: x + 1, range(3)) == [1, 2, 3]
        assert client.submit(abs, -1).result() == 1


@needs("dask")
@pytest.mark.parametrize("processes", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_an_array_that_a_task_changes_is_its_own(processes):
    import distributed
    import numpy as np

    def change(array):
        array += 1
        return float(array.sum())

    arrays = [np.zeros(100_000) for _ in range(4)]
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=processes, dashboard_address="127.0.0.1:0"
        ) as local,
        distributed.Client(local, set_as_default=False) as client,
        Pool(client) as pool,
    ):
        assert pool.pmap(change, arrays) == [100_000.0] * 4

    assert not any(array.any() for array in arrays)


@needs("dask")
def test_the_default_number_of_workers_is_the_clusters(cluster):
    cluster(dask_cluster(workers=3))

    with Pool("dask") as pool:
        assert pool.workers == 3


@needs("dask")
def test_a_local_cluster_ends_with_a_caller_that_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""\
            import os, signal
            from parallel_facade import pmap
            pids = pmap(lambda x: os.getpid(), range(8), backend="dask:local", workers=2)
            print(*set(pids), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """)
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)
    workers = [int(pid) for pid in ended.stdout.split()]

    assert ended.returncode == -signal.SIGKILL
    assert workers
    assert survivors(_processes(workers)) == []


def _processes(pids):
    found = []
    for pid in pids:
        try:
            found.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            continue
    return found


@needs("dask")
def test_what_dask_draws_in_a_worker_is_not_missing_in_the_tasks(cluster):
    cluster(dask_cluster())

    def draw(_):
        from dask.sizeof import sizeof

        first = random.random()
        # As Dask does for each message of its own.
        in_another_thread = threading.Thread(target=sizeof, args=([1] * 100,))
        in_another_thread.start()
        in_another_thread.join()
        return first, random.random()

    drawn = pmap(draw, range(4), seed=1, backend="dask")
    assert drawn == pmap(lambda _: (random.random(), random.random()), range(4), seed=1)
