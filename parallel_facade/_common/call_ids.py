"""Names for calls, unique among all processes that talk to each other."""

from __future__ import annotations

import itertools
import os

_process_tag = os.urandom(4).hex()
_numbers = itertools.count()


def new_call_id() -> str:
    """Return a name for one call."""
    return f"{_prefix()}{next(_numbers)}"


def is_made_here(call_id: str) -> bool:
    """Return whether this process made the call *call_id*."""
    return call_id.startswith(_prefix())


def _prefix() -> str:
    # The pid too: after a fork the tag and the counter go on alike in both processes.
    return f"{_process_tag}-{os.getpid()}-"
