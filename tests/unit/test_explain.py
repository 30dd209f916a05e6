"""`explain`: which part cannot travel, where it is, and what to do."""

import functools
import gc
import multiprocessing
import os
import re
import socket
import sys
import threading
import types

import hostile
import multiprocess
import pytest

from parallel_facade import Explanation, SerializationError, config, explain, pmap


class Client:
    def __init__(self, part=None):
        self.part = part

    @property
    def dangerous(self):
        raise AssertionError("a property was run")

    def f(self, x):
        return x


class Slotted:
    __slots__ = ("part",)

    def __init__(self, part):
        self.part = part


@pytest.fixture
def held():
    lock = threading.Lock()
    lock.acquire()
    return lock


def paths(obj):
    return [offender.path for offender in explain(obj).offenders]


def test_what_can_travel_says_how_large_it_is():
    report = explain([0] * 1000)

    assert report.travels
    assert report.offenders == ()
    assert str(report) == f"obj, a list can travel: {report.size:,} bytes"
    assert str(explain(lambda x: x)).startswith("func test_what_can_travel")


def test_the_path_goes_through_attributes_keys_and_places(held):
    assert paths(Client(held).f) == ["func.__self__.part"]
    assert paths({"a": [Client(held)]}) == ["obj['a'][0].part"]
    assert paths((Slotted(held),)) == ["obj[0].part"]
    assert paths({(1, Client(held)): 1}) == ["obj.key(a tuple)[1].part"]
    assert paths({Client(held)}) == ["obj.element(a Client).part"]
    assert paths(functools.partial(print, held, sep=held)) == ["func.args[0]"]
    assert paths(ValueError("x", held)) == ["obj.args[1]"]


def test_cells_globals_defaults_and_attributes_of_functions(held):
    name = "test_cells_globals_defaults_and_attributes_of_functions.<locals>"
    client = Client(held)

    def with_default(x, lock=held): ...

    def with_attribute(x): ...

    with_attribute.lock = held
    space = {"__name__": "__main__", "MODEL": client}

    assert paths(lambda x: held) == [f"closure cell 'held' of {name}.<lambda>"]
    assert paths(lambda x: client) == [f"(closure cell 'client' of {name}.<lambda>).part"]
    assert paths(with_default) == ["func.__defaults__[0]"]
    assert paths(with_attribute) == ["func.lock"]
    assert paths(eval("lambda x: MODEL", space)) == ["(global 'MODEL').part"]


def test_functions_in_functions_are_named_by_the_innermost(held):
    def inner(x):
        return held

    name = "test_functions_in_functions_are_named_by_the_innermost.<locals>.inner"

    assert paths([lambda x: inner(x)]) == [f"closure cell 'held' of {name}"]


def test_parts_of_classes(held):
    class Local:
        lock = held

    class Child(Local):
        pass

    assert paths(Child()) == ["(class test_parts_of_classes.<locals>.Local).lock"]


def test_every_part_is_told_once_nearest_first(held):
    shared = Client(held)

    assert paths([[shared], shared, held]) == ["obj[2]"]
    other = threading.Lock()
    with other:
        assert paths([[Client(other)], held]) == ["obj[1]", "obj[0][0].part"]


def test_no_more_than_a_screen_full():
    locks = [threading.Lock() for _ in range(50)]
    for lock in locks:
        lock.acquire()

    assert len(explain(locks).offenders) == 20


def test_cycles_end(held):
    ring = [held]
    ring.append(ring)
    parent = Client()
    parent.part = {"children": [Client(parent), held]}

    assert paths(ring) == ["obj[0]"]
    assert paths(parent) == ["obj.part['children'][1]"]


def test_enormous_data_ends(held):
    assert paths([list(range(2_000_000)), held]) == ["obj[1]"]
    assert paths([[(i, i) for i in range(400_000)], held]) == ["obj[1]"]


def test_data_without_end_is_said_to_be_so():
    class Endless:
        def __reduce__(self):
            return Endless, (), {"next": Endless()}

    report = explain(Endless())

    assert not report.travels
    assert "RecursionError" in report.offenders[0].reason
    assert "flat form" in report.offenders[0].remedy


def test_properties_are_not_run(held):
    assert paths(Client(held)) == ["obj.part"]
    assert explain(Client(1)).travels


@pytest.mark.parametrize("kind", hostile.KINDS)
@pytest.mark.parametrize("behaviour", [one for one in hostile.BEHAVIOURS if one != "kill"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_it_never_raises(kind, behaviour):
    explain_all_with(kind(behaviour, False, os.getpid()))

    gc.collect()  # here, where what a __del__ raises is expected


def explain_all_with(part):
    for obj in (part, [part], Client(part).f, lambda: part):
        report = explain(obj)
        assert isinstance(report, Explanation)
        assert str(report)
        assert report.travels != bool(report.offenders)


def test_it_says_what_a_call_says(held):
    client = Client({"deep": [held]})
    with pytest.raises(SerializationError) as caught:
        pmap(client.f, [1], backend="process")

    assert caught.value.path == "func.__self__.part['deep'][0]"
    assert caught.value.offenders == explain(client.f).offenders


def test_the_remedy_fits_the_part(held):
    def remedy(obj):
        return explain(obj).offenders[0].remedy

    with socket.socket() as connection, open(__file__, "a+") as file:
        assert "initializer" in remedy(connection)
        assert "send its path" in remedy(file)
    assert "release it" in remedy(held)
    assert "list" in remedy(x for x in [])
    assert "span" in remedy(re.match("a", "a"))
    assert "Manager()" in remedy(multiprocessing.Lock())
    assert "Manager()" in remedy(multiprocess.Event())
    assert remedy(sys._getframe())


def test_the_printout_is_a_small_tree(held):
    class Service:
        def __init__(self):
            self.name = "s"
            self.lock = held
            self.running = (x for x in [])

    name = Service.__qualname__
    assert str(explain({"service": Service(), "more": [1, held]})).splitlines() == [
        "obj, a dict cannot travel",
        "",
        "obj               dict",
        f"└── ['service']   {name}",
        f"    ├── .lock     lock ✗ PicklingError: a lock that is held cannot travel: {held!r}",
        "    └── .running  generator ✗ TypeError: cannot pickle 'generator' object",
        "",
        "Way out: release it before the call, or leave it out in __getstate__; each worker then "
        "has a lock of its own. For one lock that all workers share, use "
        "multiprocessing.Manager().Lock().",
        "Way out: make a list of it, or send the function that makes it and its arguments.",
    ]


def test_the_standard_serializer_is_asked_where_it_is_configured():
    with config(serializer="pickle"):
        report = explain(lambda x: x)

    assert not report.travels
    assert report.offenders[0].path == "func"
    assert explain(lambda x: x).travels


def test_what_was_put_into_a_module(held, monkeypatch):
    import helpers

    assert explain(helpers.uses_helper).travels
    monkeypatch.setattr(helpers, "helper", lambda x: held)

    assert paths(helpers.uses_helper) == [
        "closure cell 'held' of test_what_was_put_into_a_module.<locals>.<lambda>"
    ]


def test_modules_made_at_run_time(held):
    module = types.ModuleType("made")
    module.part = held

    assert paths(module) == ["obj.part"]
