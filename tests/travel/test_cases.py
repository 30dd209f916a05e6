"""The corpus: each case from a module and from a script, on each way to start processes."""

import functools
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import runner

from parallel_facade import config

CASES = Path(__file__).parent / "cases"
NEEDED = {"type_parameters": (3, 12)}
"""Python versions that bring the syntax of a file."""
CATEGORIES = sorted(
    file.stem
    for file in CASES.glob("*.py")
    if file.stem not in {"runner", "helpers"} and sys.version_info >= NEEDED.get(file.stem, ())
)
ALL = [
    (category, name)
    for category in CATEGORIES
    for name in runner.cases_in(vars(importlib.import_module(category)))
]


@functools.cache
def outcomes_of_script(category, start_method):
    environment = {**os.environ, "PARALLEL_FACADE_START_METHOD": start_method}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(CASES / f"{category}.py")],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
        cwd=CASES,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("category", "name"), ALL)
def test_in_a_module(category, name, start_method):
    case = getattr(importlib.import_module(category), name)

    with config(start_method=start_method):
        case(runner.pmap_on(backend="process"))


@pytest.mark.parametrize(("category", "name"), ALL)
def test_in_a_script(category, name, start_method):
    assert outcomes_of_script(category, start_method)[name] == ""


@pytest.mark.parametrize(("category", "name"), ALL)
def test_in_threads(category, name):
    """What is promised for processes is what happens within one."""
    case = getattr(importlib.import_module(category), name)
    if getattr(case, "needs_processes", False):
        pytest.skip("nothing travels within a process")

    case(runner.pmap_on(backend="thread"))


def test_each_category_has_ten_cases():
    counts = {category: sum(one == category for one, _ in ALL) for category in CATEGORIES}

    assert {category for category, count in counts.items() if count < 10} == set()
