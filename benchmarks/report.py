"""Writes what was measured: a Markdown table, a JSON file with versions and machine, and a plot."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from peers import OURS

if TYPE_CHECKING:
    from typing import Any

    from measurement import Measured

PACKAGES = ("parallel-facade", "joblib", "loky", "pathos", "mpire", "pebble", "distributed", "ray",
            "numpy", "scipy")  # fmt: skip


def write(
    folder: Path, measured: list[Measured], more: dict[str, Any], rounds: int, workers: int
) -> None:
    """Write ``table.md``, ``figures.json``, ``ratios.png`` and ``growth.png`` into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "workers": workers,
        "rounds": rounds,
        "versions": {name: _version(name) for name in PACKAGES},
    }
    figures = {"machine": machine, "measured": [one._asdict() for one in measured], **more}
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (folder / "table.md").write_text(table(measured))
    if importlib.util.find_spec("matplotlib") is not None:
        plot(folder / "ratios.png", measured)
        if "growth" in more:
            plot_growth(folder / "growth.png", more["growth"])


def slope(by_size: dict[int, float]) -> float:
    """Return the exponent of growth, as fitted through the logarithms; 1 is in proportion."""
    points = [(math.log(size), math.log(seconds)) for size, seconds in by_size.items()]
    mean_x, mean_y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x, _ in points)


def plot_growth(path: Path, growth: dict[str, Any]) -> None:
    """Draw the time per item by the number of items, and the time by the number of workers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for peer, found in growth.items():
        items, workers = found["items"], found["workers"]
        label = f"{peer}: items to the power of {slope(items):.2f}"
        left.plot(list(items), [s / n * 1e6 for n, s in items.items()], "o-", label=label)
        right.plot(list(workers), [s * 1e3 for s in workers.values()], "o-", label=peer)
    left.set(xscale="log", yscale="log", xlabel="items", ylabel="microseconds per item")
    right.set(xlabel="workers", ylabel="milliseconds for 100,000 items")
    left.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def table(measured: list[Measured]) -> str:
    """Return a Markdown table: milliseconds for us, ratios for the others."""
    peers = list(dict.fromkeys(one.peer for one in measured if not one.peer.startswith("limit")))
    lines = [
        "| workload | " + " | ".join(peers) + " | limit |",
        "|---" * (len(peers) + 2) + "|",
    ]
    for name in dict.fromkeys(one.workload for one in measured):
        row = {one.peer: one for one in measured if one.workload == name}
        limits = [one for peer, one in row.items() if peer.startswith("limit")]
        cells = [_cell(row.get(peer), row.get(OURS)) for peer in peers]
        title = next(iter(row.values())).title
        limit = _cell(limits[0], row.get(OURS)) + limits[0].peer[6:] if limits else ""
        lines.append(f"| {name} {title} | " + " | ".join(cells) + f" | {limit} |")
    return "\n".join(lines) + "\n"


def _cell(one: Measured | None, ours: Measured | None) -> str:
    if one is None or not one.seconds:
        return "–"
    if one is ours or ours is None or not ours.seconds:
        spread = (max(one.seconds) - min(one.seconds)) / one.median / 2
        return f"{one.median * 1e3:.3g} ms ± {spread:.0%}"
    return f"{one.median / ours.median:.2f} ×"


def plot(path: Path, measured: list[Measured]) -> None:
    """Draw each peer's time as a ratio to ours."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(one.workload for one in measured))
    ours = {one.workload: one.median for one in measured if one.peer == OURS and one.seconds}
    figure = Figure(figsize=(9, 0.55 * len(names) + 1.5), layout="constrained")
    axes = figure.subplots()
    for peer in dict.fromkeys(one.peer for one in measured if not one.peer.startswith("limit")):
        points = [
            (one.median / ours[one.workload], names.index(one.workload))
            for one in measured
            if one.peer == peer and one.seconds and one.workload in ours
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o", label=peer, alpha=0.8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("time, as a multiple of ours (left of the line: faster than we are)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=120)
