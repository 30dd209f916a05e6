"""What `import parallel_facade` costs, as a ratio to `import concurrent.futures`, in one run.

python benchmarks/bench_import.py
"""

import statistics
import subprocess
import sys
import time

ROUNDS = 31
STATEMENTS = ("pass", "import concurrent.futures", "import parallel_facade")


def seconds(statement: str) -> float:
    """Return the wall time of a fresh interpreter that runs *statement*."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", statement], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print the medians and the ratio."""
    laps: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(ROUNDS):
        for statement in STATEMENTS:
            laps[statement].append(seconds(statement))
    bare, futures, ours = (statistics.median(laps[statement]) for statement in STATEMENTS)
    print(f"import concurrent.futures  {(futures - bare) * 1e3:6.1f} ms")
    print(f"import parallel_facade     {(ours - bare) * 1e3:6.1f} ms")
    print(f"ratio                      {(ours - bare) / (futures - bare):6.2f}")


if __name__ == "__main__":
    main()
