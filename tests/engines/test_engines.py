"""Clusters that fail, refuse or are not there: each is an error with a way out, in bounded time."""

import copyreg
import gc
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from engines_here import (
    CLUSTERS,
    await_true,
    certificates_of,
    dask_cluster,
    dask_workers,
    free_port,
    listens,
    ppft_servers,
    ray_cluster,
    reason_to_skip,
    running,
)
from programs import survivors

from parallel_facade import (
    BackendLostError,
    ConfigurationError,
    Pool,
    SerializationError,
    TaskTimeoutError,
    WorkerCrashedError,
    _shared,
    apply_async,
    config,
    imap,
    pmap,
)
from parallel_facade._info import abilities_report
from parallel_facade._registry import BUILT_IN

ALLOWED = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
HERE = Path(__file__).parents[1]


def needs(name):
    return pytest.mark.skipif(
        bool(reason_to_skip(name)), reason=reason_to_skip(name) or "it is there"
    )


needs_dask, needs_ray, needs_ppft = needs("dask"), needs("ray"), needs("ppft")


@pytest.fixture
def cluster(monkeypatch):
    """Starts a cluster for one test, which may break it."""
    with ExitStack() as stack:

        def start(made):
            for variable, value in stack.enter_context(made).items():
                monkeypatch.setenv(variable, value)

        yield start
        # First, as Ray ends a program whose cluster ends before it has taken leave.
        _shared._shared.close()


@pytest.fixture
def untidy_ppft():
    """ppft leaves sockets of broken connections to the collector; not to that of another test."""
    yield
    _shared._shared.close()
    gc.collect()


untidy = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def die_once(folder, x):
    if x == 5 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


# ── where the cluster is ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("address", "variable"),
    [
        pytest.param("dask:tcp://127.0.0.1:{}", "DASK_SCHEDULER_ADDRESS", marks=needs_dask),
        pytest.param("ray:127.0.0.1:{}", "RAY_ADDRESS", marks=needs_ray),
        pytest.param("ppft:127.0.0.1:{}", "PARALLEL_FACADE_PPFT_SERVERS", marks=needs_ppft),
    ],
)
def test_an_address_where_nobody_answers_is_named(address, variable, monkeypatch):
    monkeypatch.setenv("PARALLEL_FACADE_PPFT_SECRET", "a secret")
    port = free_port()

    with pytest.raises(BackendLostError, match=f"127.0.0.1:{port}, the address in {variable}"):
        pmap(abs, [1], backend=address.format(port))


@needs_dask
def test_an_address_without_a_port_is_refused():
    with pytest.raises(ConfigurationError, match="'tcp://somewhere'.*expected HOST:PORT"):
        pmap(abs, [1], backend="dask:tcp://somewhere")


def test_ranks_of_mpi_are_there_or_the_line_that_starts_them_is_shown():
    pytest.importorskip("mpi4py")
    if not reason_to_skip("mpi"):
        pytest.skip("it has ranks")

    with pytest.raises(ConfigurationError, match="mpiexec -n 3 python -m mpi4py.futures"):
        pmap(abs, [1], backend="mpi")


# ── who may run code there ────────────────────────────────────────────────────────────────────────


@needs_ppft
@pytest.mark.parametrize(
    ("secret", "reason"), [("", "is not set"), ("default", "is the one that everybody knows")]
)
def test_ppft_is_never_used_without_a_secret_of_its_own(secret, reason, monkeypatch):
    import ppft

    monkeypatch.setenv("PARALLEL_FACADE_PPFT_SECRET", ppft.Server.default_secret if secret else "")

    with pytest.raises(ConfigurationError, match=f"PARALLEL_FACADE_PPFT_SECRET {reason}"):
        pmap(abs, [1], backend="ppft:127.0.0.1:1")


@untidy
@needs_ppft
def test_a_wrong_secret_is_an_error_in_bounded_time(cluster, untidy_ppft, monkeypatch):
    cluster(ppft_servers())
    monkeypatch.setenv("PARALLEL_FACADE_PPFT_SECRET", "a wrong one")

    with pytest.raises(BackendLostError, match="takes part(?s:.*)PARALLEL_FACADE_PPFT_SECRET"):
        pmap(abs, [1], backend="ppft")


# ── workers, hosts and schedulers that die ────────────────────────────────────────────────────────


@needs_dask
def test_dask_runs_the_tasks_of_a_dead_worker_again(cluster, tmp_path):
    # Its workers have nannies, which start them again.
    cluster(dask_cluster())

    assert pmap(lambda x: die_once(tmp_path, x), range(10), backend="dask") == list(range(10))


