"""Every example in the docstrings, the README and the docs is run."""

import doctest
import importlib
import inspect
import pkgutil
import re
import runpy
from pathlib import Path

import pytest

import parallel_facade
from parallel_facade._configuration.setting_table import SETTINGS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(parallel_facade.__path__, "parallel_facade.")
    if not info.name.endswith("__main__")
)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
PRINTS = re.compile(r"^\s*print\(.*\) +# (.*)$", re.M)
TOOLS = {"dask", "emcee", "joblib", "matplotlib", "optuna", "scipy", "sklearn"}
"""What pages use that not every machine has; `make test-tools` has them all."""
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")


@pytest.fixture(autouse=True)
def two_workers(monkeypatch):
    monkeypatch.setenv("PARALLEL_FACADE_WORKERS", "2")


@pytest.mark.parametrize("name", ["parallel_facade", *MODULES])
def test_the_examples_in_docstrings(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as exc:
        pytest.skip(f"{exc.name} is not installed")
    names = {public: getattr(parallel_facade, public) for public in parallel_facade.__all__}

    result = doctest.testmod(module, extraglobs=names, raise_on_error=False)

    assert result.failed == 0


def test_whatever_is_public_has_an_example():
    finder = doctest.DocTestFinder(exclude_empty=False)
    without = [
        test.name
        for public in parallel_facade.__all__
        for test in finder.find(getattr(parallel_facade, public), public)
        if not test.examples and not any(part.startswith("_") for part in test.name.split("."))
    ]

    assert without == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_the_pages(page, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where pages write files
    space = {"__name__": "__main__"}
    blocks = BLOCK.findall(page.read_text())

    for block in blocks:
        try:
            exec(compile(block, str(page), "exec"), space)
        except ModuleNotFoundError as exc:
            if exc.name not in TOOLS:
                raise
            pytest.skip(f"{exc.name} is not installed")

    promised = [text for block in blocks for text in PRINTS.findall(block)]
    assert capsys.readouterr().out.splitlines() == promised


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]

    assert broken == []


def test_the_table_of_settings_is_the_one_of_the_package():
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    page = tables["PAGE"].read_text()

    assert tables["with_table"](page) == page, "python docs/tables.py writes it anew"
    assert tables["table"]().count("| `PARALLEL_FACADE_") == len(SETTINGS)


MAPS = {"pmap", "imap"}
GROUPS = {"calls": {*MAPS, "apply_async"}, "maps": MAPS, "–": set()}


def test_the_tables_say_of_what_each_option_is_an_argument():
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    said = {}
    tables = page.partition("## Settings")[2].partition("## ")[0]
    for names, where in re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", tables, re.M):
        words = where.replace("`", "").split(", ")
        takers = set().union(*(GROUPS.get(word, {word}) for word in words))
        said |= dict.fromkeys(re.findall(r"\w+", names), takers)
    takes = {
        verb: set(inspect.signature(getattr(parallel_facade, verb)).parameters)
        for verb in (*GROUPS["calls"], "Pool")
    }
    what_is_mapped = {"func", "iterables", "args", "kwds"}

    assert said.keys() >= set().union(*takes.values()) - what_is_mapped
    for name, takers in said.items():
        assert takers == {verb for verb, options in takes.items() if name in options}, name


def test_the_table_of_capabilities_is_true():
    from parallel_facade._configuration.backend_registry import load_backend

    page = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    rows = {
        "task_timeout": "can_stop_running_task",
        "seed": "has_private_state",
        "initializer": "can_initialize",
        "max_tasks_per_worker": "can_recycle",
        "max_memory_per_worker": "can_recycle",
    }

    for option, capability in rows.items():
        (row,) = re.findall(rf"^\| `{option}` \| ((?:yes|refused).*) \|$", page, re.M)
        for cell, name in zip(row.split(" | "), ["serial", "thread", "process"], strict=False):
            can = getattr(load_backend(name).capabilities, capability)
            assert cell.startswith("yes" if can else "refused")


def test_the_rows_of_what_travels_are_tests():
    page = (ROOT / "docs" / "explanation" / "what-travels.md").read_text()
    rows = re.findall(r"^\|.*\| (?:`(\w+)\.(case_\w+)`)? ?\|$", page, re.M)
    named = [(category, case) for category, case in rows if category]

    cases = ROOT / "tests" / "travel" / "cases"
    for category, case in named:  # as text: not every Python can read all of them
        assert f"\ndef {case}(" in (cases / f"{category}.py").read_text()
    assert len(named) > 40
    categories = {file.stem for file in cases.glob("*.py")} - {"runner", "helpers"}
    assert {category for category, _ in named} == categories


def test_the_back_end_of_the_page_is_the_one_that_is_tested():
    page = (ROOT / "docs" / "how-to" / "write-a-back-end.md").read_text()
    plugin = ROOT / "tests" / "plugin" / "parallel_facade_standard" / "__init__.py"
    code = plugin.read_text()

    assert f"```python\n{code}```" in page
    assert len(code.splitlines()) < 60


def test_what_is_guaranteed_is_tested():
    page = (ROOT / "docs" / "explanation" / "guarantees.md").read_text()
    named = re.findall(r"`(\w+/\w+\.py)::(test_\w+)`", page)

    missing = [
        (file, test)
        for file, test in named
        if f"def {test}(" not in (ROOT / "tests" / file).read_text()
    ]

    assert missing == []
    assert len(named) >= 20


def test_every_page_is_in_the_table_of_contents():
    listed = re.findall(r"^([\w-]+(?:/[\w-]+)?)$", (ROOT / "docs" / "index.md").read_text(), re.M)
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES if "docs" in page.parts}

    assert {f"{name}.md" for name in listed} == pages - {"index.md"}
