"""Plain data: what is compared and sent without a thought."""

from __future__ import annotations

import collections
import sys
from typing import Any, Final

PROTOCOL: Final = 5
"""Of pickle; with it, large buffers are not copied once more."""

ATOMIC_TYPES: Final = frozenset({type(None), bool, int, float, complex, str, bytes, type(...)})
MOST_ELEMENTS: Final = 10_000
"""Elements of a container that is taken for plain; to look at more takes too long."""

_MISSING: Final = object()


def is_plain(value: Any, budget: int = MOST_ELEMENTS) -> bool:
    """Return whether *value* is made of numbers, strings and builtin containers of them alone."""
    stack, left = [value], budget
    while stack:
        one = stack.pop()
        kind = type(one)
        if kind in ATOMIC_TYPES or _is_of_standard_library(kind):
            continue
        if kind in MAPPINGS:
            stack += [*one.keys(), *one.values()] if len(one) <= left else [_MISSING]
        elif kind in {list, tuple, set, frozenset, collections.deque}:
            stack += one if len(one) <= left else [_MISSING]
        else:
            return False
        # A container that holds itself uses the budget up.
        left -= len(one) + 1
        if left < 0:
            return False
    return True


COMPARED_WHOLE: Final = frozenset({set, frozenset, collections.deque})
MAPPINGS: Final = frozenset({dict, collections.OrderedDict, collections.Counter})
VALUES: Final = frozenset({"datetime", "decimal", "fractions", "pathlib", "pathlib._local", "uuid"})
"""Modules of the standard library whose objects are values as numbers are."""


def _is_of_standard_library(kind: type) -> bool:
    # By module, so that none of them is imported for the question.
    return kind.__module__ in VALUES and kind.__module__ in sys.modules


def is_same(value: Any, current: Any) -> bool:
    """Return whether *value* and *current* are one object, or plain and equal."""
    kind = type(value)
    if value is current or kind is not type(current):
        return value is current
    if kind in MAPPINGS:
        return value.keys() == current.keys() and all(
            is_same(value[key], current[key]) for key in value
        )
    if kind in {list, tuple}:
        return len(value) == len(current) and all(map(is_same, value, current))
    is_comparable = kind in ATOMIC_TYPES or _is_of_standard_library(kind)
    is_comparable = is_comparable or (kind in COMPARED_WHOLE and is_plain((value, current)))
    return is_comparable and bool(value == current)
