"""Payloads within one process: identity, sharing, refusals."""

import abc
import collections.abc
import enum
import functools
import gc
import os.path
import pickle
import sys
import threading
import types
import weakref
from collections import namedtuple

import numpy
import pytest

from parallel_facade import SerializationError
from parallel_facade._common.call_ids import new_call_id
from parallel_facade._serialization import dill_bridge as _dilling
from parallel_facade._serialization import pickler as _pickling
from parallel_facade._serialization.encoder import (
    LARGE_BYTES,
    Encoder,
    decode,
    decode_callable,
)
from parallel_facade._serialization.modules.importable import find_path, is_importable
from parallel_facade._serialization.modules.registrations import registrations_of
from parallel_facade._serialization.rules.class_tokens import class_for, token_for
from parallel_facade._worker.run_chunk import Chunk


def there_and_back(obj, serializer="dill"):
    return decode(Encoder(new_call_id(), serializer).encode(obj, "it").data)


def test_scopes_are_unique():
    assert len({new_call_id() for _ in range(100)}) == 100


def test_importable_things_go_by_reference():
    for obj in (os.path.join, pickle.Pickler, functools.partial, abc.ABC, enum.Enum):
        assert there_and_back(obj) is obj


def test_the_owners_class_is_found_again():
    class Local:
        pass

    assert there_and_back(Local) is Local
    assert type(there_and_back(Local())) is Local


def test_a_class_is_not_kept_alive_by_its_token():
    class Local:
        pass

    token = token_for(Local)
    gone = weakref.ref(Local)

    del Local
    gc.collect()

    assert gone() is None
    assert class_for(token) is None


def test_what_is_shared_stays_shared():
    shared = [1]

    def f():
        return shared

    a, b, again = there_and_back([shared, shared, f])

    assert a is b
    assert again() is a


def test_cycles_and_self_containing_objects():
    ring = []
    ring.append(ring)

    back = there_and_back(ring)

    assert back[0] is back


def test_functions_of_one_module_share_their_globals():
    space = {"__name__": "made_up"}
    exec("count = 0\ndef up():\n global count\n count += 1\ndef get():\n return count", space)

    up, get = there_and_back([space["up"], space["get"]])
    up()

    assert get() == 1
    assert space["count"] == 0


def test_only_the_globals_that_a_function_uses_travel():
    space = {"__name__": "made_up", "used": 5, "unused": (x for x in [])}
    exec("def f():\n return [used for _ in range(2)]", space)

    assert there_and_back(space["f"])() == [5, 5]


def test_modules_and_submodules_are_imported_there():
    import xml
    import xml.dom.minidom

    assert there_and_back(lambda: xml.dom.minidom.Document)().__name__ == "Document"
    assert there_and_back(numpy) is numpy


def test_special_objects():
    cell_of = (lambda x: lambda: x)(3).__closure__[0]
    empty = types.CellType()
    proxy = types.MappingProxyType({"a": 1})

    assert there_and_back(cell_of).cell_contents == 3
    with pytest.raises(ValueError):
        _ = there_and_back(empty).cell_contents
    assert there_and_back(proxy) == proxy
    assert isinstance(there_and_back(threading.Lock()), type(threading.Lock()))
    assert there_and_back(NotImplemented) is NotImplemented


def test_named_tuples_abcs_and_nested_classes():
    Pair = namedtuple("Pair", "a b")

    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self): ...

        class Inner:
            pass

    class Square(Shape):
        def area(self):
            return 4

    assert there_and_back(Pair(1, 2)) == Pair(1, 2)
    assert there_and_back(Square()).area() == 4
    assert type(there_and_back(Shape.Inner())) is Shape.Inner


def test_arrays_travel_by_the_c_pickler():
    array = numpy.arange(1_000_000)

    payload = Encoder(new_call_id(), "dill").encode(array, "it").data

    assert len(payload) < array.nbytes + 1_000
    assert (decode(payload) == array).all()


def test_dill_is_never_asked_to_walk_data(monkeypatch):
    """dill is for code and what pickle refuses; nothing here should need it."""
    asked, dump = [], _dilling.dump_by_dill

    def dump_by_dill(obj, reduce):
        asked.append(type(obj))
        return dump(obj, reduce)

    monkeypatch.setattr(_pickling, "dump_by_dill", dump_by_dill)
    monkeypatch.setattr(_dilling, "dump_by_dill", dump_by_dill)
    data = list(range(10))

    class Local:
        kept = data

        @property
        def first(self):
            return self.kept[0]

        def method(self):
            return data

    for obj in (
        lambda: data,
        Local(),
        Local().method,
        threading.Lock(),
        [Local, weakref.ref(Local)],
    ):
        there_and_back(obj)

    assert set(asked) == {types.CodeType}


