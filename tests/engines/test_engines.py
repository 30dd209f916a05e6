"""Clusters by their addresses, executors, and what all of them do alike."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack

import pytest
from engines_here import CLUSTERS, MPI_AS_ROOT, PROJECT, free_port, needs, reason_to_skip

from parallel_facade import BackendLostError, ConfigurationError, imap, pmap
from parallel_facade._configuration.backend_registry import BUILT_IN
from parallel_facade._integrations.cli import abilities_report


@pytest.mark.parametrize(
    ("address", "variable"),
    [
        pytest.param("dask:tcp://127.0.0.1:{}", "DASK_SCHEDULER_ADDRESS", marks=needs("dask")),
        pytest.param("ray:127.0.0.1:{}", "RAY_ADDRESS", marks=needs("ray")),
        pytest.param("ppft:127.0.0.1:{}", "PARALLEL_FACADE_PPFT_SERVERS", marks=needs("ppft")),
    ],
)
def test_an_address_where_nobody_answers_is_named(address, variable, monkeypatch):
    monkeypatch.setenv("PARALLEL_FACADE_PPFT_SECRET", "a secret")
    port = free_port()

    with pytest.raises(BackendLostError, match=f"127.0.0.1:{port}, the address in {variable}"):
        pmap(abs, [1], backend=address.format(port))


@needs("dask")
def test_an_address_without_a_port_is_refused():
    with pytest.raises(ConfigurationError, match="'tcp://somewhere'.*expected HOST:PORT"):
        pmap(abs, [1], backend="dask:tcp://somewhere")


def test_an_executor_of_loky_is_a_backend_of_its_own():
    loky = pytest.importorskip("loky")
    executor = loky.ProcessPoolExecutor(max_workers=2)
    try:
        offset = 10
        assert pmap(lambda x: x + offset, range(100), backend=executor) == list(range(10, 110))
        assert next(imap(lambda x: -x, range(5, 1_000), backend=executor)) == -5
    finally:
        executor.shutdown(kill_workers=True)


def test_the_table_of_what_each_can_do_is_that_of_the_code():
    if any(reason_to_skip(name) for name in ("dask", "ray", "ppft")):
        pytest.skip("not all engines are installed")
    pytest.importorskip("mpi4py")
    page = (PROJECT / "docs" / "reference" / "backends.md").read_text()

    assert abilities_report(BUILT_IN) in page


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script of the page, which prints what it has counted."""
    page = (PROJECT / "docs" / "how-to" / "outgrow-one-machine.md").read_text()
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
            variables = MPI_AS_ROOT
        elif name in CLUSTERS:
            if reason := reason_to_skip(name):
                pytest.skip(reason)
            variables = stack.enter_context(CLUSTERS[name]())

        assert output_of(script, name, *before, **variables) == expected
