"""What is said on an error about the item that caused it."""

from __future__ import annotations

import reprlib
from contextlib import suppress


def note_item(error: BaseException, index: int, item: object, doing: str = "running") -> None:
    """Say on *error* which item caused it, and what was done with it then."""
    _note(error, f"while {doing} item {index}: {_shown(item)}")


def note_initializer(error: BaseException) -> None:
    """Say on *error* that it is none of an item's."""
    _note(error, "while the pool's initializer ran")


def note_attempts(error: BaseException, earlier: list[str]) -> None:
    """Say on *error*, the last of several attempts, how the *earlier* ones ended."""
    for number, description in enumerate(earlier, start=1):
        # Without hints, which the last one's error has as well.
        reason = description.partition("\n\n")[0]
        _note(error, f"attempt {number} of {len(earlier) + 1}: {reason}")


def _note(error: BaseException, note: str) -> None:
    with suppress(Exception):  # an exception may refuse attributes, and stays the user's own
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def _shown(item: object) -> str:
    try:
        return reprlib.repr(item)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<{type(item).__qualname__} whose repr() fails>"
