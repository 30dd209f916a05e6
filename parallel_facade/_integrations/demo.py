"""The demonstration: one class with a bound method, over real files, on every back-end."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from parallel_facade._api.verbs import pmap
from parallel_facade._configuration.settings import resolve

TABLE_WIDTH = 64


class SourceFacts(NamedTuple):
    """The facts about one source file."""

    lines: int
    functions: int
    classes: int
    branches: int
    longest: str
    digest: str


_lock = threading.Lock()  # guards ast.parse


def _parse(source: bytes) -> ast.Module:
    """Return the syntax tree of *source*."""
    # Python before 3.11.8 and 3.12.2 has one depth counter for all threads, and sometimes raises
    # SystemError: "AST constructor recursion depth mismatch" (CPython issue 106905).
    with _lock:
        return ast.parse(source)


class SourceSurvey:
    """Reads the source files below *folder*."""

    branching = (ast.If, ast.For, ast.While, ast.Try, ast.BoolOp, ast.IfExp, ast.comprehension)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[str]:
        """Return the relative path of every source file that is part of Python itself."""
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*.py"))
        own = (path for path in found if "site-packages" not in path.parts)
        return sorted(str(path) for path in own)

    def analyse(self, name: str) -> SourceFacts:
        """Return the facts about the file called *name*."""
        source = (self.folder / name).read_bytes()
        digest = hashlib.sha256(source).hexdigest()
        lines = source.count(b"\n")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old escapes in the tests of the parser
                tree = _parse(source)
        except (SyntaxError, ValueError):
            return SourceFacts(lines, 0, 0, 0, "", digest)  # a test file for the parser
        kinds = Counter(type(node) for node in ast.walk(tree))
        return SourceFacts(
            lines=lines,
            functions=kinds[ast.FunctionDef] + kinds[ast.AsyncFunctionDef],
            classes=kinds[ast.ClassDef],
            branches=sum(kinds[kind] for kind in self.branching),
            longest=self._longest_function(tree),
            digest=digest,
        )

    def _longest_function(self, tree: ast.Module) -> str:
        spans = [
            ((node.end_lineno or node.lineno) - node.lineno, node.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        return max(spans, default=(0, ""))[1]

    def run(self, backend: str, names: Sequence[str], workers: int | None) -> list[SourceFacts]:
        """Return the facts about each file, computed on *backend*."""
        return pmap(self.analyse, names, backend=backend, workers=workers, progress=f"{backend:8}")


class DemoReport(NamedTuple):
    """The demonstration's result."""

    text: str
    agrees: bool


class _Lap(NamedTuple):
    backend: str
    seconds: float
    facts: list[SourceFacts]


def demo_report(
    backends: Sequence[str], *, workers: int | None = None, limit: int | None = None
) -> DemoReport:
    """Analyse the standard library's source once for each of *backends*, and compare.

    Args:
        backends: Names of back-ends; the speed-up is measured against the first.
        workers: Maximum number of workers; `None` takes the number of usable CPUs.
        limit: Analyse only this many files; `None` means all.

    Raises:
        ConfigurationError: A back-end is not known, or *workers* is not valid.
    """
    configs = [resolve({"backend": backend, "workers": workers}) for backend in backends]
    survey = SourceSurvey(Path(sysconfig.get_path("stdlib")))
    names = survey.files()[:limit]
    laps = []
    for config in configs:
        began = time.perf_counter()
        facts = survey.run(config.backend, names, config.workers)
        laps.append(_Lap(config.backend, time.perf_counter() - began, facts))
    agrees = all(lap.facts == laps[0].facts for lap in laps)
    return DemoReport(_render(survey, laps, configs[0].workers, agrees=agrees), agrees)


def _render(
    survey: SourceSurvey, laps: Sequence[_Lap], workers: int | None, *, agrees: bool
) -> str:
    facts = laps[0].facts
    lines = [
        "",
        f"SourceSurvey.analyse, a bound method, over {len(facts):,} files of "
        f"Python {sys.version.split()[0]}",
        f"in {survey.folder}",
        f"{sum(one.lines for one in facts):,} lines, "
        f"{sum(one.functions for one in facts):,} functions, "
        f"{sum(one.classes for one in facts):,} classes, "
        f"{sum(one.branches for one in facts):,} branches; {workers} workers",
        "",
        f"{'back-end':10}{'wall time':>14}{'speed-up':>12}{'items/s':>12}{'results':>16}",
        "─" * TABLE_WIDTH,
    ]
    for lap in laps:
        same = "the same" if lap.facts == facts else "DIFFERENT"
        lines.append(
            f"{lap.backend:10}{lap.seconds:>12.2f} s{laps[0].seconds / lap.seconds:>11.2f}×"
            f"{len(facts) / lap.seconds:>12,.0f}{same:>16}"
        )
    verdict = "All results agree." if agrees else "The results DIFFER: please report this."
    return "\n".join([*lines, "─" * TABLE_WIDTH, verdict])
