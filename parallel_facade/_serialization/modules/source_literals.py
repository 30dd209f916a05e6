"""Read the source of a module: which names it has, and which of them it gives only literals."""

from __future__ import annotations

import ast
import functools
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

ATTEMPTS_TO_PARSE: Final = 20
_parsing = threading.Lock()  # only one of our threads parses at a time

STATEMENTS_WITHOUT_SCOPE = (ast.If, ast.For, ast.While, ast.Try, ast.With)


def names_of_literals(module: str) -> dict[str, frozenset[str]]:
    """Return the names to which the source of *module* assigns only literals, such as `None`.

    Returns:
        The names of the module itself, under ``""``, and of each class, under its qualified name.
    """
    return _names_in(_file_of(module))


def is_in_source(module: str, name: str) -> bool:
    """Return whether the source of *module* has the word *name*.

    If it has not, an import hook has put the name into the module: pytest's for assertions,
    typeguard's and beartype's for checks. A worker that imports the module runs no such hook.
    """
    words = _words_in(_file_of(module))
    return words is None or name in words


def _file_of(module: str) -> str:
    return str(getattr(sys.modules.get(module), "__file__", ""))


@functools.lru_cache(maxsize=256)
def _words_in(file: str) -> frozenset[str] | None:
    try:
        with open(file, encoding="utf-8") as source:
            return frozenset(re.findall(r"\w+", source.read()))
    except (OSError, ValueError):
        return None


@functools.lru_cache(maxsize=256)
def _names_in(file: str) -> dict[str, frozenset[str]]:
    try:
        with open(file, "rb") as source:
            tree = _parsed(source.read())
    except (OSError, SyntaxError, ValueError):
        return {}
    return dict(_scopes(tree, ""))


def _parsed(source: bytes) -> ast.Module:
    """Parse *source*, even while other threads parse.

    Up to Python 3.12 the parser counts the recursion of all threads together, and raises
    SystemError if the count does not match at the end: CPython issue 106905.
    """
    for _ in range(ATTEMPTS_TO_PARSE):
        with suppress(SystemError), _parsing:
            return ast.parse(source)
    raise ValueError("the parser is in use by other threads")


def _scopes(scope: ast.Module | ast.ClassDef, path: str) -> Iterator[tuple[str, frozenset[str]]]:
    literal: set[str] = set()
    other: set[str] = set()
    for statement in _statements(scope):
        if isinstance(statement, ast.ClassDef):
            yield from _scopes(statement, f"{path}.{statement.name}".lstrip("."))
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = {
                node.id
                for target in targets
                for node in ast.walk(target)
                if isinstance(node, ast.Name)
            }
            (literal if _is_literal(statement.value) else other).update(names)
    yield path, frozenset(literal - other)


def _statements(scope: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(scope):
        yield node
        if isinstance(node, (*STATEMENTS_WITHOUT_SCOPE, ast.ExceptHandler)):
            yield from _statements(node)


def _is_literal(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        # An empty set has no literal.
        return isinstance(value, ast.Call) and ast.unparse(value) in {"set()", "dict()", "list()"}
    return True
