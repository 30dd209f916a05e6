"""What can be called and is no plain function."""

import contextlib
import functools
import math
import operator
import re
import string

import numpy as np
from runner import main, same


class Power:
    def __init__(self, exponent):
        self.exponent = exponent

    def __call__(self, x):
        return x**self.exponent


class Shop:
    def __init__(self, tax):
        self.tax = tax

    @functools.lru_cache  # noqa: B019
    def cached(self, x):
        return self.tax * x

    @functools.cached_property
    def table(self):
        return {"tax": self.tax}

    def from_table(self, x):
        return self.table["tax"] + x

    def priced(self, price, amount=1):
        return price * amount + self.tax

    dozen = functools.partialmethod(priced, amount=12)

    @functools.singledispatchmethod
    def shown(self, x):
        return f"object {x}"

    @shown.register
    def _(self, x: int):
        return f"int {x + self.tax}"


@functools.lru_cache
def slow_square(x):
    return x * x


@functools.singledispatch
def kind(x):
    return "object"


@kind.register
def _(x: int):
    return "int"


@kind.register(list)
def _(x):
    return ["list", *map(kind, x)]


def traced(function):
    @functools.wraps(function)
    def wrapper(*args):
        wrapper.calls += 1
        return ("traced", function(*args))

    wrapper.calls = 0
    return wrapper


def doubled(function):
    def wrapper(*args):
        return 2 * function(*args)

    return wrapper


@traced
@doubled
def decorated(x):
    return x + 1


@contextlib.contextmanager
def shouting():
    yield


@shouting()
def in_a_context(x):
    return x * 3


def case_instance(pmap):
    same(pmap, Power(3), range(4))


def case_partial(pmap):
    same(pmap, functools.partial(pow, 2), range(4))
    same(pmap, functools.partial(Shop(1).priced, amount=3), range(4))


def case_partial_of_a_partial_of_a_lambda(pmap):
    same(pmap, functools.partial(functools.partial(lambda a, b, c: (a, b, c), 1), 2), range(3))


def case_partialmethod(pmap):
    same(pmap, Shop(5).dozen, range(3))


def case_operators(pmap):
    same(pmap, operator.itemgetter(1, "a"), [{1: 2, "a": 3}])
    same(pmap, operator.attrgetter("real", "imag"), [1 + 2j, 3j])
    same(pmap, operator.methodcaller("split", ","), ["a,b", "c"])
    same(pmap, operator.neg, range(3))


def case_lru_cache(pmap):
    same(pmap, slow_square, [1, 2, 2, 3])


def case_lru_cache_of_a_local_function(pmap):
    offset = 4

    @functools.lru_cache(maxsize=8)
    def f(x):
        return x + offset

    same(pmap, f, [1, 2, 2])


def case_lru_cache_on_a_method(pmap):
    same(pmap, Shop(3).cached, [1, 2, 2])


def case_filled_cached_property(pmap):
    shop = Shop(7)
    assert shop.table

    same(pmap, shop.from_table, range(3))


def case_singledispatch(pmap):
    same(pmap, kind, [1, "a", [1, "b"]])


def case_singledispatch_of_a_local_function(pmap):
    @functools.singledispatch
    def local(x):
        return "any"

    @local.register
    def _(x: str):
        return "text"

    same(pmap, local, ["a", 1])


def case_singledispatchmethod(pmap):
    same(pmap, Shop(10).shown, [1, "a"])


def case_wraps_chain(pmap):
    same(pmap, decorated, range(3))


def case_decorated_local_function(pmap):
    @doubled
    @traced
    def f(x):
        return x

    same(pmap, f, range(3))


def case_context_manager_as_decorator(pmap):
    same(pmap, in_a_context, range(3))


def case_builtins_and_types(pmap):
    for function in (len, sorted, list, str, repr, type):
        same(pmap, function, ["ba", "c"])
    same(pmap, int, ["1", "2"])


def case_c_methods_bound_and_unbound(pmap):
    same(pmap, str.upper, ["a", "b"])
    same(pmap, "-".join, [["a", "b"], ["c"]])
    same(pmap, {"a": 1}.get, ["a", "b"])
    same(pmap, [3, 1, 2].index, [1, 2])
    same(pmap, re.compile("a+").findall, ["aab", "b"])
    same(pmap, math.sqrt, [1, 4])
    same(pmap, dict.fromkeys, ["ab"])
    same(pmap, string.Template("$x!").substitute, [{"x": 1}])


def case_classes(pmap):
    assert [one.exponent for one in pmap(Power, [1, 2])] == [1, 2]
    assert {type(one) for one in pmap(Power, [1, 2])} == {Power}


def case_numpy_functions(pmap):
    same(pmap, np.sqrt, [1.0, 4.0])
    same(pmap, np.add.reduce, [[1, 2], [3, 4]])
    same(pmap, np.float64, [1, 2])


def case_numpy_vectorize(pmap):
    offset = 3
    function = np.vectorize(lambda x: x + offset)

    assert [list(one) for one in pmap(function, [[1, 2], [3]])] == [[4, 5], [6]]


def case_bound_methods_of_arrays(pmap):
    same(pmap, np.arange(10).take, [1, 5])


def case_iterator_tools(pmap):
    same(pmap, functools.partial(functools.reduce, operator.mul), [[1, 2, 3], [4, 5]])
    assert pmap(lambda it: list(it), [map(abs, [-1]), iter([3])]) == [[1], [3]]


def case_a_property_object(pmap):
    same(pmap, property(lambda self: self.exponent).fget, [Power(1), Power(2)])


if __name__ == "__main__":
    main(globals())
