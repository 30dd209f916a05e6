"""Holds the outcomes of a map that have come and were not taken.

    outcomes of a chunk ─► spans of values, and failures ─► taken in order of items, or of arrival

A span holds the values of consecutive items in the list that arrived: there is no work per item. A
failure has a span of its own, with the index of its item.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from parallel_facade._worker.outcomes import Failure


class ValueSpan:
    """The values of consecutive items, from item *first* on, or one failure."""

    __slots__ = ("begin", "failure", "first", "values")

    def __init__(self, first: int, values: list[Any], failure: Failure | None = None) -> None:
        self.first = first
        self.values = values
        self.failure = failure
        self.begin = 0
        """How many of the values were taken."""

    def take(self, most: int | None) -> list[Any]:
        """Return the next values, at most *most*."""
        begin = self.begin
        self.begin = len(self.values) if most is None else min(len(self.values), begin + most)
        return self.values if begin == 0 and self.is_taken else self.values[begin : self.begin]

    @property
    def is_taken(self) -> bool:
        """Whether all values were taken."""
        return self.begin == len(self.values)


class ResultBuffer:
    """Keeps spans until they are taken.

    Args:
        ordered: Give outcomes in the order of the items instead of the order of arrival.
    """

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._by_index: dict[int, ValueSpan] = {}
        self._arrived: deque[int] = deque()
        self._begun: ValueSpan | None = None  # a span of which a part was taken
        self._next = 0  # the index of the item to take next, if ordered

    def add(self, first: int, values: list[Any]) -> None:
        """Add the values of consecutive items, from index *first* on."""
        if values:
            self._add(ValueSpan(first, values))

    def add_failure(self, index: int, failure: Failure) -> None:
        """Add the failure of item *index*."""
        self._add(ValueSpan(index, [None], failure))

    def _add(self, span: ValueSpan) -> None:
        self._by_index[span.first] = span
        if not self._ordered:
            self._arrived.append(span.first)

    def take(self, most: int | None = None) -> list[Any] | Failure | None:
        """Return the next values, at most *most*, or a failure; `None` if there is nothing."""
        if (span := self._front()) is None:
            return None
        taken = span.take(most)
        self._next += len(taken)
        self._begun = span
        if span.is_taken:
            self._begun = None
            del self._by_index[span.first]
            if not self._ordered:
                self._arrived.popleft()
        return taken if span.failure is None else span.failure

    def _front(self) -> ValueSpan | None:
        if self._begun is not None:
            return self._begun
        if self._ordered:
            return self._by_index.get(self._next)
        return self._by_index[self._arrived[0]] if self._arrived else None

    @property
    def has_next(self) -> bool:
        """Whether `take` has something to return."""
        return self._front() is not None

    @property
    def next_index(self) -> int | None:
        """The index of the item that must be taken next; `None` if any item may be."""
        return self._next if self._ordered else None

    def __len__(self) -> int:
        """Return how many outcomes there are to take."""
        return sum(len(span.values) - span.begin for span in self._by_index.values())

    def __bool__(self) -> bool:
        """Return whether there are any outcomes to take."""
        return bool(self._by_index)

    def outcomes(self) -> Iterator[tuple[int, Any]]:
        """Yield the index, and the value or failure, of each outcome."""
        for span in self._by_index.values():
            for position in range(span.begin, len(span.values)):
                yield span.first + position, span.failure or span.values[position]
