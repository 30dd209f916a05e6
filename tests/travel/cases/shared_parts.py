"""An item that is part of the callable's object is that object in the task."""

import functools

import helpers
import numpy as np
from runner import main

from parallel_facade import Pool, apply_async, imap


class Node:
    def __init__(self, name):
        self.name = name
        self.links = []


class Slotted:
    __slots__ = ("value",)


class Graph:
    def __init__(self):
        self.nodes = [Node(name) for name in range(5)]
        self.depths = {node: depth for depth, node in enumerate(self.nodes)}
        self.rows = [[1], [2], [1]]
        for node in self.nodes:
            node.links = self.nodes

    def depth(self, node):
        return self.depths[node]

    def row(self, row):
        return [one is row for one in self.rows].index(True)

    def pair(self, a, b):
        return a is self.nodes[b.name] and b in self.depths


def case_nodes_of_a_graph(pmap):
    graph = Graph()

    assert pmap(graph.depth, graph.nodes) == [0, 1, 2, 3, 4]
    assert pmap(lambda node: node is graph.nodes[0], graph.nodes) == [True, *[False] * 4]
    assert pmap(lambda node: node.links is graph.nodes, graph.nodes) == [True] * 5


def case_containers_of_the_callable(pmap):
    graph = Graph()
    tables = [{"a": 1}, {"a": 1}]

    assert pmap(graph.row, graph.rows) == [0, 1, 2]
    assert pmap(lambda one: [one is table for table in tables].index(True), tables) == [0, 1]


def case_several_arguments(pmap):
    graph = Graph()

    assert pmap(graph.pair, graph.nodes, graph.nodes) == [True] * 5
    assert pmap(lambda row, _: row is graph.rows[0], graph.rows, graph.nodes) == [
        True,
        False,
        False,
    ]


def case_deep_in_an_item(pmap):
    graph = Graph()
    items = [{"k": [(0, node)]} for node in graph.nodes]

    assert pmap(lambda item: graph.depths[item["k"][0][1]], items) == [0, 1, 2, 3, 4]


def case_a_sentinel_in_a_closure(pmap):
    missing = object()

    assert pmap(lambda x: x is missing, [1, missing, None]) == [False, True, False]


def case_a_sentinel_in_a_partial(pmap):
    missing = Node("missing")

    def default(mark, x):
        return "none" if x is mark else x

    assert pmap(functools.partial(default, missing), [1, missing]) == [1, "none"]


def case_objects_with_slots(pmap):
    known = [Slotted(), Slotted()]

    assert pmap(lambda one: [one is x for x in known].index(True), known) == [0, 1]


def case_objects_of_a_module(pmap):
    known = [helpers.Wrapper(1), helpers.Wrapper(2)]

    assert pmap(lambda one: [one is x for x in known].index(True), known) == [0, 1]


def case_a_lazy_map(pmap):
    graph = Graph()
    options = {**pmap.keywords}

    assert list(imap(graph.depth, iter(graph.nodes), **options)) == [0, 1, 2, 3, 4]
    assert list(imap(graph.row, (row for row in graph.rows), **options)) == [0, 1, 2]


def case_what_was_changed_meanwhile_is_sent_as_it_is(pmap):
    graph = Graph()

    def renamed():
        for node in graph.nodes:
            node.name += 100
            yield node
        for row in graph.rows:
            row.append(7)
            yield row

    def look(one):
        return one.name if isinstance(one, Node) else (len(graph.rows), one)

    found = list(imap(look, renamed(), **pmap.keywords))
    assert found == [100, 101, 102, 103, 104, (3, [1, 7]), (3, [2, 7]), (3, [1, 7])]


class Holder:
    def __init__(self):
        self.inner = Node("inner")
        self.table = {"a": [0]}
        self.array = np.zeros(3)
        self.slotted = Slotted()
        self.slotted.value = 0


def case_what_was_changed_inside_is_sent_as_it_is(pmap):
    holder = Holder()
    lazily = functools.partial(imap, **pmap.keywords)

    def changing(change, item):
        for number in range(1, 4):
            change(number)
            yield item

    def set_inner(number):
        holder.inner.name = number

    def set_slot(number):
        holder.slotted.value = number

    def set_table(number):
        holder.table["a"].append(number)

    def set_array(number):
        holder.array[:] = number

    def name(one):
        return (one is holder, one.inner.name)

    assert list(lazily(name, changing(set_inner, holder))) == [(False, n) for n in (1, 2, 3)]
    look = lambda one: (one is holder.slotted, one.value)  # noqa: E731
    assert list(lazily(look, changing(set_slot, holder.slotted))) == [
        (False, 1),
        (False, 2),
        (False, 3),
    ]
    look = lambda one: (one is holder.table, one["a"][1:])  # noqa: E731
    assert list(lazily(look, changing(set_table, holder.table))) == [
        (False, [1]),
        (False, [1, 2]),
        (False, [1, 2, 3]),
    ]
    look = lambda one: (one is holder.array, one.sum())  # noqa: E731
    assert list(lazily(look, changing(set_array, holder.array))) == [
        (False, 3),
        (False, 6),
        (False, 9),
    ]


case_what_was_changed_inside_is_sent_as_it_is.needs_processes = True


def case_what_was_not_changed_is_one_object_beside_what_was(pmap):
    holder, missing, seen = Holder(), object(), []

    def changing():
        for one in (holder.slotted, missing, holder.inner, holder.table):
            seen.append(one)
            yield one

    def look(one, seen_now):
        known = [holder.slotted, missing, holder.inner, holder.table]
        return [one is x for x in known].index(True), len(seen_now), seen_now is seen

    found = list(imap(look, changing(), [seen] * 4, **pmap.keywords))
    assert found == [(0, 1, False), (1, 2, False), (2, 3, False), (3, 4, False)]


