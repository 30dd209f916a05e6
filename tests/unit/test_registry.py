"""Finding back-ends: built in, announced by a distribution, missing, unknown."""

import re
from importlib.metadata import EntryPoint

import pytest

from parallel_facade import (
    ConfigurationError,
    config,
    cpu_count,
    get_config,
    pmap,
)
from parallel_facade._configuration import backend_registry as _registry
from parallel_facade._integrations import cli as _cli
from parallel_facade.backends.serial import SerialBackend

GROUP = "parallel_facade.backends"


class LoudBackend(SerialBackend):
    """A third party's back-end."""


NOT_A_CLASS = 3


@pytest.fixture
def plug_ins(monkeypatch):
    found = {
        "loud": EntryPoint("loud", f"{__name__}:LoudBackend", GROUP),
        "absent": EntryPoint("absent", "a_module_that_nobody_has:Backend", GROUP),
        "number": EntryPoint("number", f"{__name__}:NOT_A_CLASS", GROUP),
        "broken": EntryPoint("broken", "needs_a_library:Backend", GROUP),
    }
    monkeypatch.setattr(_registry, "plug_ins", lambda: found)


def test_a_plug_in_is_found_by_its_name(plug_ins):
    assert _registry.load_backend("loud") is LoudBackend
    assert pmap(lambda x: x + 1, [1], backend="loud") == [2]
    assert {"absent", "loud", "number", "process", "dask"} <= set(_registry.known_backends())


def test_unknown_and_not_installed_are_two_messages(plug_ins):
    with pytest.raises(ConfigurationError, match=r"no back-end is called 'lout' \(did you mean"):
        _registry.load_backend("lout")
    with pytest.raises(
        ConfigurationError, match="'absent' is not installed.*(?s:.*)pip install"
    ) as e:
        _registry.load_backend("absent")
    assert isinstance(e.value.__cause__, ModuleNotFoundError)


def test_an_engine_without_the_library_under_it_is_told_of_and_the_others_are_shown(
    plug_ins, tmp_path, monkeypatch
):
    (tmp_path / "needs_a_library.py").write_text(
        "raise RuntimeError('cannot load the library\\nlib1.so: not there')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_cli, "plug_ins", _registry.plug_ins)

    with pytest.raises(
        ConfigurationError,
        match="'broken' is installed, but cannot be imported.*the library\n\nHint",
    ) as caught:
        pmap(abs, [1], backend="broken")
    assert "lib1.so" in str(caught.value.__cause__)
    assert re.search(r"broken +back-end 'broken' is installed, but", _cli.info_report())
    assert "| loud |" in _cli.abilities_report(["broken", "loud"])


def test_what_is_announced_must_be_a_class(plug_ins):
    with pytest.raises(ConfigurationError, match="must be a class, got 3"):
        _registry.load_backend("number")


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("dask", "DASK_SCHEDULER_ADDRESS"),
        ("ray", "RAY_ADDRESS"),
        ("ppft", "PARALLEL_FACADE_PPFT_SERVERS"),
    ],
)
def test_a_cluster_without_an_address_says_which_variable_to_set(name, variable, monkeypatch):
    monkeypatch.delenv(variable, raising=False)

    with pytest.raises(ConfigurationError, match=f"{variable} is not set") as caught:
        pmap(abs, [1], backend=name)
    assert (f"'{name}:local'" in str(caught.value)) == (name != "ppft")

    monkeypatch.setenv(variable, "far:1")
    assert _registry.with_address(name) == f"{name}:far:1"
    assert _registry.with_address(f"{name}:near:2") == f"{name}:near:2"


def test_a_cluster_has_as_many_workers_as_it_has(monkeypatch):
    assert get_config().workers == cpu_count()
    with config(backend="dask:tcp://h:1"):
        assert get_config().workers is None
    with config(backend="dask:local"):
        assert get_config().workers == cpu_count()
    with config(backend="dask:tcp://h:1", workers=3):
        assert get_config().workers == 3


@pytest.mark.parametrize("name", ["thread", "serial"])
def test_threads_and_serial_are_loaded_on_windows(name, monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")

    assert _registry.load_backend(name).capabilities is not None


def test_windows_is_told_what_runs_there(monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")

    with pytest.raises(ConfigurationError) as refused:
        _registry.load_backend("process")

    told = str(refused.value)
    assert told.startswith("back-end 'process' does not run on Windows, only on Linux and macOS")
    for other in ("backend='thread'", "backend='serial'", "ProcessPoolExecutor()"):
        assert other in told
