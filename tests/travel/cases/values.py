"""Values as items, as results, in closures: each back equal, of its own class, shared as before."""

import array
import collections
import contextvars
import ctypes
import datetime
import decimal
import fractions
import io
import ipaddress
import itertools
import logging
import operator
import os
import pathlib
import queue
import random
import re
import struct
import tempfile
import threading
import types
import uuid
import weakref
import zoneinfo

import numpy as np
import pandas as pd
from runner import main, same

REQUEST = contextvars.ContextVar("REQUEST", default="nobody")
UNSET = contextvars.ContextVar("UNSET")


class Pixel(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]


class Network(ctypes.BigEndianStructure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("port", ctypes.c_uint16), ("colours", ctypes.c_uint8 * 3)]


class Either(ctypes.Union):
    _fields_ = [("number", ctypes.c_uint32), ("bytes", ctypes.c_uint8 * 4)]


class Tagged(np.ndarray):
    def __array_finalize__(self, source):
        self.tag = getattr(source, "tag", None)


class Node:
    def __init__(self, value, next=None):
        self.value, self.next = value, next


def tagged():
    made = np.arange(3).view(Tagged)
    made.tag = "t"
    return made


def chain(length):
    node = None
    for value in range(length):
        node = Node(value, node)
    return node


def length_of(node):
    count = 0
    while node is not None:
        node, count = node.next, count + 1
    return count


def unchanged(pmap, *values):
    """Assert that *values* come back equal, and of their own classes."""
    same(pmap, lambda value: value, values)


def case_numbers_and_text(pmap):
    unchanged(pmap, 1, 1.5, 2j, True, None, ..., NotImplemented, "text", b"bytes", 10**400)
    unchanged(pmap, decimal.Decimal("1.10"), fractions.Fraction(1, 3), range(5), slice(1, 2))


def case_containers(pmap):
    unchanged(pmap, [1, [2]], (1, (2,)), {1: {2}}, frozenset({3}), bytearray(b"x"))
    unchanged(
        pmap,
        collections.OrderedDict(a=1),
        collections.Counter("aab"),
        collections.deque([1, 2], maxlen=2),
        collections.ChainMap({1: 2}, {3: 4}),
        collections.UserDict(a=1),
        types.SimpleNamespace(a=1),
        array.array("d", [1.5]),
    )


def case_defaultdict_of_a_lambda(pmap):
    counts = collections.defaultdict(lambda: 7, a=1)

    assert pmap(lambda d: (d["a"], d["b"]), [counts]) == [(1, 7)]


def case_dates(pmap):
    zone = zoneinfo.ZoneInfo("UTC")
    unchanged(
        pmap,
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 1, 1, tzinfo=zone),
        datetime.timedelta(days=1, microseconds=5),
        datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    )


def case_paths_patterns_ids(pmap):
    unchanged(
        pmap,
        pathlib.Path("a/b"),
        pathlib.PurePosixPath("/x"),
        re.compile("a+", re.IGNORECASE),
        uuid.UUID(int=5),
        ipaddress.ip_address("::1"),
    )


def case_arrays(pmap):
    values = [
        np.arange(6).reshape(2, 3),
        np.array([], dtype="f4"),
        np.array(5.0),
        np.asfortranarray(np.ones((2, 2))),
        np.array([{"a": 1}, None], dtype=object),
        np.array([(1, "x")], dtype=[("n", int), ("s", "U1")]),
        np.ma.masked_array([1, 2], mask=[True, False]),
        np.float32(1.5),
        np.dtype("i4"),
        np.datetime64("2024-01-01"),
    ]
    back = pmap(lambda value: value, values)

    for got, value in zip(back, values, strict=True):
        assert type(got) is type(value)
        assert repr(got) == repr(value)
    assert back[3].flags.f_contiguous
    assert [one.flags.writeable for one in back[:2]] == [True, True]


def case_arrays_of_a_class_of_the_user(pmap):
    assert pmap(lambda a: (type(a) is Tagged, a.tag, a.sum()), [tagged()]) == [(True, "t", 3)]
    back = pmap(lambda _: tagged(), [0])[0]
    assert (type(back), back.tag) == (Tagged, "t")


def case_pandas(pmap):
    frame = pd.DataFrame({"a": [1, 2], "b": pd.Categorical(["x", "y"])}, index=["r", "s"])

    assert pmap(lambda f: f.a.sum(), [frame, frame.iloc[:1]]) == [3, 1]
    assert all(got.equals(frame) for got in pmap(lambda f: f, [frame]))
    assert pmap(lambda t: t + pd.Timedelta("1D"), [pd.Timestamp("2024-01-01")]) == [
        pd.Timestamp("2024-01-02")
    ]
    groups = frame.groupby("a").apply(len, include_groups=False)
    assert pmap(lambda s: s.to_dict(), [groups]) == [{1: 1, 2: 1}]


