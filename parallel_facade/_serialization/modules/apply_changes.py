"""Describe changes of the user's modules, and apply them in a worker.

Guarantees:
    - A list, dictionary or set is updated in place, so modules that imported it see the update.
    - A value that a task or initializer set stays as long as the caller's value does not change.
    - A payload that comes back never changes the modules of the side that made the call.
"""

from __future__ import annotations

import functools
import pickle
import types
from importlib import import_module
from typing import Any, Final, NamedTuple

from parallel_facade._common.call_ids import is_from_here
from parallel_facade._common.plain_data import is_same
from parallel_facade._serialization.modules.call_globals import pinned_in
from parallel_facade._serialization.modules.registrations import Registration, register
from parallel_facade._serialization.modules.state import ChangedPlace, worker


class ModuleChanges(NamedTuple):
    """The changes of the user's modules that a payload carries.

    Attributes:
        plain: Place → name → plain value, pickled.
        objects: Place → name → value that is not plain.
        entries: (module, name of a container) → entries that the script added, such as plug-ins.
        deleted: Place → names that existed in an earlier call and are now deleted.
        variables: Context variables, with their values in the caller's context, as payloads.
        registrations: What the script has registered with functions and classes of modules.
    """

    plain: dict[ChangedPlace, dict[str, bytes]]
    objects: dict[ChangedPlace, dict[str, Any]]
    entries: dict[tuple[str, str], Any]
    deleted: dict[ChangedPlace, list[str]]
    variables: list[bytes]
    registrations: list[Registration]

    @classmethod
    def none(cls) -> ModuleChanges:
        """Return an empty record to fill."""
        return cls({}, {}, {}, {}, [], [])


_MISSING: Final = object()


def apply_changes(call_id: str, changes: ModuleChanges) -> None:
    """Give the modules of this worker the values of the caller's modules."""
    if is_from_here(call_id):
        return
    for place, values in changes.plain.items():
        _apply_plain(call_id, place, values)
    for place, objects in changes.objects.items():
        _apply_objects(call_id, place, objects)
    for (module_name, name), entries in changes.entries.items():
        _add_entries(getattr(import_module(module_name), name, None), entries)
    for blob in changes.variables:
        pickle.loads(blob)
    for place, names in changes.deleted.items():
        _take_away(place, names)
    for registration in changes.registrations:
        register(registration)


def _apply_plain(call_id: str, place: ChangedPlace, values: dict[str, bytes]) -> None:
    new = {
        name: blob
        for name, blob in values.items()
        if worker.applied.get((*place, name)) != blob and _must_apply(call_id, place, name)
    }
    worker.applied.update({(*place, name): blob for name, blob in new.items()})
    _set(place, {name: pickle.loads(blob) for name, blob in new.items()})


def _apply_objects(call_id: str, place: ChangedPlace, objects: dict[str, Any]) -> None:
    due = {name: value for name, value in objects.items() if _must_apply(call_id, place, name)}
    for name in due:
        worker.applied.pop((*place, name), None)
    _set(place, due)


def _must_apply(call_id: str, place: ChangedPlace, name: str) -> bool:
    """Return whether to set *name*: once in a call, and never a name that an initializer set."""
    module, path = place
    if not path and name in pinned_in(module):
        return False
    settled = worker.settled.setdefault(call_id, set())
    is_new = (*place, name) not in settled
    settled.add((*place, name))
    return is_new


def _set(place: ChangedPlace, values: dict[str, Any]) -> None:
    if values and (holder := _holder(place)) is not None:
        changed = [name for name, value in values.items() if _put(holder, name, value)]
        if changed:
            _forget_results(import_module(place[0]))


def _holder(place: ChangedPlace) -> Any:
    module, path = place
    holder: Any = import_module(module)
    for name in path.split(".") if path else ():
        holder = getattr(holder, name, None)
    return holder


def _forget_results(module: types.ModuleType) -> None:
    """Clear the function caches of *module*, because the functions may have read old values."""
    for value in list(vars(module).values()):
        if isinstance(value, functools._lru_cache_wrapper):
            value.cache_clear()


def _take_away(place: ChangedPlace, names: list[str]) -> None:
    holder = _holder(place)
    for name in names:
        worker.applied.pop((*place, name), None)
        if holder is not None and name in vars(holder):
            delattr(holder, name)


def _add_entries(container: Any, entries: Any) -> None:
    if type(container) in {dict, set}:
        container.update(entries)
    elif type(container) is list:
        container += [one for one in entries if not any(one is known for known in container)]


def forget(call_id: str) -> None:
    """Forget which values were applied for a call that has ended."""
    worker.settled.pop(call_id, None)


def _put(holder: Any, name: str, value: Any) -> bool:
    """Set *name* of *holder*, updating containers in place; return whether the value changed."""
    is_function = isinstance(holder, types.FunctionType)
    current = getattr(holder, name) if is_function else vars(holder).get(name, _MISSING)
    if is_same(value, current):
        return False
    if type(value) is type(current) and isinstance(value, dict | set):
        current.clear()
        current.update(value)
    elif type(value) is type(current) is list:
        current[:] = value
    elif isinstance(holder, type):
        type.__setattr__(holder, name, value)
    else:
        setattr(holder, name, value)
    return True
