"""What a process remembers between calls: as a caller about its modules, as a worker about both.

Guarantees:
    - Nothing here grows with the number of calls: entries belong to names of the program's modules,
      to calls that have not ended, or to classes that are alive.
    - An object that may have died is remembered by a weak reference, never by its id alone.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from typing import Any, Final

ChangedPlace = tuple[str, str]
"""A module, and the dotted path of a class or function in it; an empty path for the module."""

MOST_HELD: Final = 1_000
"""Elements of a container that is held to recognize it later, since it has no weak reference."""


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


class WorkerState:
    """What a worker remembers about its callers' modules and classes."""

    def __init__(self) -> None:
        self.applied: dict[tuple[str, str, str], bytes] = {}
        """By module, path and name: the last plain value that was applied, pickled."""
        self.settled: dict[str, set[tuple[str, str, str]]] = {}
        """By call: the places and names that were applied."""
        self.spaces: dict[str, dict[str, types.ModuleType]] = {}
        """By call and key: the modules in which its functions run."""
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
        self.received_classes.pop(token, None)
        self.pinned_attributes.pop(token, None)
        self.unhooked_classes.discard(token)


caller: Final = CallerState()
worker: Final = WorkerState()


def reset() -> None:
    """Forget everything, as in a new process; for tests."""
    vars(caller).update(vars(CallerState()))
    vars(worker).update(vars(WorkerState()))


def recognizer(obj: object) -> Callable[[object], bool]:
    """Return a function that says whether an object is *obj*, also when *obj* has died since."""
    try:
        reference: Callable[[], object] = weakref.ref(obj)
    except TypeError:
        if isinstance(obj, list | dict | set | tuple) and len(obj) > MOST_HELD:
            # It is not held for its size; the type and length tell most successors apart.
            number, kind, length = id(obj), type(obj), len(obj)
            return lambda other: (
                id(other) == number and type(other) is kind and len(other) == length
            )
        return lambda other: other is obj
    return lambda other: other is not None and other is reference()