@needs_dask
def test_a_cluster_without_workers_is_given_up(cluster):
    port = free_port()
    scheduler = ("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    with running(sys.executable, "-m", "dask", *scheduler):
        await_true(lambda: listens(port), "the scheduler")
        with (
            config(start_timeout=0.5),
            pytest.raises(BackendLostError, match="no worker for 0.5 sec(?s:.*)start_timeout="),
        ):
            Pool(f"dask:tcp://127.0.0.1:{port}")


@needs_dask
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


@needs_dask
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


@pytest.fixture
def ray_of_one_worker():
    with Pool(workers=1, backend="ray:local") as pool:
        yield pool


@needs_ray
def test_a_worker_of_ray_that_may_be_ended_for_one_task_takes_up_no_other(
    ray_of_one_worker, gate, tmp_path
):
    import ray

    def pass_in(worker_gate):
        worker_gate.pass_through()
        return os.getpid()

    pool, first = ray_of_one_worker, gate()
    running = pool.apply_async(pass_in, (first,))
    first.wait_for_arrivals(1)
    board = pool._backend._board
    # What the end of task 0 begins with; it ends by itself before Ray has come to end it.
    assert ray.get(board.doom.remote(0))
    first.open()
    pid = running.result()

    def tell(x):
        (tmp_path / f"{x}-{os.getpid()}").touch()
        return os.getpid()

    followers = pool.pmap(tell, [0, 1])

    assert pid not in followers
    assert len(list(tmp_path.iterdir())) == 2, "each ran once"
    assert not ray.get(board.doom.remote(0)), "it does not run, so that nothing is ended for it"


@needs_ray
def test_a_task_whose_workers_die_before_it_begins_is_lost_after_some_tries(ray_of_one_worker):
    import ray

    numbers = list(range(100))
    assert ray.get(ray_of_one_worker._backend._board.call_off.remote(numbers)) == numbers

    with pytest.raises(WorkerCrashedError):
        ray_of_one_worker.pmap(abs, [-1])


@needs_ray
def test_a_death_that_is_known_before_the_note_of_its_beginning_is_a_crash(
    ray_of_one_worker, tmp_path, monkeypatch
):
    backend, held = ray_of_one_worker._backend, []
    take_notes, note_end = backend._take_notes, backend._note_end

    def note_end_first(*arguments):
        note_end(*arguments)
        take_notes(held)

    monkeypatch.setattr(backend, "_take_notes", held.extend)
    monkeypatch.setattr(backend, "_note_end", note_end_first)

    def die(x):
        (tmp_path / str(os.getpid())).touch()
        os._exit(3)

    with pytest.raises(WorkerCrashedError):
        ray_of_one_worker.pmap(die, [1])
    assert len(list(tmp_path.iterdir())) == 1, "it had begun, and does not begin again"


USES_RAY = """
import ray, time
from parallel_facade import BackendLostError, Pool

Pool(workers=1, backend="thread").close()  # it is there before Ray is imported
pool = Pool(workers=1, backend="ray:local")
assert pool.pmap(lambda x: x + 1, [1]) == [2]
"""

ENDS_RAY = """
running = pool.apply_async(time.sleep, (3600,))
ray.shutdown()
for ask in (running.get, lambda: pool.pmap(abs, [1])):
    try:
        ask()
    except BackendLostError as error:
        assert "ray.shutdown()" in str(error), error
    assert not ray.is_initialized()
"""

BEGINS_ANOTHER = """
ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
pool.close(cancel=True)
assert ray.is_initialized()
with Pool(backend="ray:local") as another:
    assert another.pmap(abs, [-1]) == [1]
assert ray.is_initialized()
"""


@needs_ray
@pytest.mark.parametrize("more", ["", ENDS_RAY, ENDS_RAY + BEGINS_ANOTHER])
def test_a_connection_to_ray_that_has_ended_is_not_made_anew(more):
    ended = subprocess.run(
        [sys.executable, "-c", USES_RAY + more], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@needs_ray
def test_ray_fails_the_items_of_a_dead_worker_or_runs_them_again_on_request(cluster, tmp_path):
    cluster(ray_cluster())

    outcomes = pmap(
        lambda x: die_once(tmp_path, x),
        range(10),
        backend="ray",
        chunksize=1,
        return_exceptions=True,
    )
    (tmp_path / "died").unlink()
    retried = pmap(lambda x: die_once(tmp_path, x), range(10), backend="ray", retries=1)

    assert [type(one) for one in outcomes] == [int] * 5 + [WorkerCrashedError] + [int] * 4
    assert retried == list(range(10))


@untidy
@needs_ppft
@pytest.mark.parametrize("path", [None, os.path.join(os.sep, "of", "the", "user")])
def test_ppft_leaves_the_environment_of_the_program_as_it_is(
    cluster, untidy_ppft, monkeypatch, path
):
    cluster(ppft_servers())
    if path is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", path)

    assert pmap(abs, [-1], backend="ppft") == [1]
    assert os.environ.get("PYTHONPATH") == path


@untidy
@needs_ppft
def test_the_deadline_ends_a_task_that_ppft_has_lost(cluster, untidy_ppft, tmp_path):
    cluster(ppft_servers())

    outcomes = pmap(
        lambda x: die_once(tmp_path, x),
        range(10),
        backend="ppft",
        task_timeout=3,
        return_exceptions=True,
    )

    assert isinstance(outcomes[5], TaskTimeoutError)
    assert outcomes[:5] + outcomes[6:] == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_mpi_ends_the_program_when_a_rank_dies():
    pytest.importorskip("mpi4py")
    script = "import os; from parallel_facade import pmap; pmap(os._exit, [3], backend='mpi')"
    try:
        ended = subprocess.run(
            [
                *("mpiexec", "--oversubscribe", "-n", "3"),
                *(sys.executable, "-m", "mpi4py.futures", "-c", script),
            ],
            env={**os.environ, **ALLOWED},
            capture_output=True,
            timeout=100,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("mpiexec is not installed")

    assert ended.returncode != 0


# ── what the two sides do not have in common ──────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore:Mismatched versions found")
@needs_dask
def test_a_worker_of_another_python_is_refused_before_code_travels(cluster):
    others = [
        found
        for found in HERE.parent.glob(".venv-*/bin/python")
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


@needs_dask
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


@needs_dask
@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates need the tool openssl")
def test_the_certificates_of_dasks_settings_are_used_and_without_them_nothing_runs(tmp_path):
    script = (
        "from parallel_facade import pmap; from parallel_facade.backends import _dask\n"
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


# ── objects of the user's ─────────────────────────────────────────────────────────────────────────


@needs_dask
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


@needs_dask
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


@needs_dask
def test_the_default_number_of_workers_is_the_clusters(cluster):
    cluster(dask_cluster(workers=3))

    with Pool("dask") as pool:
        assert pool.workers == 3


@needs_dask
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


def test_an_executor_of_loky_is_a_backend_of_its_own():
    loky = pytest.importorskip("loky")
    executor = loky.ProcessPoolExecutor(max_workers=2)
    try:
        offset = 10
        assert pmap(lambda x: x + offset, range(100), backend=executor) == list(range(10, 110))
        assert next(imap(lambda x: -x, range(5, 1_000), backend=executor)) == -5
    finally:
        executor.shutdown(kill_workers=True)


# ── the pages ─────────────────────────────────────────────────────────────────────────────────────


def test_the_table_of_what_each_can_do_is_that_of_the_code():
    if any(reason_to_skip(name) for name in ("dask", "ray", "ppft")):
        pytest.skip("not all engines are installed")
    pytest.importorskip("mpi4py")
    page = (HERE.parent / "docs" / "reference" / "backends.md").read_text()

    assert abilities_report(BUILT_IN) in page


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script of the page, which prints what it has counted."""
    page = (HERE.parent / "docs" / "how-to" / "outgrow-one-machine.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    path = tmp_path_factory.mktemp("page") / "script.py"
    path.write_text(f"{code}    print(name, counts, total)\n")
    return path


def output_of(script, backend, *before, **variables):
    return subprocess.run(
        [*before, script],
        env={**os.environ, **variables, "PARALLEL_FACADE_BACKEND": backend},
        stdout=subprocess.PIPE,
        timeout=100,
        check=True,
    ).stdout


@pytest.mark.parametrize("name", ["thread", "process", *CLUSTERS])
def test_the_script_of_the_page_prints_the_same_everywhere(name, script):
    expected = output_of(script, "serial", sys.executable)
    assert expected.count(b"\n") >= 5
    before = (sys.executable,)
    variables = {}
    with ExitStack() as stack:
        if name == "mpi":
            pytest.importorskip("mpi4py")
            if not (mpiexec := shutil.which("mpiexec")):
                pytest.skip("mpiexec is not installed")
            before = (mpiexec, "--oversubscribe", "-n", "3", *before, "-m", "mpi4py.futures")
            variables = ALLOWED
        elif name in CLUSTERS:
            if reason := reason_to_skip(name):
                pytest.skip(reason)
            variables = stack.enter_context(CLUSTERS[name]())

        assert output_of(script, name, *before, **variables) == expected