case_what_was_not_changed_is_one_object_beside_what_was.needs_processes = True


def case_an_object_that_now_holds_another_mark(pmap):
    waiting, done = object(), object()
    job = Node(waiting)

    def ending():
        yield job
        job.name = done
        yield job

    look = lambda one: (one.name is waiting, one.name is done)  # noqa: E731
    assert list(imap(look, ending(), **pmap.keywords)) == [(True, False), (False, True)]


case_an_object_that_now_holds_another_mark.needs_processes = True


def case_what_the_consumer_changes(pmap):
    graph = Graph()
    results = imap(
        lambda node: (node is graph.nodes[node.links.index(node)], node.name),
        graph.nodes,
        **{**pmap.keywords, "buffersize": 1, "chunksize": 1},
    )

    assert next(results) == (True, 0)
    graph.nodes[4].name = "other"
    found = list(results)
    assert [name for _, name in found] == [1, 2, 3, "other"]


case_what_the_consumer_changes.needs_processes = True


class WithASetter:
    def __init__(self):
        self.value = 0

    def __reduce__(self):
        return WithASetter, (), {"value": self.value}, None, None, give_value


def give_value(one, state):
    one.value = state["value"]


def case_what_is_given_to_an_object_by_a_function(pmap):
    numbers = [0]
    holder = Node(lambda: list(numbers))
    setter = WithASetter()

    def changing():
        for number in (1, 2):
            numbers[0] = setter.value = number
            yield holder
            yield setter

    def look(one):
        is_part = one is holder or one is setter
        return is_part, one.name() if isinstance(one, Node) else one.value

    found = list(imap(look, changing(), **pmap.keywords))
    assert found == [(False, [1]), (False, 1), (False, [2]), (False, 2)]


case_what_is_given_to_an_object_by_a_function.needs_processes = True


def counter():
    count = 0

    def get():
        nonlocal count
        count += 1
        return count

    return get


CHANGES_OF_AN_ATTRIBUTE = {
    "a cell": (counter, lambda one: one.name(), lambda get: get()),
    "defaults": (
        lambda: lambda values=(1,): list(values),
        lambda one: setattr(one.name, "__defaults__", ([5],)),
        lambda get: get(),
    ),
    "bytes": (lambda: b"a", lambda one: setattr(one, "name", bytearray(b"a")), type),
    "a set": (lambda: {1}, lambda one: setattr(one, "name", {True}), repr),
    "a frozenset": (lambda: frozenset({0}), lambda one: setattr(one, "name", {False}), repr),
}


def case_changes_that_are_easily_missed(pmap):
    for what, (make, change, read) in CHANGES_OF_AN_ATTRIBUTE.items():
        one, other = Node(make()), Node(make())
        change(other)
        expected = read(other.name)

        def changing(one=one, change=change):
            change(one)
            yield one

        found = list(imap(lambda x, read=read, one=one: read(x.name), changing(), **pmap.keywords))
        assert found == [expected], (what, found, expected)


case_changes_that_are_easily_missed.needs_processes = True


def case_an_equal_list_that_is_not_shared_any_more(pmap):
    holder, item = Holder(), Node("item")
    holder.shared = item.own = [1]

    def changing():
        item.own = list(holder.shared)
        yield item

    def add(one):
        holder.shared.append(2)
        return one.own

    assert list(imap(add, changing(), **pmap.keywords)) == [[1]]


case_an_equal_list_that_is_not_shared_any_more.needs_processes = True


def case_marks_that_are_exchanged_between_two_items(pmap):
    waiting, done = object(), object()
    jobs = [Node(waiting), Node(waiting), Node(waiting)]
    for job in jobs:
        job.links = jobs
    results = imap(
        lambda job: (job.name is waiting, job.name is done),
        jobs,
        **{**pmap.keywords, "buffersize": 1, "chunksize": 1},
    )

    assert next(results) == (True, False)
    jobs[2].name = done
    assert list(results)[-1] == (False, True)


case_marks_that_are_exchanged_between_two_items.needs_processes = True


def case_large_arrays_that_were_not_changed(pmap):
    holder = Holder()
    holder.array = np.zeros(1 << 17)
    holder.inner.owner = holder

    found = imap(
        lambda one: (one is holder.inner, one.owner is holder),
        iter([holder.inner]),
        **pmap.keywords,
    )
    assert list(found) == [(True, True)]
    changed = imap(
        lambda one: float(one.owner.array[0]),
        _after(holder.array.fill, 5, holder.inner),
        **pmap.keywords,
    )
    assert list(changed) == [5.0]


def _after(change, value, item):
    change(value)
    yield item


def case_single_calls(pmap):
    graph = Graph()
    backend = pmap.keywords["backend"]

    assert apply_async(graph.depth, (graph.nodes[3],), backend=backend).get(60) == 3
    by_name = apply_async(
        lambda *, row: graph.row(row), kwds={"row": graph.rows[2]}, backend=backend
    )
    assert by_name.get(60) == 2
    with Pool(backend, workers=1) as pool:
        assert [pool.submit(graph.depth, node).result(60) for node in graph.nodes] == [
            0,
            1,
            2,
            3,
            4,
        ]
        assert list(pool.map(graph.depth, graph.nodes)) == [0, 1, 2, 3, 4]


def case_items_that_share_nothing(pmap):
    graph = Graph()
    others = Graph()

    results = pmap(lambda node: node in graph.depths, [*others.nodes, graph.nodes[0]])
    assert results == [False] * 5 + [True]


if __name__ == "__main__":
    main(globals())
