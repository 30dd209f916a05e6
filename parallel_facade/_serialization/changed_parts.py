"""Which objects of a callable have changed since it was packed, in themselves or in what they hold.

    payload of the callable ──unpickled to shapes──► what each object was ─┐
    an object now ──pickled, unpickled to shapes──► what it is ────────────┴─► the same?

A `Shape` stands for an object that a payload makes: it notes which class or function is called with
what, and calls neither. So the program's own payload tells what an object was, and nothing has to
be noted when the callable is packed.

Guarantees:
    - An object that could be another one in a worker is never taken for unchanged.
    - None of the code that rebuilds objects is run.

Assumes:
    - Between two calls of `forget_answers`, nothing changes the objects.
"""

from __future__ import annotations

import io
import pickle
import types
from collections import Counter
from collections.abc import Callable
from math import copysign
from typing import Any, Final, NamedTuple

from parallel_facade._common.plain_data import ATOMIC_TYPES

OURS: Final = __name__.rpartition(".")[0]

LEAF_TYPES: Final = (type, types.ModuleType, types.BuiltinFunctionType, types.CodeType)
"""What is sent once for a call, or by name: it is the same if it is the same object."""

BYTES: Final = (bytes, bytearray, memoryview)
CONTAINERS: Final = (list, dict, set, bytearray, memoryview)


class Packed(NamedTuple):
    """An object's payload, as its pickler left it.

    Attributes:
        data: The pickled bytes.
        buffers: The contents of the buffers beside them.
        memo: By id, the number of an object in the payload and the object.
    """

    data: bytes
    buffers: list[Any]
    memo: dict[int, tuple[int, Any]]


class Shape:
    """Stands for an object: how it is made, and what is put into it."""

    origin: tuple[str, str] | None = None
    """Module and name of the class or function that makes it."""

    def __new__(cls, *args: Any, **kwds: Any) -> Any:
        """Note the arguments of a call."""
        if len(args) == 2 and isinstance(args[0], Shape | _ClassShape) and type(args[1]) is not str:
            # It may be a function that gives an object its state; its result is then dropped.
            args[0].steps.append((cls, args[1]))
        if cls.origin is not None and cls.origin[0].startswith(OURS):
            # A function of ours may return a class, of which the payload then makes objects.
            return _ClassShape(cls.origin[1], (Shape,), {"steps": [cls, args, kwds]})
        self = object.__new__(cls)
        self.steps = [args, kwds]
        return self

    steps: list[Any]

    def __setstate__(self, state: Any) -> None:
        """Note a state."""
        self.steps.append(state)

    def extend(self, values: Any) -> None:
        """Note the elements of a list, or of a set."""
        self.steps.append(list(values))

    add = __setstate__

    def __setitem__(self, key: Any, value: Any) -> None:
        """Note an entry."""
        self.steps.append((key, value))


class _ClassShape(type):
    """Stands for a class that travels by value, or for what else our own functions make."""

    steps: list[Any]

    # Data descriptors: a class finds them before the methods of its objects.
    __setstate__ = property(lambda cls: cls.steps.append)
    extend = property(lambda cls: cls.steps.append)
    add = property(lambda cls: cls.steps.append)

    def __setitem__(cls, key: Any, value: Any) -> None:
        cls.steps.append((key, value))


class _ShapeUnpickler(pickle.Unpickler):
    """Makes shapes of the objects in a payload.

    Args:
        packed: The payload.
        known: The shapes of what has a name, for all payloads that are compared.
    """

    def __init__(self, packed: Packed, known: dict[tuple[str, str], Any]) -> None:
        super().__init__(io.BytesIO(packed.data), buffers=packed.buffers)
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        """Return the shape of what is called *name*, which is not imported."""
        key = module, name
        if (found := self._known.get(key)) is None:
            found = self._known[key] = type(name, (Shape,), {"origin": key})
        return found


