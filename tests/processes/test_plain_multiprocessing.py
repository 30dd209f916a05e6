"""The left column of docs/explanation/cant-pickle.md: what `multiprocessing.Pool` does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "cant-pickle.md"

PRELUDE = """
import functools, multiprocessing, os
new_pool = multiprocessing.get_context("fork").Pool

def attempt(func, items=range(3), pool=None):
    with pool or new_pool(2) as pool:
        try:
            print(pool.map_async(func, items).get(timeout=1))
        except multiprocessing.TimeoutError:
            print("hangs")
        except Exception as exc:
            print(f"{type(exc).__name__}: {exc}")

class Base:
    def g(self, x): return ("base", x)

class SC(Base):
    def f(self, x): return x * x
    def g(self, x): return ("sc", x)
    def __private(self, x): return -x
    def go_private(self): attempt(self.__private)
    def go_super(self): attempt(super().g, [0])
    def __call__(self, x): return x
    @classmethod
    def of_class(cls, x): return (cls.__name__, x)
    @staticmethod
    def static(x): return x

class Holder:
    def __init__(self): self.pool = new_pool(2)
    def f(self, x): return x

class KeywordOnly(Exception):
    def __init__(self, *, code): super().__init__(code)

def fail(x): raise KeywordOnly(code=x)
def leave(x): raise SystemExit(3)
def local_function():
    def inner(x): return x
    return inner
def local_method():
    class Local:
        def f(self, x): return x
    return Local().f
"""

CASES = [
    ("a bound method", "attempt(SC().f)", r"\[0, 1, 4\]"),
    ("a private method", "SC().go_private()", "hangs"),
    ("an overridden method", "SC().go_super()", r"\[\('sc', 0\)\]"),
    (
        "holds the pool",
        "holder = Holder(); attempt(holder.f, pool=holder.pool)",
        "NotImplementedError: pool objects cannot be passed between processes or pickled",
    ),
    ("a lambda", "attempt(lambda x: x)", "PicklingError: Can't pickle <function <lambda>"),
    ("a closure", "attempt(local_function())", "(Attribute|Pickling)Error: Can't .* local object"),
    (
        "class defined in",
        "attempt(local_method())",
        "(Attribute|Pickling)Error: Can't .* local",
    ),
    ("a callable instance", "attempt(SC())", r"\[0, 1, 2\]"),
    ("class methods", "attempt(SC.of_class, [1])", r"\[\('SC', 1\)\]"),
    ("static methods", "attempt(SC.static)", r"\[0, 1, 2\]"),
    ("module-level function", "attempt(abs)", r"\[0, 1, 2\]"),
    ("functools.partial(pow, 2)", "attempt(functools.partial(pow, 2))", r"\[1, 2, 4\]"),
    (
        "functools.partial(self.f, self)",
        "sc = SC(); attempt(functools.partial(sc.f, sc))",
        "TypeError: .*takes 2 positional arguments but 3 were given",
    ),
    (
        "defined after the pool was made",
        "pool = new_pool(2)\ndef late(x): return x\nattempt(late, pool=pool)",
        "hangs",
    ),
    (
        "that was changed after the pool was made",
        "G = 1\ndef get(x): return G\npool = new_pool(2)\nG = 2\nattempt(get, [0], pool=pool)",
        r"\[1\]",
    ),
    ("keyword-only arguments", "attempt(fail)", "hangs"),
    ("raises `SystemExit`", "attempt(leave)", "hangs"),
    ("whose process dies", "attempt(os._exit)", "hangs"),
]


@pytest.mark.parametrize(("row", "code", "outcome"), CASES, ids=[case[0] for case in CASES])
def test_what_the_page_says_of_plain_multiprocessing(row, code, outcome):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
    )

    assert re.search(f"^{outcome}", done.stdout, re.M)
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    (plain,) = [cells[2] for cells in rows if row in cells[1]]
    assert ("**hangs**" in plain) == (outcome == "hangs")
    assert plain.startswith((" works ", " work ")) == (
        outcome.startswith(r"\[") and "**" not in plain
    )
