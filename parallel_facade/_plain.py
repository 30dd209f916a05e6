"""Plain data: what is compared and sent without a thought."""

from __future__ import annotations

from typing import Any, Final

ATOMS: Final = frozenset({type(None), bool, int, float, complex, str, bytes, type(...)})
MOST_ELEMENTS: Final = 10_000
"""Elements of a container that is taken for plain; to look at more takes too long."""

_MISSING: Final = object()


def is_plain(value: Any, budget: int = MOST_ELEMENTS) -> bool:
    """Return whether *value* is made of numbers, strings and builtin containers of them alone."""
    stack, left = [value], budget
    while stack:
        one = stack.pop()
        kind = type(one)
        if kind in ATOMS:
            continue
        if kind is dict:
            stack += [*one.keys(), *one.values()] if len(one) <= left else [_MISSING]
        elif kind in {list, tuple, set, frozenset}:
            stack += one if len(one) <= left else [_MISSING]
        else:
            return False
        # A container that holds itself uses the budget up.
        left -= len(one) + 1
        if left < 0:
            return False
    return True


def is_same(value: Any, current: Any) -> bool:
    if value is current:
        return True
    if type(value) is not type(current):
        return False
    if type(value) in ATOMS:
        return bool(value == current)
    if type(value) is dict:
        return value.keys() == current.keys() and all(
            is_same(value[key], current[key]) for key in value
        )
    if type(value) in {list, tuple}:
        return len(value) == len(current) and all(map(is_same, value, current))
    if type(value) in {set, frozenset}:
        return is_plain(value) and is_plain(current) and bool(value == current)
    return False
