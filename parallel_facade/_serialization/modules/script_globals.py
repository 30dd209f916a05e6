"""Keep what tasks set in the globals of a script, from call to call of the same script.

    call 1: MODEL is None ─► a task sets MODEL = load() ─► the worker keeps the model and the None
    call 2: MODEL is None, as in call 1 ─► in the worker, MODEL is the loaded model

So a worker loads a model once, as it does for a module that it imports. If the caller's own value
has changed, that one holds; also one that is not plain, since it may have changed inside.

Guarantees:
    - A name that the caller has not got, and that a task has set, stays set.
    - A list, set or dictionary that the caller has replaced has changed, also by an equal one.
    - A function or object that a task has kept goes on with the globals of the call that made it.
    - Large values of a call that has ended are not kept, unless a task has set them.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from typing import Any, Final

from parallel_facade._common.call_ids import caller_of, is_from_here
from parallel_facade._common.plain_data import PROTOCOL, is_plain
from parallel_facade._serialization.modules.replaced import times_replaced
from parallel_facade._serialization.modules.state import ScriptRecord, worker

MAIN: Final = "__main__"

MOST_SCRIPTS: Final = 8
"""Scripts whose globals a worker keeps; a worker of a cluster may serve many programs."""

ABSENT: Final = b""
"""Stands for the pickled value of a name that the caller has not sent."""


def replaced_in(space: dict[str, Any], reads: dict[str, Any]) -> dict[str, int]:
    """Return how often the program has given another object to the names of mutable values.

    Args:
        space: The globals of a script.
        reads: The globals to send.

    Returns:
        The names for which it has, since they were sent first.
    """
    if space is not getattr(sys.modules.get(MAIN), "__dict__", None):
        return {}
    return {
        name: count
        for name, value in reads.items()
        if (count := times_replaced((MAIN, ""), name, value))
    }


def follow_script(call_id: str, pinned: dict[str, Any]) -> types.ModuleType:
    """Return the module for the script of a call, with what tasks have set in earlier calls.

    Args:
        call_id: The call.
        pinned: Values that stay as they are, whatever the caller sends.
    """
    if is_from_here(call_id):
        return types.ModuleType(MAIN)
    key = caller_of(call_id)
    before = worker.scripts.pop(key, None)
    module = types.ModuleType(MAIN)
    space = vars(module)
    inherited = {} if before is None else {**before.inherited, **dict(_left_by(before))}
    record = ScriptRecord(space, inherited)
    worker.scripts[key] = worker.records[id(space)] = record
    if len(worker.scripts) > MOST_SCRIPTS:
        del worker.scripts[next(iter(worker.scripts))]
    for name, (blob, value) in inherited.items():
        if blob is ABSENT and name not in space:
            space[name] = value
    record.carried = space.keys() & (inherited.keys() - pinned.keys())
    return module


def _left_by(record: ScriptRecord) -> Iterator[tuple[str, tuple[bytes, Any]]]:
    """Yield what a later call may use of a call: the caller's value then, and the value now."""
    for name, value in record.space.items():
        blob = record.arrived.get(name, ABSENT)
        if blob is not None and not name.startswith("__"):
            yield name, (blob, value)


def fill_script(
    space: dict[str, Any], values: dict[str, Any], replaced: dict[str, int] | None = None
) -> None:
    """Add the *values* that *space* lacks; names that tasks have set stay as long as they may.

    Args:
        space: The globals of a call.
        values: What the caller has sent, by name.
        replaced: What `replaced_in` returned for them.
    """
    record = worker.records.get(id(space))
    if record is None:
        for name, value in values.items():
            space.setdefault(name, value)
        return
    counts = replaced or {}
    for name, value in values.items():
        if name not in record.arrived and (name not in space or name in record.carried):
            record.carried.discard(name)
            space[name] = _value_to_use(record, name, value, counts.get(name, 0))


def _value_to_use(record: ScriptRecord, name: str, value: Any, count: int) -> Any:
    blob = pickle.dumps((value, count), PROTOCOL) if is_plain(value) else None
    record.arrived[name] = blob
    before, kept = record.inherited.pop(name, (None, None))
    return kept if blob is not None and before == blob else value


def leave_script(module: types.ModuleType) -> None:
    """Keep of a call that has ended only what a later call may use."""
    space = vars(module)
    record = worker.records.pop(id(space), None)
    if record is None:
        return
    # Another dictionary: what a task has kept elsewhere still reads the globals of its own call.
    record.space = {name: value for name, (_, value) in _left_by(record)}
