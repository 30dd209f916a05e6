"""Random faults on real pools from several threads, with the outcome of every item checked.

    python tests/chaos.py --faults 2000 --minutes 10 --seed 1

    threads ──maps and calls──► pools of every start method ◄──kills and stops── a stranger
       │                              │
       └─ outcomes ──► Tally ◄── runs ┘     each run of an item appends its name to a file

A run ends when the faults or the minutes are used up. It prints a table, and fails if an item was
lost, had two outcomes or ran twice, if a call did not return, or if anything was left behind.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

sys.path.insert(0, str(Path(__file__).parent))  # where workers find the faults

from faults import FAULTS, Fault, FaultWhenPickled, FaultWhenRebuilt  # noqa: E402
from leftovers import Resources  # noqa: E402

from parallel_facade import Pool, TaskTimeoutError, WorkerCrashedError  # noqa: E402

DEEDS = {
    "value": 60, "large": 4, "kill": 6, "exit": 5, "segfault": 3, "raise": 6, "leave": 2,
    "hang": 2, "stop": 2, "rebuild": 3, "pickle": 3,
}  # fmt: skip
"""What items do, and how often."""

CRASHES = {"kill", "exit", "segfault", "rebuild", "pickle"}
TIMED = {"hang", "stop"}
TASK_TIMEOUT = 1.0
LARGE = 3 << 20
HANG_PATIENCE = 30.0
"""Seconds after which a call that has not returned counts as hung."""


HARMLESS = {"value", "large"}


class Item(NamedTuple):
    """One item: its name, what it does, and where it notes that it ran."""

    name: str
    deed: str
    runs: Path
    payload: object = None


def act(item):
    """Run *item*."""
    with item.runs.open("a") as file:
        file.write(f"{item.name} {time.monotonic()}\n")
    if item.deed in FAULTS:
        FAULTS[item.deed]()
    elif item.deed == "leave":
        sys.exit(3)
    elif item.deed == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif item.deed == "pickle":
        return FaultWhenPickled("kill")
    elif item.deed == "large":
        return bytes(LARGE)
    return item.name


class Tally:
    """What was done and what came of it."""

    def __init__(self):
        self._lock = threading.Lock()  # guards all below
        self.faults = Counter()
        self.outcomes = Counter()
        self.problems = []
        self.latencies = []
        self.names = set()
        self.sent = 0

    def fault(self, kind):
        with self._lock:
            self.faults[kind] += 1

    def send(self, items):
        with self._lock:
            self.sent += len(items)

    def problem(self, text):
        with self._lock:
            self.problems.append(text)

    def take(self, item, outcome):
        """Note the outcome of *item*, and whether it is one that it may have."""
        kind = type(outcome).__name__ if isinstance(outcome, BaseException) else "value"
        with self._lock:
            self.outcomes[kind] += 1
            if item.name in self.names:
                self.problems.append(f"{item.name} has two outcomes")
            self.names.add(item.name)
            if item.deed not in HARMLESS and kind != "value":
                self.faults[item.deed] += 1
            if not is_possible(item, outcome):
                self.problems.append(f"{item.name}, which shall {item.deed}, came to {outcome!r}")


def is_possible(item, outcome):
    """Return whether *outcome* may be that of *item*, which a stranger's kill may have hit."""
    if isinstance(outcome, WorkerCrashedError):
        return "SIGKILL" in str(outcome) or item.deed in CRASHES
    if isinstance(outcome, TaskTimeoutError):
        return True  # it was stopped, or a stranger stopped its worker for a moment
    if isinstance(outcome, BaseException):
        expected = {"raise": Fault, "leave": SystemExit}.get(item.deed)
        return type(outcome) is expected
    return outcome == (bytes(LARGE) if item.deed == "large" else item.name) and (
        item.deed in ("value", "large", "stop")  # a stranger may have continued what was stopped
    )


