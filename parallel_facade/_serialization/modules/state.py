"""What a process remembers between calls: as a caller about its modules, as a worker about both.

Guarantees:
    - Nothing here grows with the number of calls: entries belong to names of the program's modules,
      to calls that have not ended, or to classes that are alive.
    - An object that may have died is remembered by a weak reference, where there is one; see
      `recognizer`.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable
from typing import Any, Final

from parallel_facade._common.plain_data import ATOMIC_TYPES

ChangedPlace = tuple[str, str]
"""A module, and the dotted path of a class or function in it; an empty path for the module."""

MOST_HELD: Final = 1_000
"""Elements of a container, or characters of a text, that is held to recognize it later."""


class CallerState:
    """What a caller remembers about the modules of its program, and about what workers have."""

    def __init__(self) -> None:
        self.names_read: dict[ChangedPlace, set[str]] = {}
        """The names that calls have read, and that were there."""
        self.names_sent: set[tuple[ChangedPlace, str]] = set()
        """The names for which workers once received an object."""
        self.first_objects: dict[tuple[ChangedPlace, str], Callable[[object], bool]] = {}
        """For each name a function that recognizes the object that was seen first."""
        self.marked_changed: set[tuple[str, str]] = set()
        """Module and path of names for which workers received another object."""
        self.first_codes: dict[tuple[str, str], tuple[types.CodeType, ...]] = {}
        """By module and path: the code of a function when it was seen first."""
        self.first_seen: dict[str, dict[str, Callable[[], Any]]] = {}
        """By module and name: references to its functions and classes when it was seen first."""
        self.containers: dict[tuple[ChangedPlace, str], tuple[Callable[[object], bool], int]] = {}
        """By name: what recognizes the container that was sent last, and how often it had been
        replaced by another one."""


class ScriptRecord:
    """The globals of a script in one call, in a worker.

    Attributes:
        space: The globals; once the call has ended, those that a later call may use.
        inherited: What tasks of earlier calls left, by name: the caller's value then, pickled, and
            the value in the worker.
        arrived: The names that came with the call, with the value if that is plain, pickled.
        carried: The names that come from an earlier call, and not with this one.
    """

    def __init__(self, space: dict[str, Any], inherited: dict[str, tuple[bytes, Any]]) -> None:
        self.space = space
        self.inherited = inherited
        self.arrived: dict[str, bytes | None] = {}
        self.carried: set[str] = set()


class WorkerState:
    """What a worker remembers about its callers' modules and classes."""

    def __init__(self) -> None:
        self.applied: dict[tuple[str, str, str], bytes] = {}
        """By module, path and name: the last plain value that was applied, pickled."""
        self.settled: dict[str, set[tuple[str, str, str]]] = {}
        """By call: the places and names that were applied."""
        self.spaces: dict[str, dict[str, types.ModuleType]] = {}
        """By call and key: the modules in which its functions run."""
        self.scripts: dict[str, ScriptRecord] = {}
        """By calling process: the globals of its script in its last call."""
        self.records: dict[int, ScriptRecord] = {}
        """By the id of the globals: those of calls that have not ended."""
        self.pinned_globals: dict[str, dict[str, Any]] = {}
        """By module: values that the initializer has set."""
        self.received_classes: dict[str, tuple[str, frozenset[str]]] = {}
        """By token: the call whose attributes a class has, and their names."""
        self.pinned_attributes: dict[str, dict[str, Any]] = {}
        """By token: attributes of a class that the initializer has set."""
        self.unhooked_classes: set[str] = set()
        """Tokens of classes for which the hook of a library has not run yet."""

    def forget_class(self, token: str) -> None:
        """Forget a class that was collected."""
        # Not what the initializer has set: the class may be sent again, and there are few of these.
        self.received_classes.pop(token, None)
        self.unhooked_classes.discard(token)


caller: Final = CallerState()
worker: Final = WorkerState()


def reset() -> None:
    """Forget everything, as in a new process; for tests."""
    vars(caller).update(vars(CallerState()))
    vars(worker).update(vars(WorkerState()))


def recognizer(obj: object) -> Callable[[object], bool]:
    """Return a function that says whether an object is *obj*, also when *obj* has died since.

    Lists and dictionaries have no weak references. Those of functions, classes and plain values are
    held, since they cost little. A container of other objects is not: they may be large. Its
    successor at the same address is then taken for it, if no call was made in between.
    """
    try:
        reference: Callable[[], object] = weakref.ref(obj)
    except TypeError:
        if _costs_little(obj):
            return lambda other: other is obj
        number, kind = id(obj), type(obj)
        return lambda other: id(other) == number and type(other) is kind
    return lambda other: other is not None and other is reference()


def _costs_little(obj: object) -> bool:
    if isinstance(obj, str | bytes):
        return len(obj) <= MOST_HELD
    if not isinstance(obj, list | dict | set | tuple | frozenset):
        return type(obj) in ATOMIC_TYPES
    elements = [*obj, *obj.values()] if isinstance(obj, dict) else list(obj)
    held = (types.FunctionType, types.BuiltinFunctionType, type)
    return len(elements) <= MOST_HELD and all(
        isinstance(one, held) or (type(one) in ATOMIC_TYPES and sys.getsizeof(one) <= MOST_HELD)
        for one in elements
    )
