"""Keep what tasks set in the globals of a script, from call to call of the same script.

    call 1: MODEL is None ─► a task sets MODEL = load() ─► the worker keeps the model and the None
    call 2: MODEL is None, as in call 1 ─► in the worker, MODEL is the loaded model

So a worker loads a model once, as it does for a module that it imports. If the caller's own value
has changed, that one holds; also one that is not plain, since it may have changed inside.

Guarantees:
    - A name that the caller has not got, and that a task has set, stays set.
    - Large values of a call that has ended are not kept, unless a task has set them.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any, Final

from parallel_facade._common.call_ids import caller_of, is_from_here
from parallel_facade._common.plain_data import PROTOCOL, is_plain
from parallel_facade._serialization.modules.state import ScriptRecord, worker

MOST_SCRIPTS: Final = 8
"""Scripts whose globals a worker keeps; a worker of a cluster may serve many programs."""

ABSENT: Final = b""
"""Stands for the pickled value of a name that the caller has not sent."""


def follow_script(call_id: str, space: dict[str, Any]) -> None:
    """Begin the globals *space* of a call with what tasks have set in earlier calls."""
    if is_from_here(call_id):
        return
    key = caller_of(call_id)
    before = worker.scripts.pop(key, None)
    inherited = {} if before is None else {**before.inherited, **dict(_left_by(before))}
    record = ScriptRecord(space, inherited)
    worker.scripts[key] = worker.records[id(space)] = record
    if len(worker.scripts) > MOST_SCRIPTS:
        del worker.scripts[next(iter(worker.scripts))]
    for name, (blob, value) in inherited.items():
        if blob is ABSENT and name not in space:
            space[name] = value
            record.carried.add(name)


def _left_by(record: ScriptRecord) -> Iterator[tuple[str, tuple[bytes, Any]]]:
    """Yield what a later call may use of a call: the caller's value then, and the value now."""
    for name, value in record.space.items():
        blob = record.arrived.get(name, ABSENT)
        if blob is not None and not name.startswith("__"):
            yield name, (blob, value)


def fill_script(space: dict[str, Any], values: dict[str, Any]) -> None:
    """Add the *values* that *space* lacks; names that tasks have set stay as long as they may."""
    record = worker.records.get(id(space))
    if record is None:
        for name, value in values.items():
            space.setdefault(name, value)
        return
    for name, value in values.items():
        if name not in record.arrived and (name not in space or name in record.carried):
            record.carried.discard(name)
            space[name] = _value_to_use(record, name, value)


def _value_to_use(record: ScriptRecord, name: str, value: Any) -> Any:
    blob = pickle.dumps(value, PROTOCOL) if is_plain(value) else None
    record.arrived[name] = blob
    before, kept = record.inherited.pop(name, (None, None))
    return kept if blob is not None and before == blob else value


def leave_script(space: dict[str, Any]) -> None:
    """Keep of a call that has ended only what a later call may use."""
    record = worker.records.pop(id(space), None)
    if record is not None:
        record.space = {name: value for name, (_, value) in _left_by(record)}