class Storm:
    """One run.

    Args:
        folder: For the notes of what ran.
        faults: How many faults end it.
        seconds: How long it lasts at most.
        seed: Where its randomness starts.
    """

    def __init__(self, folder, faults, seconds, seed):
        self.runs = Path(folder, "runs")
        self.runs.touch()
        self.most_faults = faults
        self.tally = Tally()
        self._ends_at = time.monotonic() + seconds
        self._seed = seed
        self._number = 0
        self._lock = threading.Lock()  # guards _number

    @property
    def is_over(self):
        return (
            sum(self.tally.faults.values()) >= self.most_faults  # those whose outcome was seen
            or time.monotonic() >= self._ends_at
            or bool(self.tally.problems)
        )

    def items(self, rng, count, without=()):
        deeds = {deed: weight for deed, weight in DEEDS.items() if deed not in without}
        chosen = rng.choices(list(deeds), deeds.values(), k=count)
        with self._lock:
            first, self._number = self._number, self._number + count
        made = [
            Item(f"item-{n}", deed, self.runs, FaultWhenRebuilt("kill") if deed == "rebuild" else n)
            for n, deed in enumerate(chosen, start=first)
        ]
        self.tally.send(made)
        return made

    # ── what threads do ───────────────────────────────────────────────────────────────────────

    def map_all(self, pool, rng):
        """A map that keeps failures; timed, or in chunks."""
        timed = rng.random() < 0.3
        items = self.items(rng, rng.randint(1, 30), without=() if timed else TIMED)
        options = {"task_timeout": TASK_TIMEOUT} if timed else {"chunksize": rng.randint(1, 8)}
        outcomes = pool.pmap(act, items, return_exceptions=True, **options)
        self.check_all(items, outcomes)

    def iterate(self, pool, rng):
        """A lazy map, sometimes left early."""
        items = self.items(rng, rng.randint(1, 30), without=TIMED)
        count = rng.choice([len(items), len(items) // 2])
        results = pool.imap(act, items, return_exceptions=True, chunksize=rng.randint(1, 4))
        taken = [outcome for outcome, _ in zip(results, items[:count], strict=False)]
        results.close()
        self.check_all(items[:count], taken)

    def map_until_failure(self, pool, rng):
        """A map that raises its first failure, and keeps what was finished."""
        items = self.items(rng, rng.randint(1, 20), without=TIMED)
        try:
            self.check_all(items, pool.pmap(act, items, chunksize=rng.randint(1, 5)))
        except (Exception, SystemExit) as exc:
            for index, value in getattr(exc, "partial_results", {}).items():
                self.tally.take(items[index], value)

    def call(self, pool, rng):
        """Single calls, of which some are cancelled or stopped."""
        items = self.items(rng, rng.randint(1, 6), without={"hang", "stop"})
        results = [(item, pool.apply_async(act, (item,))) for item in items]
        for item, result in results:
            deed = rng.random()
            if deed < 0.15:
                self.tally.fault("cancel")
                result.cancel()
            elif deed < 0.3:
                self.tally.fault("stop a call")
                result.stop()
            if result.cancelled():
                continue
            outcome = result.exception(HANG_PATIENCE) or result.result()
            self.note_latency(item, outcome)
            self.tally.take(item, outcome)

    def check_all(self, items, outcomes):
        if len(items) != len(outcomes):
            self.tally.problem(f"{len(items)} items came to {len(outcomes)} outcomes")
        for item, outcome in zip(items, outcomes, strict=False):
            self.tally.take(item, outcome)

    def note_latency(self, item, outcome):
        if isinstance(outcome, WorkerCrashedError) and item.deed == "kill":
            now = time.monotonic()
            self.tally.latencies.append((item.name, now))

    # ── the run ───────────────────────────────────────────────────────────────────────────────

    def rage(self, pools, threads):
        """Let *threads* threads use *pools*, and a stranger hit them, until it is over."""
        users = [
            threading.Thread(target=self._use, args=(pools, random.Random(f"{self._seed}-{n}")))
            for n in range(threads)
        ]
        stranger = threading.Thread(
            target=self._hit, args=(random.Random(f"{self._seed}-stranger"),)
        )
        for thread in (*users, stranger):
            thread.daemon = True
            thread.start()
        for thread in users:
            thread.join(max(0.0, self._ends_at - time.monotonic()) + HANG_PATIENCE)
            if thread.is_alive():
                self.tally.problem(f"{thread.name} hangs; {[state_of(pool) for pool in pools]}")
        stranger.join(HANG_PATIENCE)

    def _use(self, pools, rng):
        ways = [self.map_all, self.iterate, self.map_until_failure, self.call]
        while not self.is_over:
            way = rng.choice(ways)
            try:
                way(rng.choice(pools), rng)
            except BaseException as exc:
                self.tally.problem(f"{way.__name__} raised {exc!r}")

    def _hit(self, rng):
        """Kill workers, or stop them for a moment, as a stranger would."""
        pause = threading.Event()
        while not self.is_over:
            pause.wait(rng.uniform(0.05, 0.4))
            workers = list(filter(is_worker, psutil.Process().children(recursive=True)))
            if not workers:
                continue
            victim = rng.choice(workers)
            with suppress(psutil.Error):
                if rng.random() < 0.6:
                    victim.kill()
                    self.tally.fault("killed by a stranger")
                else:
                    victim.suspend()
                    self.tally.fault("stopped by a stranger")
                    pause.wait(rng.uniform(0.01, 0.3))
                    victim.resume()

    def count_runs(self):
        """Compare what ran with what came of it."""
        lines = [line.split() for line in self.runs.read_text().splitlines()]
        runs = Counter(name for name, _ in lines)
        began = {name: float(moment) for name, moment in lines}
        for name, count in runs.items():
            if count > 1:
                self.tally.problem(f"{name} ran {count} times")
        return [now - began[name] for name, now in self.tally.latencies if name in began]


def is_worker(process):
    """Return whether *process* runs tasks: it has one of our journals open."""
    with suppress(OSError):
        return "parallel_facade-journal" in Path(f"/proc/{process.pid}/maps").read_text()
    return False


def state_of(pool):
    """Return what a pool waits for, to find the cause of a hang."""
    manager = pool._backend._manager
    scheduler = manager._scheduler
    workers = [
        (
            one.process.pid,
            one.is_ready,
            one.is_leaving,
            one.stopped_for,
            one.task and one.task.attempts,
        )
        for one in scheduler.workers
    ]
    return (
        f"broken={manager.broken!r} pending={len(scheduler.pending)} "
        f"tasks={scheduler.task_count} idle={len(scheduler.idle)} "
        f"lost={len(manager._loss.workers())} workers={workers}"
    )


def run(faults, seconds, seed, threads=4, methods=("fork", "forkserver", "spawn")):
    """Rage once; return the tally, seconds from deaths to errors, and what was left behind."""
    with tempfile.TemporaryDirectory() as folder:
        for method in methods:  # what is imported or opened once stays
            Pool(workers=1, start_method=method).close()
        before = Resources()
        storm = Storm(folder, faults, seconds, seed)
        with ExitStack() as stack:
            pools = [
                stack.enter_context(Pool(workers=2, start_method=method, **options))
                for method in methods
                for options in ({}, {"max_tasks_per_worker": 20})
            ]
            storm.rage(pools, threads)
        latencies = storm.count_runs()
    left = Resources().added_to(before)
    return storm.tally, latencies, [f"{name}: {things}" for name, things in left.items()]


def report(tally, latencies, left):
    """Return the run as a table."""
    hung = [problem for problem in tally.problems if "hangs" in problem]
    doubled = [one for one in tally.problems if "two outcomes" in one or "times" in one]
    rows = [
        ("faults", sum(tally.faults.values())),
        *((f"  {kind}", count) for kind, count in tally.faults.most_common()),
        ("items sent", tally.sent),
        ("outcomes", sum(tally.outcomes.values())),
        *((f"  {kind}", count) for kind, count in tally.outcomes.most_common()),
        ("lost or wrong", len(tally.problems) - len(hung) - len(doubled)),
        ("doubled", len(doubled)),
        ("hung", len(hung)),
        ("left behind", len(left)),
    ]
    if latencies:
        rows.append(("median ms, death to error", round(statistics.median(latencies) * 1e3, 1)))
    return "\n".join(f"{name:<28}{value:>10}" for name, value in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--threads", type=int, default=4)
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    tally, latencies, left = run(chosen.faults, chosen.minutes * 60, chosen.seed, chosen.threads)
    print(report(tally, latencies, left))
    for problem in [*tally.problems[:20], *left]:
        print("PROBLEM", problem)
    sys.exit(bool(tally.problems or left))


if __name__ == "__main__":
    main()
