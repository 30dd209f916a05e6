"""Every workload over every peer that is installed, in one run: who is faster, and by how much.

    make bench                                            all of it, as docs/explanation shows it
    python benchmarks/bench.py --only W1a W7b --peers parallel_facade loky
    python benchmarks/bench.py --short                    a smoke test: it runs, and is right

Peers take turns within each round (A B C, A B C, ...), so that whatever else the machine does hits
all of them. What is compared are medians within this run; absolute seconds are of this machine.
"""

from __future__ import annotations

import argparse
import json
import selectors
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measurement import Measured
from peers import OURS, PEERS, installed
from report import write
from workloads import workloads

HERE = Path(__file__).parent
ROUNDS = 7
WORKERS = 2
SHORT_SCALE = 0.01
BUDGET = 6.0
"""Seconds for one peer and workload; one that needs longer is measured in fewer rounds."""
PATIENCE = 20.0
"""Seconds after which a peer is taken to hang, and started anew."""

COLD = {
    OURS: "from parallel_facade import pmap; pmap(abs, [1, 2], workers={workers})",
    f"{OURS}, fork": (
        "from parallel_facade import Pool\n"
        "with Pool(workers={workers}, start_method='fork') as pool: pool.pmap(abs, [1, 2])"
    ),
    "multiprocessing.Pool": (
        "import multiprocessing\n"
        "with multiprocessing.get_context('fork').Pool({workers}) as pool: pool.map(abs, [1, 2])"
    ),
    "ProcessPoolExecutor": (
        "from concurrent.futures import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor({workers}) as pool: list(pool.map(abs, [1, 2]))"
    ),
    "loky": (
        "from loky import get_reusable_executor\n"
        "list(get_reusable_executor({workers}).map(abs, [1, 2]))"
    ),
    "joblib": (
        "from joblib import Parallel, delayed\nParallel({workers})(delayed(abs)(x) for x in [1, 2])"
    ),
}
"""Programs that do one small map: import, workers, result, end."""


class PeerProcess:
    """The process of one peer, started when it is first asked."""

    def __init__(self, name: str, workers: int, scale: float) -> None:
        self.name = name
        self._arguments = [name, str(workers), str(scale)]
        self._process: subprocess.Popen[str] | None = None

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return its answer."""
        if self._process is None:
            command = [sys.executable, str(HERE / "peer_process.py"), *self._arguments]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
            )
        assert self._process.stdin is not None, "it has a pipe"
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._line(self._process)
        if not line:
            self.close()
            return {"error": f"it did not answer within {PATIENCE:.0f} seconds, or died"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None, "it has a pipe"
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            return process.stdout.readline() if selector.select(PATIENCE) else ""

    def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def compare(name: str, title: str, peers: list[PeerProcess], rounds: int) -> list[Measured]:
    """Return what each of *peers* needed, in interleaved rounds after one that is not counted."""
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    why_not: dict[str, str] = {}
    spent = dict.fromkeys(times, 0.0)
    for number in range(rounds + 1):
        for peer in peers:
            if peer.name in why_not or (spent[peer.name] > BUDGET and times[peer.name]):
                continue
            answer = peer.ask(workload=name)
            if "error" in answer:
                why_not[peer.name] = answer["error"]
                continue
            spent[peer.name] += answer["seconds"]
            if number:
                times[peer.name].append(answer["seconds"])
    return [Measured(name, title, peer, times[peer], why_not.get(peer, "")) for peer in times]


def cold_starts(names: list[str], rounds: int, workers: int) -> list[Measured]:
    """Return how long whole programs take that do one small map."""
    programs = {name: code for name, code in COLD.items() if name.partition(",")[0] in names}
    times: dict[str, list[float]] = {name: [] for name in programs}
    limit = []
    for number in range(rounds + 1):
        for name, code in [*programs.items(), ("", "")]:
            began = time.perf_counter()
            # -P: what is installed, and not what lies in the working directory.
            subprocess.run([sys.executable, "-P", "-c", code.format(workers=workers)], check=True)
            taken = time.perf_counter() - began
            if number:
                (times[name] if name else limit).append(taken)
    title = "a program that does one small map"
    return [
        *(Measured("W9", title, name, times[name]) for name in programs),
        Measured("W9", title, "limit: an empty program", limit),
    ]


def memory(peers: list[PeerProcess], count: int) -> dict[str, Any]:
    """Return by how many bytes a lazy map over *count* items raises each caller's peak."""
    found = {}
    for peer in peers:
        peer.close()  # so that it has had no peak yet
        found[peer.name] = peer.ask(memory=count).get("bytes")
    return found


