"""The picture of a timeline: a lane for the caller, and a lane for each worker."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from parallel_facade._dispatch.call_trace import CallTrace
from parallel_facade._tracing.analysis import (
    REBUILD,
    RETURN,
    RUN,
    SEND,
    SERIALIZE,
    TAKE,
    divided,
    labels_of,
    spans_of,
)
from parallel_facade._worker.timings import UNPACK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS: Final = {
    RUN: "#3a7d44",
    SERIALIZE: "#c8553d",
    SEND: "#e9b44c",
    REBUILD: "#7f95d1",
    RETURN: "#9b5de5",
    TAKE: "#577590",
}
"""Blank time is idle time."""

LANE_INCHES: Final = 0.35
MOST_LANES: Final = 64


def plot(calls: list[CallTrace], began: float, advice: str) -> Figure:
    """Return the picture of *calls* of a timeline that began at *began*, with *advice* below."""
    from matplotlib.figure import Figure

    spans = spans_of(calls)
    lanes = {"caller": _caller(calls)}
    for lane, label in list(labels_of(spans).items())[:MOST_LANES]:
        lanes[label] = list(divided(spans[lane]))
    figure = Figure(figsize=(9, 1.6 + LANE_INCHES * len(lanes)), layout="constrained")
    axes = figure.subplots()
    for place, drawn in enumerate(lanes.values()):
        for what, bars in _by_kind(drawn, began).items():
            axes.broken_barh(bars, (place - 0.4, 0.8), color=COLOURS[what], linewidth=0)
    _label(axes, list(lanes))
    figure.supxlabel(advice, fontsize=9, wrap=True)
    return figure


def _caller(calls: list[CallTrace]) -> list[Any]:
    return [
        (TAKE if step.what == UNPACK else SERIALIZE, step.began, step.ended)
        for call in calls
        for step in call.steps
    ]


def _by_kind(drawn: list[Any], zero: float) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for what, began, ended in drawn:
        if ended > began:
            found[what].append((began - zero, ended - began))
    return found


def _label(axes: Any, names: list[str]) -> None:
    from matplotlib.patches import Patch

    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        handles=[Patch(color=colour, label=what) for what, colour in COLOURS.items()],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(COLOURS),
        frameon=False,
    )