def function_from(source, file, **more):
    space = {"__name__": "__main__", **more}
    exec(compile(source, file, "exec"), space)
    return space["f"]


def test_code_is_taken_apart_once_and_keeps_its_file(monkeypatch):
    ones, others = (function_from("def f(x): return x + 0.0", f"{name}.py") for name in "ab")
    assert ones.__code__ == others.__code__, "the file is no part of what == compares"

    assert there_and_back(ones).__code__.co_filename == "a.py"
    assert there_and_back(others).__code__.co_filename == "b.py"

    monkeypatch.setattr(_dilling, "dump_by_dill", None)
    again = there_and_back(ones)
    assert (again(1), again.__code__.co_filename) == (1, "a.py")


def test_code_that_holds_more_than_constants_is_taken_apart_each_time():
    class Kept:
        pass

    def f():
        return "in its place"

    constants = tuple(Kept if one == "in its place" else one for one in f.__code__.co_consts)
    f.__code__ = f.__code__.replace(co_consts=constants)

    for _ in range(2):
        assert there_and_back(f)().__name__ == "Kept"


def test_large_constants_are_not_kept(monkeypatch):
    monkeypatch.setattr(_dilling, "_dumped", {})
    large = function_from(f"def f(): return {'x' * 100_000!r}", "large.py")
    small = function_from("def f(): return 'x'", "small.py")

    assert there_and_back(large)() == "x" * 100_000
    assert there_and_back(small)() == "x"
    assert list(_dilling._dumped) == [id(small.__code__)]


def test_a_refusal_names_the_part_and_a_way_out():
    with pytest.raises(SerializationError, match="(?s)cannot send item 3: .*Way out: make a list"):
        Encoder(new_call_id(), "dill").encode((x for x in []), "item 3")
    with pytest.raises(SerializationError, match="serializer='dill' carries"):
        Encoder(new_call_id(), "pickle").encode(lambda: 0, "item 3")


def test_endless_recursion_is_a_refusal():
    class Endless:
        def __reduce__(self):
            return list, ([Endless()],)

    with pytest.raises(SerializationError, match="RecursionError"):
        Encoder(new_call_id(), "dill").encode(Endless(), "it")


def test_what_a_worker_can_import():
    made = types.ModuleType("made_at_run_time")
    exec("def f(): pass", vars(made))
    made.f.__module__ = "made_at_run_time"
    sys.modules["made_at_run_time"] = made
    try:
        assert not is_importable(made.f)
    finally:
        del sys.modules["made_at_run_time"]
    assert is_importable(os.path.join)
    assert find_path(Encoder._encode) == (
        "parallel_facade._serialization.encoder",
        "Encoder._encode",
    )
    assert not is_importable(lambda: 0)
    assert not is_importable(3)


def test_a_shadowed_function_goes_by_value():
    space = {"__name__": __name__}
    exec("def there_and_back(x):\n return ('another', x)", space)

    assert there_and_back(space["there_and_back"])(1) == ("another", 1)


class FromBytes:
    def __init__(self, data):
        self.size = len(data)

    def __reduce__(self):
        return FromBytes, (bytes(self.size),)


def test_values_that_a_large_callable_was_made_from_are_released():
    made = [FromBytes(bytes(2 * LARGE_BYTES)), b"kept"]
    encoder = Encoder(new_call_id(), "pickle")
    payload = encoder.encode_callable(made, "the callable", dict)
    chunk = Chunk(0, [made[0], made], 1)
    items = encoder.encode_items(chunk, "one", "items", dict)

    received, parts = decode_callable(payload.data)
    found = parts.rebuild(lambda: decode(items.data))[1]
    assert (found[0] is received[0], found[1] is received) == (True, True)
    assert len(items.data) < 1000
    gc.collect()
    assert not any(type(one) is bytes and len(one) > LARGE_BYTES for one in parts._objects.values())


def test_a_class_of_the_script_is_watched_once_however_often_something_is_registered():
    cls = type("Registered", (), {"__module__": "__main__"})
    collections.abc.Sized.register(cls)
    before = len(weakref.finalize._registry)

    for _ in range(3):
        collections.abc.Sized.register(type("Another", (), {"__module__": "helpers"}))
        (registered,) = registrations_of([cls])
    assert (registered.kind, registered.target) == ("virtual", collections.abc.Sized)
    assert len(weakref.finalize._registry) <= before + 1
