"""Which lines the suite runs, in its own process and in workers: a table by package.

    python tests/coverage_of_packages.py unit travel       the whole suite, without arguments

Workers that are killed cannot say what they ran; what only those run is missing in the table.
"""

import collections
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = "parallel_facade"
SETTINGS = f"""
[run]
source_pkgs = {PACKAGE}
parallel = true
patch = subprocess, fork, _exit
"""
FILES_SHOWN = 12


def main(arguments):
    """Run the suite under coverage and print the table; return pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "settings")
        settings.write_text(SETTINGS)
        os.environ["COVERAGE_RCFILE"] = str(settings)
        os.environ["COVERAGE_FILE"] = str(Path(folder, "data"))
        coverage = [sys.executable, "-m", "coverage"]
        ended = subprocess.run(
            [*coverage, "run", "-m", "pytest", *arguments], cwd=HERE, check=False
        )
        subprocess.run([*coverage, "combine", "--quiet"], cwd=HERE, check=True)
        report = Path(folder, "report.json")
        subprocess.run([*coverage, "json", "--quiet", "-o", report], cwd=HERE, check=True)
        show(json.loads(report.read_text())["files"])
        return ended.returncode


def show(files):
    """Print a row for each package, and one for each of the files with the most lines not run."""
    packages = collections.defaultdict(collections.Counter)
    for path, found in files.items():
        package = str(Path(path[path.rindex(PACKAGE) :]).parent)
        packages[package] += collections.Counter(
            lines=found["summary"]["num_statements"], missing=found["summary"]["missing_lines"]
        )
    print(f"\n{'package':48} {'statements':>10} {'not run':>8} {'run':>6}")
    for package, counts in sorted(packages.items()):
        row(package, counts["lines"], counts["missing"])
    row("all", *(sum(one[key] for one in packages.values()) for key in ("lines", "missing")))
    print()
    worst = sorted(files.items(), key=lambda found: -found[1]["summary"]["missing_lines"])
    for path, found in worst[:FILES_SHOWN]:
        row(
            path[path.rindex(PACKAGE) :],
            found["summary"]["num_statements"],
            found["summary"]["missing_lines"],
        )
        print(f"    not run: {', '.join(map(str, found['missing_lines']))}")


def row(name, statements, missing):
    """Print a row of the table."""
    share = 100 * (statements - missing) / max(1, statements)
    print(f"{name:48} {statements:10} {missing:8} {share:5.1f} %")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
