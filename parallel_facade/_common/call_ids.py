"""Call ids, unique among all processes that communicate with each other."""

from __future__ import annotations

import itertools
import os

_process_tag = os.urandom(4).hex()
_numbers = itertools.count()


def new_call_id() -> str:
    """Return a new call id."""
    return f"{_prefix()}{next(_numbers)}"


def is_from_here(call_id: str) -> bool:
    """Return whether this process made *call_id*."""
    return call_id.startswith(_prefix())


def caller_of(call_id: str) -> str:
    """Return what the ids of all calls of one process have in common."""
    return call_id.rpartition("-")[0]


def _prefix() -> str:
    # With the pid, because after a fork both processes have the same tag and counter value.
    return f"{_process_tag}-{os.getpid()}-"
