"""What it costs to send things: a heavy bound method against joblib, many instances against pickle.

    python benchmarks/bench_travel.py

Needs joblib. Prints ratios of times measured in one run; each is the best of several rounds.
"""

import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joblib

from parallel_facade import pmap
from parallel_facade._common.call_ids import new_call_id
from parallel_facade._serialization.encoder import Encoder, decode

ROUNDS = 5
INSTANCES = 200_000
ITEMS = 1_000
FEW_ITEMS = 20
"""For joblib, which sends the object again with each task."""
SOURCE = """
from dataclasses import dataclass

@dataclass
class Imported:
    number: int
    value: float
    name: str
"""


@dataclass
class Own:
    """The same dataclass, of the script."""

    number: int
    value: float
    name: str


class Model:
    """Holds about 20 MB of plain lists and dicts."""

    def __init__(self) -> None:
        self.rows = [
            {"key": i, "values": [float(i), i + 1, f"row number {i}"]} for i in range(400_000)
        ]

    def predict(self, x: int) -> int:
        """Return something that needs the data."""
        return x + len(self.rows)


def best(function: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the shortest time of several, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def imported_class() -> type:
    folder = tempfile.mkdtemp()
    (Path(folder) / "bench_imported.py").write_text(SOURCE)
    sys.path.insert(0, folder)
    return __import__("bench_imported").Imported


def instances() -> None:
    imported = imported_class()
    theirs = [imported(i, float(i), "x") for i in range(INSTANCES)]
    ours = [Own(i, float(i), "x") for i in range(INSTANCES)]
    plain = best(lambda: pickle.loads(pickle.dumps(theirs, 5)))
    travel = best(lambda: decode(Encoder(new_call_id(), "dill").encode(ours, "the items")))
    print(
        f"{INSTANCES:,} instances of a dataclass of __main__, against plain pickle of an imported "
        f"one: {plain / travel:.2f} of its speed"
    )


def heavy_method() -> None:
    model = Model()
    size = len(pickle.dumps(model.rows, 5)) / 1e6
    pmap(abs, range(4), workers=2)
    with joblib.Parallel(2) as parallel:
        parallel(joblib.delayed(abs)(x) for x in range(4))
        ours = best(lambda: pmap(model.predict, range(ITEMS), workers=2), 3)
        theirs = best(
            lambda: parallel(joblib.delayed(model.predict)(x) for x in range(FEW_ITEMS)), 1
        )
    print(
        f"a bound method with {size:.0f} MB of plain data over {ITEMS:,} items: "
        f"{ours / theirs:.3f} of what joblib takes for {FEW_ITEMS}"
    )


if __name__ == "__main__":
    instances()
    heavy_method()
