"""Long use on real pools: what was there before is there after, and memory stays flat.

    python tests/endurance.py --methods fork forkserver spawn

Prints a row for each kind of use, and fails if anything was left behind, or if a lazy map held
more than its bound. The short form is tests/processes/test_resources.py.
"""

import argparse
import gc
import itertools
import sys
import tracemalloc
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # where this folder's modules are found

from leftovers import Resources  # noqa: E402

from parallel_facade import Pool, config, imap, pmap  # noqa: E402

ITEMS = 1_000_000
CALLS = 10_000
POOLS = 1_000
KEPT_BYTES = 256 << 10
"""What is in flight, and caches of the interpreter, may differ by this much; one object kept for
each of the 10,000 calls would be more."""


class Uses:
    """What is done again and again, on one start method."""

    def calls(method, count):
        """Eager, lazy and single calls on one pool."""
        with Pool(workers=2, start_method=method) as pool:
            for _ in range(count // 3 + 1):
                assert pool.pmap(lambda x: [x], range(4), chunksize=2) == [[0], [1], [2], [3]]
                assert pool.apply_async(lambda: 1).get() == 1
                assert next(pool.imap(abs, itertools.count())) == 0

    def maps(method, count):
        """Eager maps on the shared pool."""
        for _ in range(count):
            assert pmap(lambda x: x, range(4), chunksize=2) == [0, 1, 2, 3]

    def pools(method, count):
        """Pools that are opened, used and closed."""
        for _ in range(count):
            with Pool(workers=1, start_method=method) as pool:
                assert pool.pmap(abs, [-1]) == [1]

    def items(method, count, bound=4_000):
        """Items of one lazy map, whose bound is exact."""
        pulled = 0

        def numbers():
            nonlocal pulled
            while True:
                pulled += 1
                yield pulled

        results = imap(lambda x: x, numbers(), buffersize=bound, chunksize=500)
        for taken in range(1, count + 1):
            assert next(results) == taken
            assert pulled - taken <= bound
        results.close()


COUNTS = {"calls": CALLS, "maps": CALLS, "pools": POOLS, "items": ITEMS}


def endure(kind, method, count):
    """Use it *count* times; return what was added, and the bytes that memory has grown by."""
    use = vars(Uses)[kind]
    use(method, count // 20)  # what is imported or cached once stays
    before = Resources()
    tracemalloc.start()
    use(method, count // 20)
    gc.collect()
    bytes_before, _ = tracemalloc.get_traced_memory()
    use(method, count)
    gc.collect()
    bytes_after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Resources().added_to(before), bytes_after - bytes_before


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["fork", "forkserver", "spawn"])
    parser.add_argument("--kinds", nargs="+", default=list(COUNTS), choices=COUNTS)
    parser.add_argument("--share", type=float, default=1.0, help="of the calls, pools and items")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)  # of forking beside threads
    failed = False
    for method, kind in itertools.product(chosen.methods, chosen.kinds):
        with config(workers=2, start_method=method):
            added, grown = endure(kind, method, int(COUNTS[kind] * chosen.share))
        failed |= bool(added) or grown > KEPT_BYTES
        print(f"{method:<12}{COUNTS[kind]:>9} {kind:<6} grew by {grown:>8} bytes; left: {added}")
        sys.stdout.flush()
    sys.exit(failed)


if __name__ == "__main__":
    main()
