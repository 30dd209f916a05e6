"""Lambdas: default and keyword-only arguments, nesting, in containers, with globals."""

import math
import operator

from runner import main, same

FACTOR = 3
TABLE = {"square": lambda x: x * x, "cube": lambda x: x**3}
double = lambda x: 2 * x  # noqa: E731


def case_plain(pmap):
    same(pmap, lambda x: x + 1, range(5))


def case_reads_a_global(pmap):
    same(pmap, lambda x: x * FACTOR, range(5))


def case_of_the_module(pmap):
    same(pmap, double, range(5))


def case_default_arguments(pmap):
    same(pmap, lambda x, step=10, *rest: x + step + len(rest), range(3))


def case_keyword_only_defaults(pmap):
    same(pmap, lambda x, *, scale=4: x * scale, range(3))


def case_default_is_a_lambda(pmap):
    same(pmap, lambda x, then=lambda y: -y: then(x), range(3))


def case_returns_a_lambda(pmap):
    made = pmap(lambda x: lambda y: x + y, range(3))

    assert [function(10) for function in made] == [10, 11, 12]


def case_in_a_list_that_is_closed_over(pmap):
    steps = [lambda x: x + 1, lambda x: x * 2]

    same(pmap, lambda x: [step(x) for step in steps], range(3))


def case_in_a_dictionary_of_the_module(pmap):
    same(pmap, lambda name: TABLE[name](3), sorted(TABLE))


def case_made_in_a_loop(pmap):
    functions = [lambda x, power=power: x**power for power in range(4)]

    assert [pmap(function, [2, 3]) for function in functions] == [[1, 1], [2, 3], [4, 9], [8, 27]]


def case_as_items(pmap):
    same(pmap, lambda function: function(4), [lambda x: x, lambda x: x * FACTOR, math.sqrt, double])


def case_immediately_called_and_conditional(pmap):
    same(pmap, lambda x: (lambda y: y if y % 2 else -y)(x), range(4))


def case_with_comprehensions(pmap):
    same(pmap, lambda n: {k: [FACTOR * i for i in range(k)] for k in range(n)}, range(4))


def case_that_calls_itself_by_its_global_name(pmap):
    same(pmap, factorial, range(6))


factorial = lambda n: 1 if n < 2 else operator.mul(n, factorial(n - 1))  # noqa: E731

if __name__ == "__main__":
    main(globals())
