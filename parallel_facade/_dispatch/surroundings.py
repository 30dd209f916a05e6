"""What tasks of a call see of the process that has made it."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, NamedTuple

from parallel_facade._common.errors import SerializationError
from parallel_facade._configuration.settings import settings_for_tasks
from parallel_facade._console.replay import OutputRequest, output_request_now
from parallel_facade._serialization.encoder import Encoder
from parallel_facade._worker.inherited_state import read_state
from parallel_facade._worker.run_chunk import THE_STATE

_log = logging.getLogger("parallel_facade")


class Surroundings(NamedTuple):
    """What tasks see of a process; see `CallEnvironment`."""

    import_path: list[str]
    folder: str
    output: OutputRequest | None
    authkey: bytes | None
    settings: dict[str, Any]
    state: dict[str, Any]


def surroundings_now(
    *, is_remote: bool, has_children: bool, relay: bool, has_bar: bool
) -> Surroundings:
    """Return what tasks see of this process now; the arguments are those of `PayloadCodec`."""
    return Surroundings(
        _import_path(),
        _working_folder(),
        output_request_now(is_remote=is_remote, has_bar=has_bar) if relay else None,
        _authkey() if has_children else None,
        settings_for_tasks(),
        read_state(),
    )


def packed_state(state: dict[str, Any], encoder: Encoder) -> bytes | None:
    """Return the *state* of a `Surroundings` as a payload, without what cannot travel."""
    if not state:
        return None
    try:
        return encoder.encode(state, THE_STATE).data
    except SerializationError:
        can_travel = {name: one for name, one in state.items() if _can_travel(name, one, encoder)}
        return encoder.encode(can_travel, THE_STATE).data


def _can_travel(name: str, value: Any, encoder: Encoder) -> bool:
    try:
        encoder.encode(value, f"the caller's {name}")
    except SerializationError as exc:
        _log.warning("tasks do not see the caller's %s: %s", name, str(exc).partition("\n")[0])
        return False
    return True


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _authkey() -> bytes | None:
    """Return the `multiprocessing` key of this process; `None` if it cannot have made managers.

    Workers are processes of `multiprocess`, which has a key of its own.
    """
    if "multiprocessing.managers" not in sys.modules:
        return None
    return bytes(sys.modules["multiprocessing.process"].current_process().authkey)


def _import_path() -> list[str]:
    """Return `sys.path`, with the working directory in place of an empty entry."""
    return [entry or _working_folder() for entry in sys.path]
