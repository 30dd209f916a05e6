"""Real clusters on this machine, each of separate processes that end with the test run."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

START_SECONDS = 120
"""A cluster that takes longer to start is broken."""

PROJECT = Path(__file__).parents[1]

MPI_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

INTERPRETERS = "executor-interpreter"
"""A back-end for a run of its own: beside subinterpreters, nothing can be forked."""

SCRIPTS = Path(sysconfig.get_path("scripts"))
WORKERS = 2

RAY_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
"""In force from the start, as Ray reads it once in a process."""

os.environ.update(RAY_TOKEN)

started: set[int] = set()
"""Processes of clusters, which are not the library's."""

_never = threading.Event()


def free_port() -> int:
    """Return a port that nobody has; below those that Linux gives to clients."""
    with socket.socket() as sock:
        while True:
            port = 20_000 + secrets.randbelow(10_000)
            with suppress(OSError):
                sock.bind(("127.0.0.1", port))
                return port


def await_true(condition: Callable[[], object], what: str) -> None:
    """Look until *condition* is true; fail if it is not in time."""
    for _ in range(START_SECONDS * 10):
        if condition():
            return
        _never.wait(0.1)
    raise AssertionError(f"{what}: not within {START_SECONDS} seconds")


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether somebody accepts connections at *port*."""
    with suppress(OSError):
        socket.create_connection((host, port), 1).close()
        return True
    return False


@contextmanager
def running(*command: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen]:
    """Run a program beside the block, and end it with all that it has started."""
    log = tempfile.TemporaryFile()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(env or {})},
    )
    started.add(process.pid)
    try:
        yield process
    finally:
        end_family(process.pid)
        started.discard(process.pid)
        process.wait()
        log.close()


def end_family(pid: int) -> None:
    """Kill a process with all its descendants."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        psutil.wait_procs(family)


@contextmanager
def dask_cluster(
    workers: int = WORKERS, certificates: dict[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """Start a scheduler and workers of one thread each; give the environment that finds them.

    Args:
        workers: How many.
        certificates: From `certificates_of`, for a cluster with TLS; `None` for one without.
    """
    port = free_port()
    protocol = "tcp" if certificates is None else "tls"
    address = f"{protocol}://127.0.0.1:{port}"
    dask = (sys.executable, "-m", "dask")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        scheduler = (*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port))
        scheduler = (*scheduler, "--protocol", protocol, "--no-dashboard")
        stack.enter_context(running(*scheduler, env=certificates))
        one = ("--nworkers", "1", "--nthreads", "1", "--local-directory", folder, "--no-dashboard")
        for _ in range(workers):
            stack.enter_context(running(*dask, "worker", address, *one, env=certificates))
        await_true(lambda: dask_workers(address, certificates) == workers, "the Dask cluster")
        yield {"DASK_SCHEDULER_ADDRESS": address, **(certificates or {})}


def dask_workers(address: str, certificates: dict[str, str] | None = None) -> int:
    """Return how many workers the scheduler at *address* has; 0 if it does not answer."""
    import distributed

    security = None
    if certificates is not None:
        cert, key = certificates[TLS + "CLIENT__CERT"], certificates[TLS + "CLIENT__KEY"]
        security = distributed.Security(
            tls_ca_file=certificates[TLS + "CA_FILE"], tls_client_cert=cert, tls_client_key=key
        )
    with suppress(OSError, TimeoutError):
        with distributed.Client(
            address, timeout=5, set_as_default=False, security=security
        ) as client:
            return len(client.nthreads())
    return 0


TLS = "DASK_DISTRIBUTED__COMM__TLS__"


def certificates_of(folder: Path) -> dict[str, str]:
    """Make a certificate in *folder*; return the variables by which Dask's programs find it."""
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    subprocess.run(
        [*new, "-subj", "/CN=a test", "-out", cert, "-keyout", key], check=True, capture_output=True
    )
    roles = ("SCHEDULER", "WORKER", "CLIENT")
    return {
        f"{TLS}CA_FILE": cert,
        **{f"{TLS}{role}__CERT": cert for role in roles},
        **{f"{TLS}{role}__KEY": key for role in roles},
    }


@contextmanager
def ray_cluster(workers: int = WORKERS) -> Iterator[dict[str, str]]:
    """Start a Ray head with a token of its own; give the environment that finds it."""
    port = free_port()
    folder = tempfile.mkdtemp(prefix="ray-")
    head = [str(SCRIPTS / "ray"), "start", "--head", "--node-ip-address", "127.0.0.1"]
    size = ["--num-cpus", str(workers), "--object-store-memory", str(1 << 30)]
    try:
        with running(
            *[*head, "--port", str(port), *size, "--include-dashboard", "false"],
            *["--temp-dir", folder, "--disable-usage-stats", "--block"],
            env=RAY_TOKEN,
        ):
            await_true(lambda: listens(port), "the Ray head")
            yield {"RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ray_hosts(address: str) -> int:
    """Return how many hosts the Ray cluster at *address* has; 0 if it does not answer."""
    ask = "import ray; ray.init({!r}); print(sum(node['Alive'] for node in ray.nodes()))"
    asked = subprocess.run(
        [sys.executable, "-c", ask.format(address)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **RAY_TOKEN},
    )
    return 0 if asked.returncode else int(asked.stdout.split()[-1])


@contextmanager
def ppft_servers(workers: int = WORKERS) -> Iterator[dict[str, str]]:
    """Start servers with one worker each; give the environment that finds them."""
    secret = secrets.token_hex(16)
    ports = [free_port() for _ in range(workers)]
    with ExitStack() as stack:
        for port in ports:
            where = ("-i", "127.0.0.1", "-p", str(port), "-w", "1", "-s", secret)
            stack.enter_context(running(sys.executable, str(SCRIPTS / "ppserver"), *where))
        await_true(lambda: all(map(listens, ports)), "the ppservers")
        yield {
            "PARALLEL_FACADE_PPFT_SERVERS": ",".join(f"127.0.0.1:{port}" for port in ports),
            "PARALLEL_FACADE_PPFT_SECRET": secret,
        }


@contextmanager
def mpi_ranks() -> Iterator[dict[str, str]]:
    """Give an empty environment: the ranks are there if the suite was started with them."""
    yield {}


CLUSTERS = {"dask": dask_cluster, "ray": ray_cluster, "ppft": ppft_servers, "mpi": mpi_ranks}
MODULES = {"dask": "distributed", "ray": "ray", "ppft": "ppft", "mpi": "mpi4py"}


def reason_to_skip(name: str) -> str:
    """Return why no cluster called *name* can be there; empty if one can."""
    import importlib.util

    if importlib.util.find_spec(MODULES[name]) is None:
        return f"{MODULES[name]} is not installed"
    if name == "mpi":
        from mpi4py.futures import _core

        if _core.SharedPool is None:
            return "not started by mpiexec ... -m mpi4py.futures -m pytest"
    return ""


def needs(name: str) -> pytest.MarkDecorator:
    """Return the mark of a test that is skipped where the engine called *name* is not there."""
    reason = reason_to_skip(name)
    return pytest.mark.skipif(bool(reason), reason=reason or "it is there")


def die_once(folder: Path, x: int) -> int:
    """Kill the worker that runs item 5, the first time."""
    if x == 5 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x
