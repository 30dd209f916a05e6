"""Settings: what wins, what is refused, what is warned of."""

import asyncio
import contextvars
import itertools
import math
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from parallel_facade import ConfigurationError, config, configure, cpu_count, get_config
from parallel_facade._configuration.setting_table import SETTINGS
from parallel_facade._configuration.settings import (
    _warn_of_unknown_variables,
    resolve,
    sources,
)

LAYERS = ["call", "with config(...)", "configure(...)", "environment", "default"]
VALUES = {
    "call": 11,
    "with config(...)": 12,
    "configure(...)": 13,
    "environment": 14,
}


@pytest.mark.parametrize(
    "given", [set(chosen) for n in range(5) for chosen in itertools.combinations(LAYERS[:4], n)]
)
def test_the_strongest_layer_that_gives_a_value_wins(given, monkeypatch):
    if "environment" in given:
        monkeypatch.setenv("PARALLEL_FACADE_CHUNKSIZE", "14")
    if "configure(...)" in given:
        configure(chunksize=13)
    scoped = 12 if "with config(...)" in given else None
    argument = 11 if "call" in given else None

    with config(chunksize=scoped):
        resolved = resolve({"chunksize": argument}).chunksize
        source = sources()["chunksize"]

    strongest = next((layer for layer in LAYERS if layer in given), "default")
    assert resolved == VALUES.get(strongest)
    below_the_call = next((layer for layer in LAYERS[1:] if layer in given), "default")
    assert source == below_the_call


ENVIRONMENT = [
    ("BACKEND", "thread", "backend", "thread"),
    ("WORKERS", "3", "workers", 3),
    ("START_METHOD", "spawn", "start_method", "spawn"),
    ("INNER_THREADS", "0", "inner_threads", 0),
    ("CHUNKSIZE", "5", "chunksize", 5),
    ("TIMEOUT", "1.5", "timeout", 1.5),
    ("TIMEOUT", "inf", "timeout", math.inf),
    ("TASK_TIMEOUT", "2", "task_timeout", 2.0),
    ("RETRIES", "4", "retries", 4),
    ("RETRY_DELAY", "0.5", "retry_delay", 0.5),
    ("PROGRESS", "1", "progress", True),
    ("PROGRESS", "off", "progress", False),
    ("PROGRESS", "Reading", "progress", "Reading"),
    ("SEED", "-7", "seed", -7),
    ("SERIALIZER", "pickle", "serializer", "pickle"),
    ("BY_VALUE", "mypkg, other.sub", "by_value", ("mypkg", "other.sub")),
    ("START_TIMEOUT", "600", "start_timeout", 600.0),
    ("RELAY", "0", "relay", False),
    ("RELAY", "on", "relay", True),
]


@pytest.mark.parametrize(("variable", "text", "name", "value"), ENVIRONMENT)
def test_each_variable_sets_its_setting(variable, text, name, value, monkeypatch):
    monkeypatch.setenv(f"PARALLEL_FACADE_{variable}", text)

    assert getattr(get_config(), name) == value


def test_every_setting_has_its_variable_in_the_table_above():
    assert {name for _, _, name, _ in ENVIRONMENT} == set(SETTINGS)


BAD_ENVIRONMENT = [
    ("BACKEND", "proces", "did you mean 'process'"),
    ("WORKERS", "many", "a whole number of at least 1"),
    ("WORKERS", "0", "a whole number of at least 1"),
    ("START_METHOD", "vfork", "forkserver, spawn, fork"),
    ("INNER_THREADS", "-1", "0 for no limit"),
    ("CHUNKSIZE", "1.5", "a whole number of at least 1"),
    ("TIMEOUT", "-1", "seconds above 0"),
    ("TASK_TIMEOUT", "soon", "seconds above 0"),
    ("RETRIES", "-1", "at least 0"),
    ("SEED", "x", "a whole number"),
    ("SERIALIZER", "json", "one of dill, pickle"),
    ("BY_VALUE", "my-pkg", "names of modules"),
    ("START_TIMEOUT", "0", "seconds above 0"),
    ("RELAY", "loud", "True or False"),
]


@pytest.mark.parametrize(("variable", "text", "message"), BAD_ENVIRONMENT)
def test_a_bad_variable_names_itself_its_value_and_the_valid_ones(
    variable, text, message, monkeypatch
):
    monkeypatch.setenv(f"PARALLEL_FACADE_{variable}", text)

    with pytest.raises(ConfigurationError, match=f"PARALLEL_FACADE_{variable}='{text}'.*{message}"):
        get_config()


@pytest.mark.parametrize("known", ["PARALLEL_FACADE_WORKERS", "PARALLEL_FACADE_PPFT_SERVERS"])
def test_an_unknown_variable_warns_once_with_the_nearest_known(known, monkeypatch):
    unknown = known.removesuffix("S")
    monkeypatch.setenv(unknown, "2")
    _warn_of_unknown_variables.cache_clear()

    with pytest.warns(UserWarning, match=f"{unknown} .*did you mean '{known}'"):
        get_config()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_config()


def test_an_unknown_setting_is_refused_with_the_nearest_known():
    with pytest.raises(ConfigurationError, match="no setting is called 'worker'.*'workers'"):
        configure(worker=2)


def test_configure_changes_nothing_when_one_setting_is_bad():
    with pytest.raises(ConfigurationError):
        configure(chunksize=5, retries=-1)

    assert get_config().chunksize is None


def test_none_takes_a_setting_back():
    configure(chunksize=5, retries=2)
    configure(chunksize=None)

    assert (get_config().chunksize, get_config().retries) == (None, 2)


def test_blocks_nest_and_end():
    with config(workers=3):
        with config(chunksize=5) as inner:
            assert (inner.workers, inner.chunksize) == (3, 5)
        assert get_config().chunksize is None
    assert get_config().workers == cpu_count()


def test_a_block_ends_with_an_exception_too():
    with pytest.raises(LookupError), config(workers=7):
        raise LookupError

    assert get_config().workers == cpu_count()


def test_a_block_is_for_its_thread_and_task_only():
    seen = {}

    async def task(name, workers):
        with config(workers=workers):
            await asyncio.sleep(0)
            seen[name] = get_config().workers

    async def main():
        await asyncio.gather(task("a", 5), task("b", 6))

    with config(workers=4):
        thread = threading.Thread(target=lambda: seen.update(thread=get_config().workers))
        thread.start()
        thread.join()
    asyncio.run(main())

    assert seen == {"thread": cpu_count(), "a": 5, "b": 6}


def test_what_is_handed_on_in_so_many_words_has_the_settings_of_a_block():
    def workers():
        return get_config().workers

    async def in_a_thread():
        return await asyncio.to_thread(workers)

    with config(workers=4):
        assert asyncio.run(in_a_thread()) == 4
        assert contextvars.copy_context().run(workers) == 4
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(workers).result() == cpu_count()
            assert executor.submit(contextvars.copy_context().run, workers).result() == 4


def test_a_thread_started_in_a_block_can_have_blocks_of_its_own():
    seen = []

    def look():
        seen.append(get_config().workers)
        with config(retries=2):
            seen.append((get_config().workers, get_config().retries))
        seen.append(get_config().retries)

    with config(workers=4, retries=1):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    assert seen == [cpu_count(), (cpu_count(), 2), 0]
