"""How long a worker's death takes to be an error, and to be another attempt.

python benchmarks/bench_crash.py
"""

import os
import signal
import statistics
import tempfile
import time
from pathlib import Path

from parallel_facade import Pool

ROUNDS = 40
WORKERS = 2
METHODS = ("fork", "forkserver", "spawn")


def wait_until_whole(pool: Pool) -> None:
    """Wait until every worker is there: the last round has cost one."""
    pids: set[int] = set()
    while len(pids) < WORKERS:
        pids = set(pool.pmap(lambda _: os.getpid(), range(4 * WORKERS), chunksize=1))


def milliseconds_to_error(pool: Pool, note: Path) -> float:
    """Return the time from the death of a worker to the error of its item."""

    def die() -> None:
        note.write_text(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)

    wait_until_whole(pool)
    error = pool.apply_async(die).exception()
    seen = time.monotonic()
    assert error is not None, "a killed worker is an error"
    return (seen - float(note.read_text())) * 1e3


def milliseconds_to_retry(pool: Pool, note: Path) -> float:
    """Return the time from the death of a worker to the next attempt of its item."""
    note.unlink(missing_ok=True)

    def die_once() -> float:
        now = time.monotonic()
        if note.exists():
            return now
        note.write_text(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it was killed")

    wait_until_whole(pool)
    again = pool.apply_async(die_once, retries=1).get()
    return (again - float(note.read_text())) * 1e3


def main() -> None:
    """Print the median, and the slowest, for each start method."""
    print(f"{'milliseconds from death to':<30}{'median':>9}{'slowest':>9}")
    for method in METHODS:
        with (
            tempfile.TemporaryDirectory() as folder,
            Pool(workers=WORKERS, start_method=method) as pool,
        ):
            note = Path(folder, "note")
            for what, measure in (
                ("error", milliseconds_to_error),
                ("next attempt", milliseconds_to_retry),
            ):
                laps = [measure(pool, note) for _ in range(ROUNDS)]
                name = f"{what}, {method}"
                print(f"{name:<30}{statistics.median(laps):9.1f}{max(laps):9.1f}")


if __name__ == "__main__":
    main()
