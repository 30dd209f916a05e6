"""A process that does workloads with one peer, one line of JSON for each request.

    bench.py ── {"workload": "W1a"} ──► this process ── {"seconds": 0.024} ──► bench.py

Each peer has a process of its own: several of them fork, and beside the threads of others that ends
in locks that nobody releases.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
import warnings
from typing import Any

from limits import bare_processes
from peers import PEERS, Peer
from workloads import Workload, lazy_sum, square, workloads


def main(name: str, workers: int, scale: float) -> None:
    """Answer requests until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a peer prints is no answer
    warnings.simplefilter("ignore")
    by_name = {one.name: one for one in workloads(scale)}
    peer = None
    if name != "limit":
        peer = next(one for one in PEERS if one.name == name)(workers)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = answered(request, by_name, peer, workers)
        except Exception as exc:
            answer = {"error": f"{type(exc).__name__}: {exc}".splitlines()[0][:100]}
        print(json.dumps(answer), file=answers, flush=True)
    if peer is not None:
        peer.close()


def answered(
    request: dict[str, Any], by_name: dict[str, Workload], peer: Peer | None, workers: int
) -> dict[str, Any]:
    """Return the answer to one request."""
    if "memory" in request:
        assert peer is not None, "a limit has no memory"
        return {"bytes": growth_of_memory(peer, request["memory"])}
    if "items" in request:
        assert peer is not None, "a limit has no growth"
        return {"seconds": timed(peer, request["items"])}
    workload = by_name[request["workload"]]
    if "bare" in request:
        return {"seconds": bare_processes(*workload.inputs(), workers)}
    if peer is None:
        return {"seconds": workload.limit(workers)}
    if workload.has_closure and not peer.carries_closures:
        return {"error": "cannot carry a closure"}
    return {"seconds": lap(workload, peer)}


def lap(workload: Workload, peer: Peer) -> float:
    """Return the seconds that *peer* needs for *workload* once."""
    workload.prepare()
    gc.collect()
    began = time.perf_counter()
    for _ in range(workload.times):
        found = workload.run(peer)
    taken = (time.perf_counter() - began) / workload.times
    if not workload.is_right(found):
        raise AssertionError("the results are wrong")
    return taken


def timed(peer: Peer, count: int) -> float:
    """Return the seconds for a map over *count* tiny items."""
    items = list(range(count))
    gc.collect()
    began = time.perf_counter()
    peer.map(square, items, None)
    return time.perf_counter() - began


def growth_of_memory(peer: Peer, count: int) -> int:
    """Return by how many bytes a lazy map over *count* items raises the peak of this process."""
    lazy_sum(peer, 10)
    before = peak()
    lazy_sum(peer, count)
    return peak() - before


def peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