class _Picture:
    """The shapes of one payload, and the objects that they stand for."""

    def __init__(self, packed: Packed, known: dict[tuple[str, str], Any]) -> None:
        unpickler: Any = _ShapeUnpickler(packed, known)
        self.root = unpickler.load()
        self.shapes: dict[int, Any] = unpickler.memo.copy()
        """By number."""
        self._shared: set[int] | None = None  # ids of shapes; counted when it is asked for
        self._objects = {
            id(self.shapes[number]): obj
            for number, obj in packed.memo.values()
            if number in self.shapes
        }

    def is_shared(self, shape: Any) -> bool:
        """Return whether several places hold a list, set or dictionary, or its bytes."""
        if self._shared is None:
            counts = Counter(id(part) for one in self.shapes.values() for part in _parts_of(one))
            self._shared = {key for key, count in counts.items() if count > 1}
        return isinstance(shape, CONTAINERS) and id(shape) in self._shared

    def object_of(self, shape: Any) -> Any:
        """Return the object that *shape* stands for; `None` if it is not known."""
        return self._objects.get(id(shape))


class _Compared(NamedTuple):
    """An object that was compared, and what came of it.

    Attributes:
        obj: The object.
        data: Its payload at that time.
        numbers: In the payload, the numbers of the callable's parts, by their ids.
        answers: By the id of each part that it holds, whether that has changed.
    """

    obj: Any
    data: bytes
    numbers: dict[int, int]
    answers: dict[int, bool]


class ChangedParts:
    """Finds changed objects of one callable.

    Args:
        packed: The callable as it was sent.
        pack: Packs an object as it is now.
    """

    def __init__(self, packed: Packed, pack: Callable[[Any], Packed]) -> None:
        self._packed: Packed | None = packed
        self._pack = pack
        self._numbers = {key: number for key, (number, _) in packed.memo.items()}
        self._known: dict[tuple[str, str], Any] = {}
        self._before: _Picture | None = None
        self._answers: dict[int, bool] = {}
        self._last: _Compared | None = None

    def forget_answers(self) -> None:
        """Look again at every object that is asked for from now on."""
        self._answers = {}

    def has_changed(self, obj: Any) -> bool:
        """Return whether *obj*, a part of the callable, may differ from what was sent."""
        if type(obj) is object:
            return False
        if (answer := self._answers.get(id(obj))) is None:
            try:
                if not self._answers and self._last is not None and id(obj) in self._last.answers:
                    self._look_again(self._last)
                if id(obj) not in self._answers:
                    self._compare(obj)
            except Exception:  # it cannot be packed alone, or is made in a way of its own
                self._answers[id(obj)] = True
            answer = self._answers[id(obj)]
        return answer

    def _look_again(self, last: _Compared) -> None:
        """Give the answers of the last time if the object that was compared is still as it was."""
        packed = self._pack(last.obj)
        if packed.data == last.data and self._numbers_in(packed) == last.numbers:
            self._answers.update(last.answers)

    def _numbers_in(self, packed: Packed) -> dict[int, int]:
        """Return the number of each part of the callable in *packed*, by the part's id."""
        return {key: number for key, (number, _) in packed.memo.items() if key in self._numbers}

    def _compare(self, obj: Any) -> None:
        """Answer for *obj* and for all parts of the callable that it holds."""
        if self._packed is not None:
            self._before, self._packed = _Picture(self._packed, self._known), None
        packed = self._pack(obj)
        before, now = self._before, _Picture(packed, self._known)
        assert before is not None, "it is made from the payload"
        comparison = _Comparison(before, now, self._numbers)
        comparison.run(before.shapes[self._numbers[id(obj)]], now.root)
        answers = comparison.answers()
        answers.setdefault(id(obj), True)
        self._answers.update(answers)
        self._last = _Compared(obj, packed.data, self._numbers_in(packed), answers)


