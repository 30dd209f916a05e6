"""Objects of a call's callable that are also among its items: in a task they are one object.

    caller: pmap(graph.process, graph.nodes)
            callable ──pickler──► payload, and the number that each object has in it
            item     ── has a number: ──► "object 7 of the callable"
    worker: callable ◄─unpickler── payload, and the object that each number stands for
            item     ◄─ object 7 ──┘

The callable is sent once and the items later, so pickle alone would make two objects of one. Tasks
that compare by `is`, or look an item up in a dictionary of the callable, need one.

Guarantees:
    - Items that share nothing with the callable are sent as they would be otherwise.
    - An object that was changed since the callable was packed, or that holds one that was, is sent
      as it is now.

Assumes:
    - Pickler and unpickler number objects alike: pickle's protocol says so.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from parallel_facade._common.plain_data import ATOMIC_TYPES
from parallel_facade._serialization.changed_parts import ChangedParts

CONTAINERS: Final = frozenset({list, dict, set, bytearray})
"""Built-in types that are compared by identity, and that a pickler does not ask about."""

NEVER_ITEMS: Final = frozenset(
    {*ATOMIC_TYPES, tuple, frozenset, type, types.FunctionType, types.CodeType, types.CellType}
    | {types.ModuleType, types.BuiltinFunctionType, types.MethodType}
)
"""Types without an identity that a task could see, and those that travel in a way of their own."""


FEW_ITEMS: Final = 100
"""Looking at more items takes longer than looking at the parts of most callables."""


def are_plain(form: str, items: list[Any]) -> bool:
    """Return whether there are few *items*, and nothing of them needs a rule of its own.

    Args:
        form: How an item becomes arguments.
        items: The items of a chunk.
    """
    if len(items) > FEW_ITEMS:
        return False
    if form == "one":
        return ATOMIC_TYPES.issuperset(map(type, items))
    if form == "many":
        return all(ATOMIC_TYPES.issuperset(map(type, item)) for item in items)
    return all(not kwds and ATOMIC_TYPES.issuperset(map(type, args)) for args, kwds in items)


class SentParts:
    """The objects of a callable, by which later payloads refer to them.

    Args:
        memo: Returns the pickler's memo: by id, the number of an object and the object.
        changes: Returns what finds the objects that have changed since; `None` if none can have,
            since the program does not run between the callable and the items.
    """

    def __init__(
        self,
        memo: Callable[[], dict[int, tuple[int, Any]]],
        changes: Callable[[], ChangedParts] | None,
    ) -> None:
        self._memo = memo
        self._find_changes = changes
        self._changes: ChangedParts | None = None
        self._numbers: dict[int, int] | None = None
        self._holds_containers: bool | None = None

    def look_again(self) -> None:
        """Forget which objects are as they were: the program has run."""
        if self._changes is not None:
            self._changes.forget_answers()

    def number_of(self, obj: Any) -> int | None:
        """Return the number of *obj* in the callable's payload; `None` if it is sent anew."""
        if (numbers := self._numbers) is None:
            numbers = self._numbers = _numbers_in(self._memo())
        number = numbers.get(id(obj))
        if number is None or self._find_changes is None:
            return number
        if self._changes is None:
            self._changes = self._find_changes()
        return None if self._changes.has_changed(obj) else number

    def shared_in(self, form: str, items: list[Any]) -> list[Any]:
        """Return *items* with references for the containers that are parts of the callable.

        Args:
            form: How an item becomes arguments.
            items: The items of a chunk.
        """
        if ATOMIC_TYPES.issuperset(map(type, items)) or not self._has_containers():
            return items
        if form == "one":
            return [self._shared(item) for item in items]
        if form == "many":
            return [tuple(map(self._shared, item)) for item in items]
        return [
            (tuple(map(self._shared, args)), {name: self._shared(kwds[name]) for name in kwds})
            for args, kwds in items
        ]

    def _has_containers(self) -> bool:
        """Return whether a container is a part of the callable."""
        if self._holds_containers is None:
            entries = self._memo().values()
            self._holds_containers = any(type(obj) in CONTAINERS for _, obj in entries)
        return self._holds_containers

    def _shared(self, obj: Any) -> Any:
        if type(obj) in CONTAINERS and (number := self.number_of(obj)) is not None:
            return PartReference(number)
        return obj


def _numbers_in(memo: dict[int, tuple[int, Any]]) -> dict[int, int]:
    return {
        key: number
        for key, (number, obj) in memo.items()
        if type(obj) not in NEVER_ITEMS and not isinstance(obj, type)
    }


class PartReference:
    """Stands for an object of the callable in a payload."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a worker finds the object."""
        return part_of_call, (self._number,)


_parts: ContextVar[Callable[[int], Any]] = ContextVar("parallel_facade_parts")


def part_of_call(number: int) -> Any:
    """Return the object with *number* of the callable whose items are being rebuilt."""
    return _parts.get()(number)


class ReceivedParts:
    """The objects of a callable in a worker.

    Args:
        memo: Returns the unpickler's memo: objects by their numbers.
    """

    def __init__(self, memo: Callable[[], dict[int, Any]]) -> None:
        self._memo = memo
        self._objects: dict[int, Any] | None = None

    def forget_values(self) -> None:
        """Release what no item is: the bytes that objects were made from may be large."""
        self._objects = {
            number: obj for number, obj in self._memo().items() if type(obj) not in NEVER_ITEMS
        }
        self._memo = dict

    def rebuild(self, make: Callable[[], Any]) -> Any:
        """Return what *make* rebuilds from payloads that may refer to these objects."""
        token = _parts.set(self._object)
        try:
            return make()
        finally:
            _parts.reset(token)

    def _object(self, number: int) -> Any:
        if self._objects is None:
            self._objects = self._memo()
        return self._objects[number]