def case_context_variables(pmap):
    token = REQUEST.set("me")
    try:
        assert pmap(lambda _: REQUEST.get(), [0]) == ["me"]
    finally:
        REQUEST.reset(token)
    assert pmap(lambda _: (REQUEST.get(), UNSET.get("unset")), [0]) == [("nobody", "unset")]
    assert pmap(lambda variable: variable is REQUEST, [REQUEST]) == [True]


def case_context_variables_set_in_a_task_stay_there(pmap):
    def use(x):
        before = REQUEST.get()
        REQUEST.set(x)
        return before

    assert pmap(use, ["a"]) == ["nobody"]
    assert pmap(lambda _: REQUEST.get(), [0, 0, 0, 0]) == ["nobody"] * 4


def case_contexts(pmap):
    context = contextvars.Context()
    context.run(REQUEST.set, "inside")

    assert pmap(lambda c: c.run(REQUEST.get), [context]) == ["inside"]


def case_weak_references(pmap):
    node = Node(1)
    pair = [node, weakref.ref(node), weakref.proxy(node)]

    assert pmap(lambda p: (p[1]() is p[0], p[2].value), [pair]) == [(True, 1)]
    assert pmap(lambda _: weakref.ref(node)() is node, [0]) == [True]
    alone = weakref.ref(node)
    assert pmap(lambda _: alone().value, [0]) == [1]


def case_dead_weak_references(pmap):
    dead = weakref.ref(Node(1))

    assert pmap(lambda reference: reference(), [dead]) == [None]


def case_weak_collections(pmap):
    nodes = [Node(1), Node(2)]
    values = weakref.WeakValueDictionary({one.value: one for one in nodes})
    keys = weakref.WeakKeyDictionary({one: one.value for one in nodes})
    group = weakref.WeakSet(nodes)

    def looks(item):
        values, keys, group, nodes = item
        return values[1] is nodes[0], keys[nodes[1]], nodes[0] in group, len(group)

    assert pmap(looks, [(values, keys, group, nodes)]) == [(True, 2, True, 2)]


def case_views_show_what_travels_with_them(pmap):
    table = {"a": 1}
    views = [table, types.MappingProxyType(table), table.keys(), table.values(), table.items()]

    def looks(item):
        table, proxy, keys, values, items = item
        table["b"] = 2
        return dict(proxy), list(keys), list(values), list(items)

    expected = {"a": 1, "b": 2}, ["a", "b"], [1, 2], [("a", 1), ("b", 2)]
    assert pmap(looks, [views]) == [expected]


def case_memory_views(pmap):
    def looks(view):
        return view.tobytes(), view.format, view.shape, view.readonly

    views = [
        memoryview(b"abc"),
        memoryview(bytearray(b"abc"))[1:],
        memoryview(array.array("i", [1])),
    ]
    same(pmap, looks, [*views, memoryview(np.ones((2, 3)))])


def case_c_structures(pmap):
    assert pmap(lambda p: (p.x, p.y), [Pixel(1, 2.5)]) == [(1, 2.5)]
    assert pmap(lambda n: (n.port, bytes(n)), [Network(258, (1, 2, 3))]) == [(258, b"\1\2\1\2\3")]
    assert pmap(lambda e: list(e.bytes), [Either(1)]) == [list(Either(1).bytes)]
    back = pmap(lambda x: Pixel(x, 0.5), [3])[0]
    assert (type(back), back.x, back.y) == (Pixel, 3, 0.5)


def case_c_arrays_and_libraries(pmap):
    assert pmap(list, [(ctypes.c_int * 3)(1, 2, 3)]) == [[1, 2, 3]]
    assert pmap(lambda b: b.value, [ctypes.create_string_buffer(b"ab", 8)]) == [b"ab"]
    assert pmap(lambda library: library.abs(-3), [ctypes.CDLL(None)]) == [3]


def case_a_c_structure_that_points_to_itself(pmap):
    class Link(ctypes.Structure):
        pass

    Link._fields_ = [("value", ctypes.c_int), ("next", ctypes.POINTER(Link))]

    def walk(x):
        last = Link(x, None)
        return Link(1, ctypes.pointer(last)).next.contents.value

    assert pmap(walk, [5]) == [5]


def case_cycles(pmap):
    ring = []
    ring.append(ring)
    table = {}
    table["self"] = table
    node = Node(1)
    node.next = node

    assert pmap(lambda r: r[0] is r, [ring]) == [True]
    assert pmap(lambda t: t["self"] is t, [table]) == [True]
    assert pmap(lambda n: n.next is n, [node]) == [True]
    back = pmap(lambda n: n, [node])[0]
    assert back.next is back