class _Comparison:
    """Compares an object's shape before with its shape now, and all that it holds."""

    def __init__(self, before: _Picture, now: _Picture, numbers: dict[int, int]) -> None:
        self._before = before
        self._now = now
        self._numbers = numbers
        self._pairs: dict[int, Any] = {}  # id of a shape now → the shape before
        self._partners: dict[int, int] = {}  # and the other way round, by ids
        self._holders: dict[int, list[int]] = {}  # id of a shape → ids of those that hold it
        self._changed: list[int] = []
        self._waiting: list[tuple[Any, Any]] = []

    def run(self, before: Any, now: Any) -> None:
        """Compare everything that can be reached from the two."""
        self._meet(before, now, holder=0)
        while self._waiting:
            before, now = self._waiting.pop()
            parts = _parts_of(before), _parts_of(now)
            if len(parts[0]) != len(parts[1]):
                self._changed.append(id(now))
                continue
            for one, other in zip(*parts, strict=True):
                self._meet(one, other, holder=id(now))

    def answers(self) -> dict[int, bool]:
        """Return by the id of each part of the callable that was met whether it has changed."""
        changed = set(self._changed)
        while self._changed:
            for holder in self._holders.get(self._changed.pop(), ()):
                if holder not in changed:
                    changed.add(holder)
                    self._changed.append(holder)
        return {
            id(obj): key in changed
            for key in self._pairs
            if (obj := self._now._objects.get(key)) is not None
        }

    def _meet(self, before: Any, now: Any, *, holder: int) -> None:
        """Compare two shapes in one place of *holder*."""
        kind = type(now)
        if kind in ATOMIC_TYPES:
            if type(before) is not kind or not _is_same_value(before, now):
                self._changed.append(holder)
            return
        self._holders.setdefault(id(now), []).append(holder)
        if id(now) in self._pairs:
            if self._pairs[id(now)] is not before:
                self._changed.append(id(now))
            return
        self._pairs[id(now)] = before
        match self._is_same_leaf(before, now):
            case None:
                self._waiting.append((before, now))
            case False:
                self._changed.append(id(now))

    def _is_same_leaf(self, before: Any, now: Any) -> bool | None:
        """Return whether two shapes are the same; `None` if that depends on what they hold."""
        was, is_now = self._before.object_of(before), self._now.object_of(now)
        if isinstance(is_now, LEAF_TYPES):
            return was is is_now
        is_object = isinstance(now, Shape) and is_now is not None
        if (is_object or id(is_now) in self._numbers) and was is not is_now:
            return False
        return True if now is before else self._is_same_content(before, now)

    def _is_same_content(self, before: Any, now: Any) -> bool | None:
        are_shapes = isinstance(before, Shape) and isinstance(now, Shape)
        are_bytes = isinstance(before, BYTES) and isinstance(now, BYTES)
        is_alike = type(before) is type(now) or are_shapes or are_bytes
        if not is_alike or not self._may_be_one(before, now):
            return False
        if are_bytes:
            return bool(before == now)
        if isinstance(now, set | frozenset):
            is_plain = ATOMIC_TYPES.issuperset(map(type, now))
            return is_plain and _typed(before) == _typed(now)
        return None

    def _may_be_one(self, before: Any, now: Any) -> bool:
        """Return whether the two may stand for one object, by its type and by who else holds it."""
        was, is_now = self._before.object_of(before), self._now.object_of(now)
        if was is not None and is_now is not None:
            if type(was) is not type(is_now):
                return False
            if was is not is_now and self._before.is_shared(before):
                return False  # it was one object with what another place holds
        # Else there are two objects now, which were one.
        return self._partners.setdefault(id(before), id(now)) == id(now)


def _typed(values: Any) -> set[tuple[type, str]]:
    """Return *values* so that 1 and True, and 0.0 and -0.0, are different."""
    return {(type(one), repr(one)) for one in values}


def _is_same_value(before: Any, now: Any) -> bool:
    if before == now:
        return type(now) is not float or copysign(1, before) == copysign(1, now)
    return bool(now != now and before != before)  # noqa: PLR0124 - not a number


def _parts_of(shape: Any) -> list[Any]:
    kind = type(shape)
    if kind in {list, tuple}:
        return list(shape)
    if kind is dict:
        return [*shape, *shape.values()]
    if isinstance(shape, type):
        return shape.__dict__.get("steps", [])  # type: ignore[no-any-return]
    return [kind, *shape.steps] if isinstance(shape, Shape) else []
