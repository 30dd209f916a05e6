"""What one setting may be: checks of values, and how each is written in the environment."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from parallel_facade._common.errors import ConfigurationError
from parallel_facade._configuration.backend_registry import check_backend_name

TRUE_WORDS: Final = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS: Final = frozenset({"0", "false", "no", "off"})

LONGEST_DELAY: Final = 86_400.0
"""Seconds; a day is longer than anybody waits for a retry, and short enough for every clock."""


class Setting(NamedTuple):
    """The valid values of one setting, and what the reference says about them."""

    check: Callable[[Any], Any]
    """Returns the value to use; raises `ValueError` or `TypeError` for a bad value."""

    parse: Callable[[str], Any]
    """Turns the environment's text into a value for `check`; raises `ValueError`."""

    expected: str
    """Describes the valid values, for the error message."""

    default: Any = None

    values: str = ""
    """Describes the valid values, in Markdown, for the reference."""

    default_text: str = "none"
    """Describes the default there."""

    holds_in_tasks: bool = False
    """Whether a call that a task makes, which its worker runs itself, finds the caller's value."""


def whole_number(minimum: int | None) -> Callable[[Any], int]:
    """Return a check for whole numbers, not below *minimum*."""

    def check(value: Any) -> int:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
        if minimum is not None and not minimum <= number <= sys.maxsize:
            raise ValueError
        return number

    return check


def _number(value: Any) -> float:
    if isinstance(value, bool | str):
        raise TypeError
    return float(value)


def time_limit(value: Any) -> float:
    """Return *value*, seconds above 0."""
    number = _number(value)
    if math.isnan(number) or number <= 0:
        raise ValueError
    return number


def delay(value: Any) -> float:
    """Return *value*, seconds that somebody can wait."""
    number = _number(value)
    if not 0 <= number <= LONGEST_DELAY:
        raise ValueError
    return number


def one_of(*choices: str) -> Callable[[Any], str]:
    """Return a check for *choices*."""

    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return check


def progress_like(value: Any) -> Any:
    """Return *value*: a switch, a description or a callable."""
    if not (isinstance(value, bool | str) or callable(value)):
        raise TypeError
    return value


def parse_progress(text: str) -> bool | str:
    """Return the switch or the description that *text* is."""
    word = text.lower()
    if word in TRUE_WORDS | FALSE_WORDS:
        return word in TRUE_WORDS
    return text


def switch(value: Any) -> bool:
    """Return *value*, `True` or `False`."""
    if not isinstance(value, bool):
        raise TypeError
    return value


def parse_switch(text: str) -> bool:
    """Return the switch that *text* is."""
    word = text.lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ValueError
    return word in TRUE_WORDS


def module_names(value: Any) -> tuple[str, ...]:
    """Return the dotted names in *value*, which are a text with commas, or several."""
    names = value.split(",") if isinstance(value, str) else list(value)
    names = [name.strip() for name in names]
    if not all(part.isidentifier() for name in names for part in name.split(".")):
        raise ValueError
    return tuple(names)


def backend_like(value: Any) -> Any:
    """Return *value*: a back-end's name, a back-end, or an executor."""
    if isinstance(value, str):
        return check_backend_name(value)
    if isinstance(value, int):
        raise ConfigurationError(f"a number is not a back-end; did you mean workers={value}?")
    if not callable(getattr(value, "submit", None)) or isinstance(value, type):
        raise TypeError
    return value
