"""Find the names that a function's code may look up."""

from __future__ import annotations

import dis
import functools
import re
import types
from collections.abc import Iterable, Iterator
from typing import Any, Final

GLOBAL_OPERATIONS: Final = frozenset(
    {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
)
LOOKS_UP_TEXT: Final = frozenset({"globals", "eval", "exec", "vars", "getattr", "attrgetter"})
"""Functions that look up names given as text."""

REACHES_MAIN: Final = frozenset({"__main__", "modules", "__import__", "import_module"})
"""Words in code that can reach the module of the script."""

VALUE: Final = 1
"""The format, of `annotationlib.Format`, requested from a function that returns annotations."""

WORD: Final = re.compile(r"[^\W\d]\w*")


@functools.lru_cache(maxsize=4096)
def global_names(code: types.CodeType) -> frozenset[str]:
    """Return the global names that *code*, or a code object inside it, reads or writes.

    If code calls `globals`, `eval` or similar, the words in its string literals are included.
    """
    # Not by dill.detect, which redirects sys.stdout and so loses what other threads print.
    names: set[str] = set()
    for one in codes_in(code):
        names.update(
            step.argval for step in dis.get_instructions(one) if step.opname in GLOBAL_OPERATIONS
        )
    return frozenset(names).union(_words_of_texts(code))


@functools.lru_cache(maxsize=4096)
def words_in(code: types.CodeType) -> frozenset[str]:
    """Return all names in *code* and the code inside it, including attributes."""
    names = {name for one in codes_in(code) for name in one.co_names}
    return frozenset(names).union(_words_of_texts(code))


def names_in_main(code: types.CodeType) -> frozenset[str]:
    """Return the names that *code* may look up in `__main__`; none if it cannot reach it."""
    words = words_in(code)
    texts = {const for one in codes_in(code) for const in one.co_consts if type(const) is str}
    looks = not REACHES_MAIN.isdisjoint(words | texts)
    return words | frozenset(texts) if looks else frozenset()


def names_in_annotations(annotations: dict[str, Any]) -> set[str]:
    """Return the words in the *annotations* that are text, or that `typing` made from text."""
    texts = (getattr(value, "__forward_arg__", value) for value in annotations.values())
    return _words_of(text for text in texts if type(text) is str)


@functools.lru_cache(maxsize=4096)
def names_in_texts(code: types.CodeType) -> frozenset[str]:
    """Return the words in the strings of *code*, such as quoted annotations that it returns."""
    consts = (const for one in codes_in(code) for const in one.co_consts)
    return frozenset(_words_of(const for const in consts if type(const) is str))


@functools.lru_cache(maxsize=4096)
def names_used(code: types.CodeType) -> frozenset[str]:
    """Return the names that *code*, or code inside it, uses for any purpose."""
    return frozenset(name for one in codes_in(code) for name in (*one.co_names, *one.co_freevars))


def codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield *code* and the code objects inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from codes_in(const)


def mangle(name: str, owner: type) -> str:
    """Return the attribute under which *owner*'s body stores *name*.

    Source: the Python language reference, 6.2.1, private name mangling.

    >>> mangle("__secret", type("_Model", (), {}))
    '_Model__secret'
    >>> mangle("__init__", int)
    '__init__'
    """
    stripped = owner.__name__.lstrip("_")
    is_private = name.startswith("__") and not name.endswith("__") and "." not in name
    return f"_{stripped}{name}" if is_private and stripped else name


def _words_of_texts(code: types.CodeType) -> set[str]:
    found: set[str] = set()
    for one in codes_in(code):
        if LOOKS_UP_TEXT.intersection(one.co_names):
            found |= _words_of(const for const in one.co_consts if isinstance(const, str))
    return found


def _words_of(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in WORD.findall(text)}
