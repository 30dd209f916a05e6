"""Plain data: values that can be compared and sent without further care."""

from __future__ import annotations

import collections
import sys
from typing import Any, Final

PROTOCOL: Final = 5
"""The pickle protocol; with this one, large buffers are not copied a second time."""

ATOMIC_TYPES: Final = frozenset({type(None), bool, int, float, complex, str, bytes, type(...)})
MOST_ELEMENTS: Final = 10_000
"""Most elements that a plain container may have; to check more takes too long."""

_MISSING: Final = object()


def is_plain(value: Any, budget: int = MOST_ELEMENTS) -> bool:
    """Return whether *value* consists only of numbers, strings and built-in containers of them."""
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
        # A container that holds itself uses up the budget.
        left -= len(one) + 1
        if left < 0:
            return False
    return True


COMPARED_WHOLE: Final = frozenset({set, frozenset, collections.deque})
MAPPINGS: Final = frozenset({dict, collections.OrderedDict, collections.Counter})
VALUES: Final = frozenset({"datetime", "decimal", "fractions", "pathlib", "pathlib._local", "uuid"})
"""Standard-library modules whose objects are values, as numbers are."""


def _is_of_standard_library(kind: type) -> bool:
    # By the module's name, so that this check imports none of them.
    return kind.__module__ in VALUES and kind.__module__ in sys.modules


def is_same(value: Any, current: Any) -> bool:
    """Return whether *value* and *current* are the same object, or plain and equal."""
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
