"""What is one object in the caller is one object in the task: classes, singletons, names."""

import abc
import itertools
import logging
import threading
from typing import Generic, TypeVar

import helpers
import pytest
from pydantic import BaseModel
from runner import main

T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    item: T


class Counted(Box[int]):
    more: int = 1


IntBox = Box[int]


def boxes_are_themselves(pmap, box):
    one = box[int](item=1)
    nested = box[box[int]](item=one)

    def boxes(x):
        return box[int](item=x), box[str | None](item=None)

    # One after another: two threads that ask pydantic for one new class may get two.
    made = [*pmap(boxes, [0]), *pmap(boxes, [1])]
    assert [(type(a) is box[int], type(b) is box[str | None]) for a, b in made] == [(1, 1)] * 2
    assert pmap(lambda x: type(x) is box[int], [one, one]) == [True, True]
    assert pmap(lambda x: type(x) is box[box[int]] and type(x.item) is box[int], [nested]) == [True]


def case_generic_models_of_a_script(pmap):
    boxes_are_themselves(pmap, Box)


def case_generic_models_of_a_module(pmap):
    boxes_are_themselves(pmap, helpers.Box)


def case_aliases_and_subclasses_of_generic_models(pmap):
    (made,) = pmap(lambda x: (IntBox(item=x), Counted(item=x), helpers.IntBox(item=x)), [1])

    assert [type(one) for one in made] == [Box[int], Counted, helpers.Box[int]]
    assert pmap(lambda _: issubclass(Counted, Box[int]), [0]) == [True]


class Vector:
    made = {}

    def __class_getitem__(cls, n):
        if n not in cls.made:
            body = {"n": n, "__origin__": cls, "__args__": (n,)}
            cls.made[n] = type(f"Vector[{n}]", (cls,), body)
        return cls.made[n]


def case_classes_made_by_class_getitem(pmap):
    vector = Vector[3]()

    assert pmap(lambda x: type(x) is Vector[3] and x.n, [vector]) == [3]
    assert [type(one) for one in pmap(lambda n: Vector[n](), [3, 4])] == [Vector[3], Vector[4]]


def case_classes_of_a_bare_namespace(pmap):
    space = {}
    exec(
        "class P: pass\nclass Q(P):\n  n = 1\nclass E(Exception): pass\ndef f(x): return Q()", space
    )

    def fail(x):
        raise space["E"](x)

    assert [type(one) for one in pmap(space["f"], [1, 2])] == [space["Q"]] * 2
    assert pmap(lambda x: isinstance(x, space["P"]), [space["Q"]()]) == [True]
    (error,) = pmap(fail, [3], return_exceptions=True)
    assert type(error) is space["E"]
    assert error.args == (3,)


def case_exceptions_that_say_another_module(pmap):
    for raise_it, kind in (
        (pytest.skip, pytest.skip.Exception),
        (pytest.fail, pytest.fail.Exception),
    ):
        with pytest.raises(kind, match="why"):
            pmap(lambda _, raise_it=raise_it: raise_it("why"), [0])
    assert pmap(lambda _: pytest.skip.Exception, [0]) == [pytest.skip.Exception]


class Single:
    lock = threading.Lock()
    one = None

    def __new__(cls):
        with cls.lock:
            if cls.one is None:
                cls.one = super().__new__(cls)
        return cls.one


def case_a_singleton_by_new(pmap):
    Single().value = 4

    assert pmap(lambda _: (Single().value, Single() is Single()), [1, 2]) == [(4, True)] * 2
    assert pmap(lambda one: (one.value, one is Single()), [Single()]) == [(4, True)]
    assert pmap(lambda _: Single(), [0]) == [Single()]


class OneOfEach(type):
    lock = threading.RLock()
    made = {}

    def __call__(cls):
        with OneOfEach.lock:
            if cls not in OneOfEach.made:
                OneOfEach.made[cls] = super().__call__()
        return OneOfEach.made[cls]


class Database(metaclass=OneOfEach):
    url = "none"


def case_a_singleton_by_a_metaclass(pmap):
    Database().url = "x"

    if __name__ != "__main__":  # a module's own dictionary is that of the worker
        assert pmap(lambda _: Database() is Database(), [0]) == [True]
        return
    assert pmap(lambda _: (Database().url, Database() is Database()), [0]) == [("x", True)]


class Registered:
    lock = threading.Condition(threading.Lock())
    ids = itertools.count(1)
    log = logging.getLogger("registered")
    known = {}

    def __new__(cls, name):
        with cls.lock:
            cls.log.debug("asked for %s", name)
            if name not in cls.known:
                cls.known[name] = super().__new__(cls)
                cls.known[name].name = name
            return cls.known[name]

    def __getnewargs__(self):
        return (self.name,)


def case_a_registry_by_new(pmap):
    Registered("b").color = "red"

    assert pmap(lambda x: Registered("b").color, [1, 2]) == ["red", "red"]
    assert pmap(lambda one: one is Registered("b"), [Registered("b")]) == [True]


class Slotted:
    __slots__ = ("value",)
    lock = threading.Lock()
    one = None

    def __new__(cls):
        with cls.lock:
            cls.one = cls.one or super().__new__(cls)
        return cls.one


def case_a_singleton_with_slots(pmap):
    Slotted().value = 9

    assert pmap(lambda _: Slotted().value, [0]) == [9]


class Base(abc.ABC):
    lock = threading.Lock()

    def __new__(cls, *args):
        with cls.lock:
            return super().__new__(cls)


class Derived(Base):
    default = None

    def __init__(self, value):
        self.value = value


Derived.default = Derived(5)


def case_a_lock_of_a_base_that_new_needs(pmap):
    assert pmap(lambda one: (one.value, Derived.default.value), [Derived(4)]) == [(4, 5)]


class Wrapper:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


class AttributeDict(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class Tagged(list):
    def __init__(self, *args):
        super().__init__(*args)
        self.tag = 3

    def __getattr__(self, name):
        return self.others[name]


class Half:
    __slots__ = ("a", "b")

    def __getattr__(self, name):
        return getattr(self.b, name)


def case_attributes_without_a_guard(pmap):
    wrapped = Wrapper(Wrapper("abc"))
    half = Half()
    half.a = 1

    assert pmap(lambda x: x.upper(), [wrapped, Wrapper("d")]) == ["ABC", "D"]
    assert pmap(lambda _: wrapped.upper(), [0]) == ["ABC"]
    assert pmap(lambda x: Wrapper(x), [1])[0].inner == 1
    assert pmap(lambda d: (d.a, type(d).__name__), [AttributeDict(a=1)]) == [(1, "AttributeDict")]
    assert pmap(lambda x: (list(x), x.tag), [Tagged([1, 2])]) == [([1, 2], 3)]
    assert pmap(lambda x: x.a, [half]) == [1]


def case_attributes_of_a_module_without_a_guard(pmap):
    assert pmap(lambda x: x.upper(), [helpers.Wrapper("abc")]) == ["ABC"]


if __name__ == "__main__":
    main(globals())
