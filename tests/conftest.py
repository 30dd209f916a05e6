"""The back-ends under test, and what every test must leave behind: nothing."""

import gc
import multiprocessing
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import parallel_facade
from parallel_facade import Pool, config
from parallel_facade._api import shared_pools as _shared
from parallel_facade._configuration.settings import default_start_method
from parallel_facade.backends.base import Capabilities

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "travel" / "cases")]  # where workers find helper modules

from engines_here import CLUSTERS, INTERPRETERS, reason_to_skip  # noqa: E402
from gates import Gate  # noqa: E402

ON_WINDOWS = sys.platform == "win32"
START_METHODS = [] if ON_WINDOWS else ["fork", "forkserver", "spawn"]
PROCESSES = [f"process-{method}" for method in START_METHODS]
DEFAULT_PROCESSES = f"process-{default_start_method()}"
EXECUTORS = ["executor-thread", "executor-process"]
HERE_ONLY = ["serial", "thread", *PROCESSES, *EXECUTORS]
WORKERS = 2
WORD = re.compile(r"\w+")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backends",
        default="",
        help=f"what the contract is tested on: of {','.join([*HERE_ONLY, *CLUSTERS])}. "
        "Without: what needs no cluster, and each start method where a test depends on it.",
    )
    parser.addoption(
        "--start-methods",
        default=",".join(START_METHODS),
        help="the ways to start worker processes that tests of processes try",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marks = metafunc.definition.iter_markers("parametrize")
    given = {name for mark in marks for name in WORD.findall(str(mark.args[0]))}
    if "start_method" in metafunc.fixturenames and "start_method" not in given:
        metafunc.parametrize("start_method", _start_methods(metafunc.config), indirect=True)
    if "backend" in metafunc.fixturenames and "backend" not in given:
        metafunc.parametrize("backend", _backends_for(metafunc), indirect=True)


def _start_methods(config: pytest.Config) -> list[str]:
    return [name for name in config.getoption("--start-methods").split(",") if name]


def _backends_for(metafunc: pytest.Metafunc) -> list[str]:
    if given := metafunc.config.getoption("--backends"):
        return str(given).split(",")
    if metafunc.definition.get_closest_marker("each_start_method"):
        chosen = _start_methods(metafunc.config)
        others = {f"process-{method}" for method in START_METHODS if method not in chosen}
        return [name for name in HERE_ONLY if name not in others]
    # How a worker was started is known to nothing but its start: `travel` and `processes` look at
    # what it has from that on each start method.
    return [name for name in HERE_ONLY if name not in PROCESSES or name == DEFAULT_PROCESSES]


class BackendUnderTest(NamedTuple):
    """A back-end, as settings for `config` and `Pool`."""

    name: str
    settings: dict[str, Any]
    capabilities: Capabilities

    def pool(self, **options: Any) -> Pool:
        """Return a new pool on this back-end."""
        return Pool(**{**self.settings, **options})


@pytest.fixture(scope="session")
def executors() -> Iterator[Callable[[str], Any]]:
    """Executors of the standard library, started when first asked for."""
    made: dict[str, Any] = {}
    with ExitStack() as stack:

        def get(name: str) -> Any:
            if name not in made:
                made[name] = stack.enter_context(_new_executor(name))
            return made[name]

        yield get


def _new_executor(name: str) -> Any:
    if name == "executor-thread":
        return ThreadPoolExecutor(WORKERS)
    if name == INTERPRETERS:
        futures: Any = pytest.importorskip("concurrent.futures")
        if not hasattr(futures, "InterpreterPoolExecutor"):
            pytest.skip("this Python has no InterpreterPoolExecutor")
        return futures.InterpreterPoolExecutor(WORKERS)
    method = "spawn" if ON_WINDOWS else "forkserver"
    return ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context(method))


@pytest.fixture(scope="session")
def clusters() -> Iterator[Callable[[str], dict[str, str]]]:
    """The environment in which a cluster is found, which is started when first asked for."""
    made: dict[str, dict[str, str]] = {}
    with ExitStack() as stack:

        def get(name: str) -> dict[str, str]:
            if name not in made:
                made[name] = stack.enter_context(CLUSTERS[name]())
            return made[name]

        yield get
        _shared._shared.close()  # first, while there still is somebody to take leave of


def _settings_of(name: str, executors: Callable[[str], Any]) -> dict[str, Any]:
    kind, _, detail = name.partition("-")
    if kind == "executor":
        return {"backend": executors(name), "workers": WORKERS}
    start_method = {"start_method": detail} if detail else {}
    return {"backend": kind, "workers": WORKERS, **start_method}


_known_capabilities: dict[str, Capabilities] = {}


def _capabilities_of(name: str, settings: dict[str, Any]) -> Capabilities:
    if name not in _known_capabilities:
        with Pool(**settings) as probe:
            _known_capabilities[name] = probe._backend.capabilities
    return _known_capabilities[name]


@pytest.fixture
def backend(
    request: pytest.FixtureRequest,
    executors: Callable[[str], Any],
    clusters: Callable[[str], dict[str, str]],
    monkeypatch: Any,
) -> Iterator[BackendUnderTest]:
    """Each back-end in turn, in force for the calls of the test."""
    monkeypatch.setattr(
        "parallel_facade.backends.process.starting.launcher._warn_of_threads", lambda: None
    )
    if request.param in CLUSTERS:
        if reason := reason_to_skip(request.param):
            pytest.skip(reason)
        for variable, value in clusters(request.param).items():
            monkeypatch.setenv(variable, value)
    settings = _settings_of(request.param, executors)
    capabilities = _capabilities_of(request.param, settings)
    for marker in request.node.iter_markers("requires"):
        for capability in marker.args:
            if not getattr(capabilities, capability):
                pytest.skip(f"{request.param} has no {capability}")
    with config(**settings):
        yield BackendUnderTest(request.param, settings, capabilities)


@pytest.fixture
def start_method(request: pytest.FixtureRequest, monkeypatch: Any) -> str:
    """Each way to start worker processes."""
    monkeypatch.setattr(
        "parallel_facade.backends.process.starting.launcher._warn_of_threads", lambda: None
    )
    return str(request.param)


@pytest.fixture
def no_warm_pools() -> None:
    """No pool of the verbs is open: those keep the helpers that start processes, and one may be
    replacing a worker that another test has ended.
    """
    _shared._shared.close()


@pytest.fixture
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Gate]]:
    """Makes gates, at which tasks wait, in any thread or process, until the test opens them."""
    with ExitStack() as stack:

        def make() -> Gate:
            return stack.enter_context(Gate(tmp_path_factory.mktemp("gate") / "gate"))

        yield make


class Clock:
    """A clock that stands still until a test sets it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's."""
    return Clock()


@pytest.fixture(autouse=True)
def no_settings_left() -> Iterator[None]:
    """A test may call `configure`; the next one starts from the defaults."""
    yield
    parallel_facade.configure(**dict.fromkeys(parallel_facade.Config._fields))


@pytest.fixture(scope="session", autouse=True)
def nothing_left_at_the_end() -> Iterator[None]:
    """When the shared pools are closed, no thread of ours is left."""
    yield
    gc.collect()  # a dropped iterator may be part of a cycle, as with a caught traceback
    in_use = {
        str(lent.pool): lent.users for lent in _shared._shared._borrowed.values() if lent.users
    }
    assert in_use == {}, "each call gives its pool back"
    _shared._shared.close()
    left = [one.name for one in threading.enumerate() if one.name.startswith("parallel_facade")]
    assert [name for name in left if name != "parallel_facade-janitor"] == []
