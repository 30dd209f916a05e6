"""A call that comes again is sent once, if nothing that it depends on was changed."""

import functools
import math
import os
import sys
import types
import warnings

import pytest

from parallel_facade import Pool, config
from parallel_facade._dispatch.codecs import PayloadCodec
from parallel_facade._serialization.footprint import footprint_of

RATE, OFFSET, ROWS = 2, 1, []


def helper(x):
    return x * RATE


def by_helper(x, power=1):
    return helper(x) ** power + OFFSET


def sets(x):
    global OFFSET
    OFFSET = x


def of_a_script(text):
    """Return the functions that *text* defines in a module that nobody can import."""
    space = types.ModuleType("__main__").__dict__
    exec(text, space)
    return space


@pytest.fixture
def packed(monkeypatch):
    """The callables that were packed."""
    calls = []
    pack_call = PayloadCodec.pack_call

    def noting(self, call, *args):
        calls.append(call.func)
        return pack_call(self, call, *args)

    monkeypatch.setattr(PayloadCodec, "pack_call", noting)
    return calls


@pytest.fixture(scope="module")
def pool():
    with Pool(workers=2) as pool:
        yield pool


@pytest.fixture
def again(pool, packed):
    """Return whether a call of a function that was called three times is not packed again."""

    def again(func, *args, change=lambda: None):
        for _ in range(3):
            pool.submit(func, *args).result(60)
        count = len(packed)
        change()
        pool.submit(func, *args).result(60)
        return len(packed) == count

    return again


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (math.sqrt, (4.0,)),
        (abs, (-1,)),
        (lambda x: math.hypot(x, RATE), (1,)),
        (by_helper, (1, 2)),
        (os.path.join, ("a", "b")),
        (functools.partial(by_helper, power=2), (3,)),
        (functools.partial(functools.partial(math.hypot, 3), 4), ()),
        (lambda rows: [len(one) for one in rows], ([[1], [2, 3], {"a": (1, None)}],)),
    ],
)
def test_a_function_of_plain_data_is_sent_once(again, func, args):
    assert again(func, *args)


def test_maps_of_one_function_send_it_once(pool, packed):
    for _ in range(5):
        assert pool.pmap(by_helper, [1, 2]) == [3, 5]
        assert list(pool.imap(by_helper, range(2))) == [1, 3]
    assert 2 <= len(packed) <= 4


class Holder:
    def method(self, x):
        return x


def with_attributes(x):
    return x


with_attributes.unit = "m"


def with_a_list(x, seen=[]):  # noqa: B006
    return x


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (Holder().method, (1,)),
        (functools.partial(len, ROWS), ()),
        (functools.partial(Holder().method, 1), ()),
        (lambda x: ROWS and x, (1,)),
        (sets, (1,)),
        (with_attributes, (1,)),
        (with_a_list, (1,)),
        (lambda x: Holder and x, (1,)),
        (lambda x: globals() and x, (1,)),
        (functools.wraps(by_helper)(lambda x: x), (1,)),
    ],
)
def test_what_can_change_inside_is_sent_each_time(again, func, args):
    assert not again(func, *args)


def test_a_function_is_sent_again_with_arguments_that_bring_code(again):
    assert not again(id, Holder())
    assert not again(id, [1, {"a": Holder()}])
    assert again(id, [1, {"a": (2, b"3")}])


def changed_global():
    global RATE
    RATE += 1


