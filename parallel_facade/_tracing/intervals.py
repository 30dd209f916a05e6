"""Intervals of time, and how much of an interval lies in others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple


class Interval(NamedTuple):
    """The time from *began* to *ended*."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return max(0.0, self.ended - self.began)


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the union of *intervals*, in order, without overlaps."""
    found: list[Interval] = []
    for one in sorted(intervals):
        if found and one.began <= found[-1].ended:
            found[-1] = Interval(found[-1].began, max(found[-1].ended, one.ended))
        else:
            found.append(one)
    return found


def overlap(interval: Interval, covered: list[Interval]) -> float:
    """Return how many seconds of *interval* lie in *covered*, a result of `merged`."""
    place = max(0, bisect_right(covered, interval.began, key=_began) - 1)
    seconds = 0.0
    for one in covered[place:]:
        if one.began >= interval.ended:
            break
        seconds += Interval(max(one.began, interval.began), min(one.ended, interval.ended)).seconds
    return seconds


def _began(interval: Interval) -> float:
    return interval.began
