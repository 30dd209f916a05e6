"""Encode objects as payloads and decode them; explain why an object cannot be encoded.

    object ──► bytes, with large buffers beside them if there is a segment pool or a store

Guarantees:
    - If encoding fails, a `SerializationError` names each part that cannot travel.
    - An object arrives in the state that it had when it was encoded; later changes do not matter.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from parallel_facade._common.errors import SerializationError, described
from parallel_facade._common.interrupt_safety import raise_if_handlers
from parallel_facade._common.plain_data import PROTOCOL
from parallel_facade._serialization.buffers.object_store import (
    BufferRef,
    FetchedBuffer,
    Store,
)
from parallel_facade._serialization.buffers.placer import BufferPlacer
from parallel_facade._serialization.buffers.shared_memory import (
    MappedSegment,
    SegmentPool,
    SharedSegment,
)
from parallel_facade._serialization.call_parts import ReceivedParts, SentParts, are_plain
from parallel_facade._serialization.changed_parts import ChangedParts, Packed
from parallel_facade._serialization.deep_recursion import is_of_pickler, with_room
from parallel_facade._serialization.modules.importable import remember_answers, send_by_value
from parallel_facade._serialization.offenders import Offender, find_offenders, tree
from parallel_facade._serialization.pickler import (
    DeepPickler,
    Reducer,
    StandardPickler,
    TravelPickler,
)
from parallel_facade._serialization.rules.memory_regions import remember_regions

LARGE_BYTES: Final = 1 << 20
"""A callable of this size may be made from values that are worth releasing."""


class Payload(NamedTuple):
    """An object in its encoded form.

    Attributes:
        data: The pickled bytes.
        segments: Buffers that the data refers to, in order, each a `SharedSegment` or `BufferRef`.
    """

    data: bytes
    segments: tuple[Any, ...] = ()

    @property
    def size(self) -> int:
        """Total bytes, including the segments."""
        return len(self.data) + sum(int(segment.size) for segment in self.segments)


def decode_callable(
    data: Any, mapped_segments: tuple[MappedSegment | FetchedBuffer, ...] = ()
) -> tuple[Any, ReceivedParts]:
    """Return the callable that a payload holds, as `decode` does, and its parts."""
    buffers = [mapped_segment.open() for mapped_segment in mapped_segments]
    with io.BytesIO(data) as stream:  # closed: the unpickler would keep it
        unpickler: Any = pickle.Unpickler(stream, buffers=buffers)
        loaded, parts = unpickler.load(), ReceivedParts(unpickler.memo.copy)
    if len(data) >= LARGE_BYTES or buffers:
        parts.forget_values()
    return loaded, parts


def decode(data: Any, mapped_segments: tuple[MappedSegment | FetchedBuffer, ...] = ()) -> Any:
    """Return the object that a payload holds; raise whatever the object's own code raises.

    Args:
        data: The pickled bytes.
        mapped_segments: The buffers that the data refers to, in order.
    """
    if not mapped_segments:
        return pickle.loads(data)
    return pickle.loads(data, buffers=[mapped_segment.open() for mapped_segment in mapped_segments])


Parts = Callable[[], Mapping[str, Any]]


class _Encoded(NamedTuple):
    """An encoded object, and what was learned on the way.

    Attributes:
        payload: The object.
        defined: Tokens of the classes that the receiver then knows.
        memo: Returns the pickler's memo. It keeps the object.
    """

    payload: Payload
    defined: set[str]
    memo: Callable[[], dict[int, tuple[int, Any]]]


class Encoder:
    """Encodes the objects of one call as payloads.

    Args:
        call_id: The call's id, from `new_call_id`.
        serializer: ``"dill"``, or ``"pickle"`` to use the standard library alone.
        returning: Whether the payloads go back to the side that owns the received classes.
        segment_pool: Where large buffers are placed; `None` to keep them in the payload.
        by_value: Modules and packages that travel by value, with their code.
    """

    def __init__(
        self,
        call_id: str,
        serializer: str,
        *,
        returning: bool = False,
        segment_pool: SegmentPool | Store | None = None,
        by_value: tuple[str, ...] = (),
    ) -> None:
        self.call_id = call_id
        self.serializer = serializer
        self.returning = returning
        self._segment_pool = segment_pool
        self._by_value = by_value
        self._everywhere: frozenset[str] = frozenset()
        self.parts: SentParts | None = None
        """The objects of the callable, until no more of its items are encoded."""
        self._placer = BufferPlacer()

    def deduplicate_buffers(self) -> None:
        """From now on, place a buffer of many objects only once: nothing changes the objects."""
        self._placer.deduplicate()

    def encode(self, obj: Any, name: str, parts: Parts | None = None) -> Payload:
        """Return *obj* as a payload.

        Args:
            obj: The object to send.
            name: The user's words for *obj*, for the error message.
            parts: Returns the parts of *obj* that the user knows, by the names with which the paths
                to parts begin; `None` for *obj* itself.

        Raises:
            SerializationError: *obj*, or something in it, cannot travel.
        """
        return self._encode(obj, name, parts, self._segment_pool).payload

    def encode_callable(
        self, obj: Any, name: str, parts: Parts, *, may_change: bool = False
    ) -> Payload:
        """Encode *obj* as `encode` does; later payloads refer to its classes and other parts.

        Args:
            obj: The callable.
            name: As for `encode`.
            parts: As for `encode`.
            may_change: Whether the program may change its parts before all items are encoded.
        """
        # An engine's store holds the whole payload, so the buffers stay in it.
        segment_pool = self._segment_pool if isinstance(self._segment_pool, SegmentPool) else None
        encoded = self._encode(obj, name, parts, segment_pool)
        self._everywhere |= encoded.defined
        self.parts = SentParts(
            encoded.memo, functools.partial(self._changes_of, encoded) if may_change else None
        )
        return encoded.payload

    def _changes_of(self, sent: _Encoded) -> ChangedParts:
        """Return what finds the objects of a callable that have changed since it was *sent*."""
        buffers = [segment.contents() for segment in sent.payload.segments]
        return ChangedParts(Packed(sent.payload.data, buffers, sent.memo()), self._packed_alone)

    def _packed_alone(self, obj: Any) -> Packed:
        shared, self.parts = self.parts, None
        try:
            encoded = self._dump(obj, None)
        finally:
            self.parts = shared
        return Packed(encoded.payload.data, [], encoded.memo())

    def encode_items(self, chunk: Any, form: str, name: str, parts: Parts) -> Payload:
        """Encode a chunk of the callable's items as `encode` does.

        Args:
            chunk: First index, items, begin size.
            form: How an item becomes arguments.
            name: As for `encode`.
            parts: As for `encode`.
        """
        if are_plain(form, chunk.items):
            return Payload(pickle.dumps(tuple(chunk), PROTOCOL))
        if self.parts is not None:
            self.parts.look_again()
            chunk = chunk._replace(items=self.parts.shared_in(form, chunk.items))
        return self.encode(tuple(chunk), name, parts)

    def offenders(self, parts: Mapping[str, Any]) -> list[Offender]:
        """Return the objects in *parts* that cannot travel, nearest first."""
        shared, self.parts = self.parts, None
        try:
            return find_offenders(parts, self.dump, self._reducer(set(self._everywhere)))
        finally:
            self.parts = shared

    def dump(self, obj: Any) -> bytes:
        """Return *obj* as bytes alone; raise the original error if it cannot be pickled."""
        return self._dump(obj, None).payload.data

    def _encode(
        self, obj: Any, name: str, parts: Parts | None, segment_pool: SegmentPool | Store | None
    ) -> _Encoded:
        try:
            return self._dump(obj, segment_pool)
        except BaseException as exc:
            # Also SystemExit: an object raised it while it was pickled; it is no wish to exit.
            if not self.returning:
                if isinstance(exc, KeyboardInterrupt):
                    raise
                raise_if_handlers(exc)
            raise self._refusal(exc, name, {name: obj} if parts is None else parts()) from exc

    def _refusal(
        self, exc: BaseException, name: str, parts: Mapping[str, Any]
    ) -> SerializationError:
        offenders = self.offenders(parts)
        root = offenders[0].path if offenders else name
        message = f"cannot {'return' if self.returning else 'send'} {name}: {described(exc)}"
        if offenders:
            message += f"\n\n{tree(offenders)}"
        if self.serializer == "pickle":
            message += (
                "\n\nserializer='dill' carries lambdas, closures, local classes and what the main "
                "script defines too."
            )
        return SerializationError(message, path=root, offenders=tuple(offenders))

    def _reducer(self, defined: set[str]) -> Reducer | None:
        if self.serializer == "pickle":
            return None
        return Reducer(self.call_id, defined, returning=self.returning, parts=self.parts)

    def _dump(self, obj: Any, segment_pool: SegmentPool | Store | None) -> _Encoded:
        """Encode *obj* by the C pickler, or in Python if the data is too deep for it."""
        before = remember_answers({}), send_by_value(self._by_value), remember_regions([])
        try:
            return self._dump_by(TravelPickler, obj, segment_pool)
        except RecursionError as exc:
            if self.serializer == "pickle" or not is_of_pickler(exc):
                raise
            return with_room(lambda: self._dump_by(DeepPickler, obj, segment_pool))
        finally:
            remember_answers(before[0])
            send_by_value(before[1])
            remember_regions(before[2])

    def _dump_by(self, kind: Any, obj: Any, segment_pool: SegmentPool | Store | None) -> _Encoded:
        buffer, defined = io.BytesIO(), set(self._everywhere)
        segments: list[SharedSegment | BufferRef] = []
        take = (
            None
            if segment_pool is None
            else functools.partial(self._placer.place, segment_pool, segments)
        )
        if (reducer := self._reducer(defined)) is None:
            pickler: Any = StandardPickler(buffer, PROTOCOL, buffer_callback=take)
            pickler.parts, pickler.returning = self.parts, self.returning
        else:
            pickler = kind(buffer, reducer, take)
        try:
            pickler.dump(obj)
        finally:
            if reducer is not None:
                reducer.parts = None  # the reducer is part of a cycle, and would keep the callable
        data = buffer.getvalue()
        buffer.close()  # the pickler would keep it
        return _Encoded(Payload(data, tuple(segments)), defined, pickler.memo.copy)