def with_bare_processes(scale: float, rounds: int, workers: int) -> dict[str, list[float]]:
    """Return the seconds for the work of W10 in so many forked processes without a library."""
    limit = PeerProcess("limit", workers, scale)
    found = {
        name: [limit.ask(workload=name, bare=True)["seconds"] for _ in range(rounds)]
        for name in ("W10a", "W10b")
        if any(one.name == name for one in workloads(scale))
    }
    limit.close()
    return found


def growth(name: str, scale: float, rounds: int) -> dict[str, Any]:
    """Return the seconds of the peer *name* by number of items, and by number of workers."""
    sizes = [max(2, round(size * scale)) for size in (1_000, 10_000, 100_000, 1_000_000)]
    by_items: dict[int, float] = {}
    peer = PeerProcess(name, WORKERS, scale)
    for size in sizes:
        laps = [peer.ask(items=size)["seconds"] for _ in range(rounds)]
        by_items[size] = statistics.median(laps)
    peer.close()
    by_workers: dict[int, float] = {}
    for workers in (1, 2, 4, 8, 16):
        peer = PeerProcess(name, workers, scale)
        laps = [peer.ask(items=sizes[2])["seconds"] for _ in range(rounds)]
        by_workers[workers] = statistics.median(laps)
        peer.close()
    return {"items": by_items, "workers": by_workers}


def main() -> None:
    """Measure, print and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", help="names of workloads")
    parser.add_argument("--peers", nargs="+", help=", ".join(peer.name for peer in PEERS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--short", action="store_true", help="a hundredth of the items, two rounds")
    parser.add_argument("--out", type=Path, help="a folder for the table, the figures and plots")
    chosen = parser.parse_args()
    rounds = 2 if chosen.short else chosen.rounds
    scale = SHORT_SCALE if chosen.short else 1.0
    names = [name for name in installed() if chosen.peers is None or name in chosen.peers]
    peers = [PeerProcess(name, chosen.workers, scale) for name in [*names, "limit"]]
    measured: list[Measured] = []
    more: dict[str, Any] = {}
    for workload in workloads(scale):
        if not chosen.only or workload.name in chosen.only:
            found = compare(workload.name, workload.title, peers, rounds)
            found[-1] = found[-1]._replace(peer=f"limit: {workload.limit_name}")
            measured += found
            print_row(found)
            if chosen.out is not None:  # so that a run that is cut short is not lost
                write(chosen.out, measured, more, rounds, chosen.workers)
    if not chosen.only or "W10" in chosen.only:
        more["bare processes"] = with_bare_processes(scale, rounds, chosen.workers)
        print("\nW10 in bare processes", more["bare processes"], flush=True)
    if not chosen.only or "W8" in chosen.only:
        more["memory"] = memory(peers[:-1], round(1_000_000 * scale))
        print("\nbytes by which the caller's peak grows in W8", more["memory"], flush=True)
    for peer in peers:
        peer.close()
    if not chosen.only or "W9" in chosen.only:
        found = cold_starts(names, rounds, chosen.workers)
        measured += found
        print_row(found)
    if not chosen.only or "W11" in chosen.only:
        more["growth"] = {name: growth(name, scale, min(rounds, 3)) for name in names[:2]}
        print("\nW11 growth", more["growth"], flush=True)
    if chosen.out is not None:
        write(chosen.out, measured, more, rounds, chosen.workers)
    wrong = [one for one in measured if one.peer == OURS and one.why_not]
    if wrong:
        sys.exit(f"{OURS} failed: {wrong}")


def print_row(found: list[Measured]) -> None:
    """Print one workload: ours, and each other as a ratio to it."""
    ours = next((one for one in found if one.peer == OURS and one.seconds), None)
    print(f"\n{found[0].workload}  {found[0].title}", flush=True)
    for one in sorted(found, key=lambda one: one.median if one.seconds else float("inf")):
        if not one.seconds:
            print(f"  {one.peer:<44} {one.why_not}")
            continue
        ratio = "" if ours is None else f"{one.median / ours.median:10.2f} × ours"
        spread = f"{min(one.seconds) * 1e3:.2f} to {max(one.seconds) * 1e3:.2f}"
        print(f"  {one.peer:<44}{one.median * 1e3:10.2f} ms{ratio}   {spread}", flush=True)


if __name__ == "__main__":
    main()
