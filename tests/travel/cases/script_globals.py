"""What a function finds by name: globals, aliases, the module itself, names written as text."""

import collections.abc
import importlib
import json.decoder
import os.path
import sys
import typing
import xml.dom.minidom
from pickle import dumps, loads

import numpy as np
from runner import main, same

from parallel_facade import Pool

import math as arithmetic  # isort: skip

SCALE = 3
_private = 4
MARK = 0


def scaled(x):
    return SCALE * x + _private


def calls_others(x):
    return [scaled(x), defined_later(x)]


def defined_later(x):
    return -x


def remembers(x):
    global LAST
    LAST = x
    return recalls()


def recalls():
    return LAST


class Thing:
    def __init__(self, size):
        self.size = size

    def __eq__(self, other):
        return type(other) is type(self) and other.size == self.size

    __hash__ = None


class Hinted:
    first: "Thing"
    second: "int"


def hinted(thing: "Thing") -> "Hinted": ...


def case_globals(pmap):
    same(pmap, scaled, range(3))


def case_functions_that_call_others(pmap):
    same(pmap, calls_others, range(3))


def case_modules_by_alias(pmap):
    same(pmap, lambda x: arithmetic.sqrt(x) + np.add(x, 1), [1.0, 4.0])


def case_submodules(pmap):
    same(pmap, lambda x: os.path.join("a", x), ["b"])
    same(pmap, lambda x: json.decoder.JSONDecoder().decode(x), ["[1]"])
    same(pmap, lambda x: xml.dom.minidom.parseString(x).documentElement.tagName, ["<a/>"])
    same(pmap, lambda x: isinstance(x, collections.abc.Sized), [[], 1])


def case_submodules_in_a_closure(pmap):
    import concurrent.futures
    import xml.etree.ElementTree

    same(pmap, lambda x: xml.etree.ElementTree.fromstring(x).tag, ["<b/>"])
    same(pmap, lambda _: concurrent.futures.FIRST_COMPLETED, [0])


def case_a_global_set_in_a_task(pmap):
    same(pmap, remembers, [1, 2, 3])


def case_the_callers_globals_stay(pmap):
    before = dict(globals())

    def set_it(x):
        global MARK
        MARK = x
        return MARK

    assert pmap(set_it, [10, 20]) == [10, 20]
    assert dict(globals()) == before


case_the_callers_globals_stay.needs_processes = True


def case_names_written_as_text(pmap):
    same(pmap, lambda x: globals()["SCALE"] * x, [1, 2])
    same(pmap, lambda x: eval("SCALE * x + scaled(x)", globals(), {"x": x}), [1, 2])


def case_the_module_by_import(pmap):
    same(pmap, lambda x: importlib.import_module(__name__).SCALE * x, [1, 2])
    same(pmap, lambda x: sys.modules[__name__].scaled(x), [1, 2])
    same(pmap, lambda x: getattr(sys.modules[__name__], "SCALE"), [1])  # noqa: B009


def case_pickling_inside_a_task(pmap):
    same(pmap, lambda x: loads(dumps(Thing(x))), [1, 2])
    same(pmap, lambda thing: loads(dumps(thing)), [Thing(1)])


def case_pickles_made_in_a_task_are_read_by_the_caller(pmap):
    assert [loads(one) for one in pmap(lambda x: dumps(Thing(x)), [1, 2])] == [Thing(1), Thing(2)]


def case_type_hints(pmap):
    same(pmap, lambda _: typing.get_type_hints(Hinted), [0])
    same(pmap, lambda _: typing.get_type_hints(hinted), [0])


def case_the_names_of_the_module(pmap):
    same(pmap, lambda _: (__name__, os.path.basename(__file__)), [0])
    same(pmap, lambda _: (scaled.__module__, Thing.__module__, Thing.__qualname__), [0])