CHANGES = {
    "a global": changed_global,
    "the code": lambda: setattr(helper, "__code__", (lambda x: x + 1).__code__),
    "the defaults": lambda: setattr(by_helper, "__defaults__", (3,)),
    "the folder": lambda: os.chdir(os.path.dirname(os.getcwd()) or "/tmp"),
    "the import path": lambda: sys.path.append("/nowhere"),
    "the filters": lambda: warnings.simplefilter("error", ImportWarning),
    "another call": None,
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_followed(again, pool, monkeypatch, what):
    for name in ("RATE", "OFFSET"):
        monkeypatch.setitem(globals(), name, globals()[name])
    monkeypatch.setattr(helper, "__code__", helper.__code__)
    monkeypatch.setattr(by_helper, "__defaults__", by_helper.__defaults__)
    monkeypatch.chdir(os.getcwd())
    monkeypatch.setattr(sys, "path", [*sys.path])
    change = CHANGES[what] or (lambda: pool.submit(divmod, 7, 2).result(60))
    with warnings.catch_warnings():
        assert not again(by_helper, 5, change=change)
        assert pool.submit(by_helper, 5).result(60) == by_helper(5)


def test_cells_of_a_closure_are_followed(again):
    n = 1

    def add(x):
        return x + n

    def change():
        nonlocal n
        n = 2

    assert again(add, 1)
    assert not again(add, 1, change=change)


@pytest.mark.parametrize("of_helper", [False, True])
@pytest.mark.parametrize("name", ["factor", "__name__", "__doc__"])
def test_attributes_of_functions_are_followed(again, monkeypatch, name, of_helper):
    space = of_a_script("def f(x): return x\ndef g(x): return f(x)\n")
    func = space["f" if of_helper else "g"]

    assert again(space["g"], 1)
    assert not again(space["g"], 1, change=lambda: setattr(func, name, "new"))


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
def test_annotations_by_any_callable(again):
    func = of_a_script("def f(x): return x")["f"]
    func.__annotate__ = type("Annotate", (), {"__call__": lambda self, _: {}})()

    assert not again(func, 1)


def test_arguments_of_a_partial_are_followed(again):
    partial = functools.partial(by_helper, power=1)

    assert again(partial, 3)
    assert not again(partial, 3, change=lambda: partial.keywords.update(power=2))


def test_settings_for_nested_calls_are_followed(again, pool):
    assert again(by_helper, 1)
    with config(chunksize=7):
        assert not again(by_helper, 1, change=lambda: pool.submit(abs, 1).result(60))


def test_a_task_cannot_leave_anything_behind_for_the_next_call(pool):
    space = of_a_script("def count(x, n=0):\n  n += x\n  return n\n")
    assert [pool.submit(space["count"], 1).result(60) for _ in range(5)] == [1] * 5


def test_workers_keep_one_call(pool):
    for func in (abs, by_helper, math.sqrt):
        for _ in range(3):
            pool.submit(func, 1).result(60)
    handle = pool._backend.kept_calls._kept.handle
    pool.submit(len, [Holder()]).result(60)
    assert pool._backend.kept_calls._kept is None
    assert not handle.sent.is_kept
    workers = pool._backend._manager._scheduler.workers
    assert all(len(worker.known_calls) <= 1 for worker in workers)


def test_calls_that_overlap_share_what_was_sent(pool, packed):
    for _ in range(3):
        pool.submit(by_helper, 1).result(60)
    count = len(packed)
    results = [pool.submit(by_helper, n) for n in range(50)]
    assert [one.result(60) for one in results] == list(map(by_helper, range(50)))
    assert len(packed) == count
    errors = [pool.submit(math.sqrt, -n) for n in range(1, 9)]
    assert {type(one.exception(60)) for one in errors} == {ValueError}


def test_a_new_worker_gets_the_kept_call(pool):
    for _ in range(3):
        pool.submit(by_helper, 1).result(60)
    before = {worker.process.pid for worker in pool._backend._manager._scheduler.workers}
    crash = pool.submit(os._exit, 3)
    assert crash.exception(60) is not None
    for n in range(20):
        assert pool.submit(by_helper, n).result(60) == by_helper(n)
    after = {worker.process.pid for worker in pool._backend._manager._scheduler.workers}
    assert after != before


def test_a_function_with_a_footprint_may_be_collected():
    func = of_a_script("def f(x): return x")["f"]
    footprint = footprint_of(func)
    assert footprint.is_of(func)
    copy = types.FunctionType(func.__code__, func.__globals__)
    assert not footprint.is_of(copy)
    del func
    assert not footprint.is_of(copy)
