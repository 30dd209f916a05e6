"""What the script registers with modules holds in tasks."""

import collections.abc
import copyreg
import functools
import numbers
import random

import helpers
from runner import main

from parallel_facade import explain


class Num:
    def __init__(self, value=1):
        self.value = value


class Rows:
    def __len__(self):
        return 3

    def __getitem__(self, at):
        return [1, 2, 3][at]


class Reduced:
    def __init__(self, value):
        self.value = value


@helpers.kind.register
def _(x: Num):
    return "num"


@helpers.kind.register(int)
def _(x):
    return "int"


def rebuilt(value):
    return Reduced(value + 100)


helpers.Shape.register(Num)
helpers.Shape.register(int)
collections.abc.Sequence.register(Rows)
numbers.Real.register(Num)
copyreg.pickle(Reduced, lambda one: (rebuilt, (one.value,)))


def case_dispatch_on_a_class_of_the_script(pmap):
    assert pmap(lambda _: helpers.kind(Num()), [0, 1]) == ["num", "num"]
    assert pmap(helpers.kind, [Num(), "x"]) == ["num", "obj"]


def case_dispatch_on_a_built_in_class(pmap):
    assert pmap(lambda x: helpers.kind(x), [3, "x"]) == ["int", "obj"]


def case_dispatch_inside_a_module(pmap):
    assert pmap(helpers.describe, [Num(), 3, "x"]) == [("num", True), ("int", True), ("obj", False)]


def case_dispatch_again_in_the_next_call(pmap):
    for _ in range(2):
        assert pmap(lambda _: helpers.kind(Num()), [0, 1]) == ["num", "num"]


def case_a_virtual_subclass_of_a_class_of_a_module(pmap):
    assert pmap(lambda x: isinstance(x, helpers.Shape), [Num(), "x"]) == [True, False]
    assert pmap(lambda _: issubclass(Num, helpers.Shape), [0]) == [True]


def case_a_built_in_class_as_virtual_subclass(pmap):
    assert pmap(lambda x: isinstance(x, helpers.Shape), [3, 3.0]) == [True, False]


def case_a_virtual_subclass_of_the_standard_library(pmap):
    assert pmap(lambda x: isinstance(x, collections.abc.Sequence), [Rows(), 3]) == [True, False]
    assert pmap(lambda x: isinstance(x, numbers.Real), [Num(), "x"]) == [True, False]


def case_what_the_standard_library_asks_itself(pmap):
    assert pmap(lambda rows: len(random.sample(rows, 2)), [Rows()]) == [2]


def case_a_reducer_of_copyreg(pmap):
    (back,) = pmap(lambda one: one, [Reduced(1)])

    assert type(back) is Reduced
    assert back.value == 201  # there and back


case_a_reducer_of_copyreg.needs_processes = True


def case_a_reducer_for_results(pmap):
    assert [one.value for one in pmap(lambda x: Reduced(x), [1, 2])] == [101, 102]


case_a_reducer_for_results.needs_processes = True


def case_who_registers_nothing_pays_nothing(pmap):
    class Free:
        pass

    assert explain(Free).size < 1500
    assert pmap(lambda _: helpers.kind(Free()), [0]) == ["obj"]


@functools.singledispatch
def sides(_):
    return 0


class Square:
    pass


@sides.register
def _(_: Square):
    return 4


def case_a_dispatcher_of_the_script_itself(pmap):
    assert pmap(lambda x: sides(x), [Square(), 1]) == [4, 0]


if __name__ == "__main__":
    main(globals())