def case_a_name_that_is_not_there(pmap):
    error = pmap(lambda _: not_defined_anywhere, [0], return_exceptions=True)[0]

    assert type(error) is NameError
    assert error.name == "not_defined_anywhere"


def case_star_and_builtins(pmap):
    same(pmap, lambda x: (len(x), sorted(x), __builtins__ is not None), ["ba"])


MODEL = None
FOUND = {}
COUNT = 0


def load(x):
    global COUNT, MODEL, UNKNOWN
    if MODEL is None:
        MODEL = object()
    FOUND.setdefault("first", id(MODEL))
    COUNT += 1
    try:
        UNKNOWN += 1
    except NameError:
        UNKNOWN = 1
    return id(MODEL) == FOUND["first"], COUNT, UNKNOWN


def case_a_model_is_loaded_once(pmap):
    with Pool(pmap.keywords["backend"], workers=1) as pool:
        assert [pool.pmap(load, [0])[0] for _ in range(3)] == [(True, n, n) for n in (1, 2, 3)]
        assert pool.pmap(lambda _: COUNT, [0]) == [3]
        assert pool.apply_async(load, (0,)).get(60) == (True, 4, 4)


case_a_model_is_loaded_once.needs_processes = True


def case_what_the_caller_changes_holds(pmap):
    global COUNT
    with Pool(pmap.keywords["backend"], workers=1) as pool:
        first = pool.pmap(load, [0])[0][1]
        COUNT += 100
        try:
            assert pool.pmap(load, [0])[0][1] == COUNT + 1
            FOUND["by"] = "the caller"
            assert pool.pmap(lambda _: sorted(FOUND), [0]) == [["by"]]
        finally:
            COUNT -= 100
            FOUND.clear()
    assert first == COUNT + 1


case_what_the_caller_changes_holds.needs_processes = True


KEPT = None
ROWS = []
TABLE = {}
LARGE = None


class Client:
    def get(self, x):
        return CONFIG.size + x, scaled(x)


CONFIG = Thing(10)


def keep(x):
    global KEPT
    if KEPT is None:
        KEPT = Client().get, lambda: CONFIG.size
    return x


def case_what_a_task_has_kept_goes_on_with_its_globals(pmap):
    with Pool(pmap.keywords["backend"], workers=1) as pool:
        assert pool.pmap(keep, [5]) == [5]
        assert pool.pmap(lambda x: x, [6]) == [6]
        assert pool.pmap(lambda x: (KEPT[0](x), KEPT[1]()), [7]) == [((17, scaled(7)), 10)]


case_what_a_task_has_kept_goes_on_with_its_globals.needs_processes = True


def push(x):
    ROWS.append(x)
    TABLE[x] = None
    return [*ROWS], [*TABLE]


def case_a_container_that_the_caller_replaced_by_an_equal_one(pmap):
    global ROWS, TABLE
    with Pool(pmap.keywords["backend"], workers=1) as pool:
        assert pool.pmap(push, [1]) == [([1], [1])]
        assert pool.pmap(push, [2]) == [([1, 2], [1, 2])]
        ROWS = []
        assert pool.pmap(push, [3]) == [([3], [1, 2, 3])]
        TABLE = {}
        assert pool.pmap(push, [4]) == [([3, 4], [4])]


case_a_container_that_the_caller_replaced_by_an_equal_one.needs_processes = True


def case_large_globals_of_an_ended_call_are_not_kept(pmap):
    global LARGE
    LARGE = Thing(np.zeros(1000))
    with Pool(pmap.keywords["backend"], workers=1) as pool:
        try:
            assert pool.pmap(lambda _: LARGE.size.size, [0]) == [1000]
            is_script = __name__ == "__main__"
            assert pool.pmap(lambda name: name in dict(globals()), ["LARGE"]) == [not is_script]
        finally:
            LARGE = None


case_large_globals_of_an_ended_call_are_not_kept.needs_processes = True


if __name__ == "__main__":
    main(globals())
