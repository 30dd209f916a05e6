"""Closures: shared and changed cells, empty cells, recursion, `nonlocal`."""

import functools

from runner import main, same


def counter_pair():
    count = 0

    def add(n):
        nonlocal count
        count += n
        return count

    def read(_=None):
        return count

    return add, read


def case_reads_a_cell(pmap):
    offset = 7

    same(pmap, lambda x: x + offset, range(4))


def case_two_functions_share_a_cell(pmap):
    add, read = counter_pair()

    def both(n):
        before = read()
        add(n)
        return read() - before

    assert pmap(both, [1, 2, 3]) == [1, 2, 3]


def case_a_pair_in_one_item_shares_its_cell(pmap):
    def use(pair):
        add, read = pair
        add(5)
        return read()

    assert pmap(use, [counter_pair(), counter_pair()]) == [5, 5]


def case_a_cell_changed_between_calls(pmap):
    value = 1

    def read(_):
        return value

    first = pmap(read, [0, 0])
    value = 2

    assert (first, pmap(read, [0, 0])) == ([1, 1], [2, 2])


def case_a_container_in_a_cell_changed_between_calls(pmap):
    seen = []

    def read(x):
        return (*seen, x)

    first = pmap(read, [1])
    seen.append("new")

    assert (first, pmap(read, [1])) == ([(1,)], [("new", 1)])


def case_an_empty_cell(pmap):
    def use(x):
        try:
            return later
        except NameError:
            return -x

    result = pmap(use, [1, 2])
    later = 0

    assert result == [-1, -2]


def case_a_cell_that_was_deleted(pmap):
    def use(x):
        return x + 1 if x else gone

    gone = 1
    del gone

    assert pmap(use, [1, 2]) == [2, 3]


def case_recursion_through_a_cell(pmap):
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    same(pmap, fibonacci, range(8))


def case_mutual_recursion(pmap):
    def is_even(n):
        return n == 0 or is_odd(n - 1)

    def is_odd(n):
        return n != 0 and is_even(n - 1)

    same(pmap, is_even, range(6))


def case_nonlocal_within_one_item(pmap):
    def sum_of(values):
        total = 0

        def add(value):
            nonlocal total
            total += value

        for value in values:
            add(value)
        return total

    same(pmap, sum_of, [[1, 2], [3, 4]])


def case_defaults_and_keyword_only(pmap):
    base = 100

    def shifted(x, by=base, *, sign=-1):
        return sign * (x + by + base)

    same(pmap, shifted, range(3))


def case_three_levels(pmap):
    def outer(a):
        def middle(b):
            return lambda c: (a, b, c)

        return middle

    same(pmap, outer(1)(2), range(3))


def case_a_function_with_attributes_that_lead_back(pmap):
    def f(x):
        return f.scale * x

    f.scale = 5
    f.itself = f

    same(pmap, f, range(3))


def case_the_late_binding_of_a_loop(pmap):
    functions = [lambda _: n for n in range(3)]

    assert [pmap(function, [0]) for function in functions] == [[2], [2], [2]]


def case_partial_of_a_closure(pmap):
    scale = 3

    def f(a, b):
        return scale * a + b

    same(pmap, functools.partial(f, 10), range(3))


def case_a_class_cell(pmap):
    class Base:
        def name(self):
            return "base"

    class Child(Base):
        def name(self):
            return __class__.__name__ + super().name()

    same(pmap, lambda x: Child().name() * x, range(3))


if __name__ == "__main__":
    main(globals())
