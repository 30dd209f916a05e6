"""Notes on an error about the item that caused it."""

from __future__ import annotations

import reprlib
from contextlib import suppress


def note_item(error: BaseException, index: int, item: object, doing: str = "running") -> None:
    """Note on *error* which item caused it, and what was being done with that item."""
    _note(error, f"while {doing} item {index}: {_shown(item)}")


def note_initializer(error: BaseException) -> None:
    """Note on *error* that the pool's initializer caused it, not an item."""
    _note(error, "while the pool's initializer ran")


def note_attempts(error: BaseException, earlier: list[str]) -> None:
    """Note on *error*, from the last of several attempts, how the *earlier* attempts ended."""
    for number, description in enumerate(earlier, start=1):
        # Without hints: the error of the last attempt has them as well.
        reason = description.partition("\n\n")[0]
        _note(error, f"attempt {number} of {len(earlier) + 1}: {reason}")


def _note(error: BaseException, note: str) -> None:
    with suppress(Exception):  # an exception may refuse attributes; it then stays as it is
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def _shown(item: object) -> str:
    try:
        return reprlib.repr(item)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<{type(item).__qualname__} whose repr() fails>"
