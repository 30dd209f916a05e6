"""Bad input is refused with the value, the place and the valid ones, before any worker starts."""

import pytest

from parallel_facade import ConfigurationError, Pool, apply_async, config, configure, imap, pmap

BAD_SETTINGS = [
    (
        "backend",
        "proces",
        "did you mean 'process'.*known: dask, mpi, ppft, process, ray, serial,.* thread",
    ),
    ("backend", "dask:", "has no address after its colon"),
    ("backend", "thread:4", "takes no address, got '4'"),
    ("backend", 3, r"a number is not a back-end; did you mean workers=3\?"),
    ("backend", 1.5, "expected a back-end's name"),
    ("backend", Pool, "expected a back-end's name"),
    ("workers", 0, "at least 1"),
    ("workers", -1, "at least 1"),
    ("workers", 1.5, "at least 1"),
    ("workers", True, "at least 1"),
    ("workers", "2", "at least 1"),
    ("chunksize", 0, "at least 1"),
    ("chunksize", -3, "at least 1"),
    ("timeout", 0, "seconds above 0"),
    ("timeout", "soon", "seconds above 0"),
    ("timeout", float("nan"), "seconds above 0"),
    ("task_timeout", -1, "seconds above 0"),
    ("retries", -1, "at least 0"),
    ("retries", 1.0, "at least 0"),
    ("progress", 3, "a description, or a callable"),
    ("seed", "x", "a whole number"),
    ("serializer", "json", "one of dill, pickle"),
]


@pytest.fixture(autouse=True)
def no_worker_starts(monkeypatch):
    """Fail if a worker is started: everything here must be refused before."""

    def start(*args, **kwds):
        raise AssertionError("a worker was started")

    for name in ("process.backend.ProcessBackend", "thread.ThreadBackend", "serial.SerialBackend"):
        monkeypatch.setattr(f"parallel_facade.backends.{name}.submit", start)


@pytest.mark.parametrize("name", ["process", "thread", "serial"])
@pytest.mark.parametrize(("setting", "value", "message"), BAD_SETTINGS)
def test_bad_settings(setting, value, message, name):
    settings = {"backend": name, setting: value}

    with pytest.raises(ConfigurationError, match=f"(?s){setting}=.*{message}") as caught:
        pmap(abs, [1], **settings)
    with pytest.raises(ConfigurationError):
        imap(abs, [1], **settings)
    with pytest.raises(ConfigurationError):
        configure(**settings)
    with pytest.raises(ConfigurationError), config(**settings):
        pass

    assert repr(value) in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["process", "thread", "serial"])
@pytest.mark.parametrize("verb", [pmap, imap, apply_async])
def test_what_cannot_be_called(verb, name):
    with pytest.raises(TypeError, match="func must be callable, got 3 of type int"):
        verb(3, [1], backend=name)


@pytest.mark.parametrize("name", ["process", "thread", "serial"])
def test_what_cannot_be_arguments_of_one_call(name):
    with pytest.raises(TypeError, match="args is 3 of type int, which cannot be iterated"):
        apply_async(abs, 3, backend=name)
    with pytest.raises(TypeError, match="kwds must be a mapping, got 3 of type int"):
        apply_async(abs, (), 3, backend=name)


@pytest.mark.parametrize("name", ["process", "thread", "serial"])
@pytest.mark.parametrize("verb", [pmap, imap])
def test_what_cannot_be_iterated(verb, name):
    with pytest.raises(TypeError, match="iterable 2 is 5 of type int, which cannot be iterated"):
        verb(pow, [1], 5, backend=name)
    with pytest.raises(TypeError, match="at least one iterable"):
        verb(abs, backend=name)


@pytest.mark.parametrize("verb", [pmap, imap, apply_async])
def test_an_option_that_does_not_exist(verb):
    with pytest.raises(TypeError, match="wrokers"):
        verb(abs, [1], wrokers=2)


def test_options_of_a_call():
    with pytest.raises(ConfigurationError, match="buffersize=0"):
        imap(abs, [1], buffersize=0)
    with pytest.raises(ConfigurationError, match="retry_on='x'.*exception class"):
        pmap(abs, [1], retry_on="x")
    with pytest.raises(ConfigurationError, match="strict=1"):
        pmap(abs, [1], strict=1)
    with pytest.raises(ConfigurationError, match="ordered='no'"):
        imap(abs, [1], ordered="no")
    with pytest.raises(ConfigurationError, match="return_exceptions=1"):
        pmap(abs, [1], return_exceptions=1)


@pytest.mark.parametrize("name", ["thread", "serial"])
def test_task_timeout_where_a_task_cannot_be_stopped(name):
    with pytest.raises(ConfigurationError, match=f"task_timeout=1.* on the {name} back-end"):
        pmap(abs, [1], backend=name, task_timeout=1)


def test_seed_where_the_random_state_is_shared():
    with pytest.raises(ConfigurationError, match="seed=1 .* may share one random state"):
        pmap(abs, [1], backend="thread", seed=1)


def test_options_of_a_pool():
    with pytest.raises(ConfigurationError, match="max_tasks_per_worker=0"):
        Pool(max_tasks_per_worker=0)
    with pytest.raises(TypeError, match="initializer must be callable, got 3"):
        Pool(initializer=3)
    with pytest.raises(ConfigurationError, match="start_method='vfork'.*forkserver, spawn, fork"):
        Pool(start_method="vfork")
    with pytest.raises(ConfigurationError, match="start_method='fork' is not possible on the thr"):
        Pool(backend="thread", start_method="fork")
    with pytest.raises(TypeError, match="max_workers"):
        Pool(max_workers=2)