def case_shared_within_an_item(pmap):
    shared = [1]

    assert pmap(lambda a, b: a is b, [shared], [shared]) == [True]
    assert pmap(lambda pair: pair[0] is pair[1], [(shared, shared)]) == [True]
    back = pmap(lambda x: (x, x), [shared])[0]
    assert back[0] is back[1]


def case_deep_nesting(pmap):
    assert pmap(length_of, [chain(500), chain(5_000)]) == [500, 5_000]
    assert [length_of(one) for one in pmap(chain, [500, 5_000])] == [500, 5_000]


def case_iterators(pmap):
    iterators = [iter([1, 2]), reversed([1, 2]), iter({1: 2}), zip([1], [2]), map(abs, [-1])]

    assert pmap(list, iterators) == [[1, 2], [2, 1], [1], [(1, 2)], [1]]


def case_streams_in_memory(pmap):
    stream = io.BytesIO(b"abcdef")
    stream.seek(2)

    assert pmap(lambda s: s.read(2), [stream]) == [b"cd"]
    assert pmap(lambda s: s.getvalue(), [io.StringIO("text")]) == ["text"]


def case_free_locks_and_what_is_made_of_them(pmap):
    def use(item):
        lock, rlock, event, condition, semaphore, waiting = item
        with lock, rlock, condition, semaphore:
            waiting.put(2)
            return event.is_set(), waiting.get(), waiting.get()

    waiting = queue.Queue()
    waiting.put(1)
    event = threading.Event()
    event.set()
    parts = threading.Lock(), threading.RLock(), event, threading.Condition(), threading.Semaphore()
    assert pmap(use, [(*parts, waiting)]) == [(True, 1, 2)]


def case_loggers(pmap):
    logger = logging.getLogger("cases")

    assert pmap(lambda one: one.name, [logger]) == ["cases"]
    assert pmap(lambda _: logger is logging.getLogger("cases"), [0]) == [True]


def case_random_state(pmap):
    generator = random.Random(5)
    expected = random.Random(5).random()

    assert pmap(lambda g: g.random(), [generator]) == [expected]
    assert pmap(lambda g: g.integers(10), [np.random.default_rng(5)]) == [
        np.random.default_rng(5).integers(10)
    ]


def case_modules_and_code(pmap):
    unchanged(pmap, operator, types)
    assert pmap(lambda code: eval(code, {"x": 2}), [compile("x + 1", "<text>", "eval")]) == [3]
    same(pmap, lambda form: form.pack(5), [struct.Struct("<i")])


def case_a_module_made_at_run_time(pmap):
    made = types.ModuleType("made_here")
    exec("SCALE = 3\ndef f(x): return SCALE * x", vars(made))

    same(pmap, made.f, range(3))
    assert pmap(lambda x: made.f(x) + made.SCALE, [1]) == [6]


def case_a_binary_file_at_its_position(pmap):
    with open(__file__, "rb") as file:
        file.seek(3)
        expected = file.read(5)
        file.seek(3)

        assert pmap(lambda f: f.read(5), [file]) == [expected]


def case_counters(pmap):
    for counter in (itertools.count(), itertools.count(5), itertools.count(2.5, 0.5)):
        next(counter)
        assert pmap(lambda c: [next(c), next(c)], [counter]) == [[next(counter), next(counter)]]


case_counters.needs_processes = True


def case_files_keep_their_buffering(pmap):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "log")
        with (
            open(path, "a", buffering=1, encoding="utf-8") as lines,
            open(path, "ab", buffering=0) as raw,
            open(path, "a", encoding="latin-1") as through,
            open(path, "ab") as buffered,
            open(path, "rb", buffering=0) as read,
        ):
            through.reconfigure(write_through=True)

            def write(x):
                lines.write(f"line {x}\n")
                raw.write(b"raw\n")
                through.write("through\n")
                with open(path) as again:
                    seen = set(again.read().splitlines())
                return seen, lines.line_buffering, through.write_through, through.encoding

            def kinds(_):
                return [type(file).__name__ for file in (raw, buffered, read)], lines.mode

            assert pmap(write, [7]) == [({"line 7", "raw"}, True, True, "latin-1")]
            assert pmap(kinds, [0]) == [(["FileIO", "BufferedWriter", "FileIO"], "a")]


def case_a_file_that_was_opened_in_another_folder(pmap):
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.mkdir("inner")
        try:
            with open("log", "a", buffering=1) as log:
                os.chdir("inner")
                if os.path.exists("/proc/self/fd"):
                    pmap(lambda x: log.write(f"{x}\n") and log.flush(), [1])
                    assert os.listdir() == []
                    with open("../log") as written:
                        assert written.read() == "1\n"
        finally:
            os.chdir(before)


if __name__ == "__main__":
    main(globals())
