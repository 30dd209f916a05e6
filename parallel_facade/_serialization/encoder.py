"""Objects to bytes and back: what is sent, and what is said when something cannot be.

    object ──► bytes, with large buffers in shared memory beside them where there is a shelf

Guarantees:
    - Whatever goes wrong is a `SerializationError` that names each part that cannot travel.
    - What an object was when it was encoded is what arrives, however it is changed after that.
"""

from __future__ import annotations

import functools
import io
import pickle
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from parallel_facade._common.errors import SerializationError, described
from parallel_facade._common.interrupt_safety import raise_if_handlers
from parallel_facade._common.plain_data import PROTOCOL
from parallel_facade._serialization.buffers.object_store import (
    BufferRef,
    FetchedBuffer,
    OutOfBandBytes,
    Store,
)
from parallel_facade._serialization.buffers.shared_memory import (
    PLACED_BYTES,
    MappedSegment,
    SegmentPool,
    SharedSegment,
)
from parallel_facade._serialization.deep_recursion import is_of_pickler, with_room
from parallel_facade._serialization.modules.importable import remember_answers, send_by_value
from parallel_facade._serialization.offenders import Offender, find_offenders, tree
from parallel_facade._serialization.pickler import (
    DeepPickler,
    Reducer,
    StandardPickler,
    TravelPickler,
)

MOST_SEGMENTS: Final = 200
"""In one payload; a message takes 253 descriptors. Other buffers are in the bytes."""


class Payload(NamedTuple):
    """An object as it travels.

    Attributes:
        data: The payload.
        segments: Buffers that the data refers to, in order, each a `SharedSegment` or `BufferRef`.
    """

    data: bytes
    segments: tuple[Any, ...] = ()

    @property
    def size(self) -> int:
        """Bytes, all in all."""
        return len(self.data) + sum(int(segment.size) for segment in self.segments)


def decode(data: Any, mapped_segments: tuple[MappedSegment | FetchedBuffer, ...] = ()) -> Any:
    """Return the object that a payload holds; raises whatever the object's own code raises.

    Args:
        data: The payload.
        mapped_segments: The buffers that it refers to, in order.
    """
    if not mapped_segments:
        return pickle.loads(data)
    return pickle.loads(data, buffers=[mapped_segment.open() for mapped_segment in mapped_segments])


Parts = Callable[[], Mapping[str, Any]]


class Encoder:
    """Turns the objects of one call into payloads.

    Args:
        call_id: The call's name, from `new_call_id`.
        serializer: ``"dill"``, or ``"pickle"`` for the standard library alone.
        returning: Whether the payloads go back to the side that owns the received classes.
        segment_pool: Where large buffers are placed; `None` for in the payload.
        by_value: Modules and packages whose code is sent along.
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
        self._known: dict[int, tuple[weakref.ref[Any], Callable[[], Any]]] | None = None

    def deduplicate_buffers(self) -> None:
        """From now on, place a buffer once that is in many objects, as nothing changes them."""
        self._known = {}

    def encode(self, obj: Any, name: str, parts: Parts | None = None) -> Payload:
        """Return *obj* as it travels.

        Args:
            obj: What shall travel.
            name: What *obj* is in the user's words, for the error message.
            parts: Returns what the user knows of it, by the names that paths to parts begin with;
                `None` for *obj* itself.

        Raises:
            SerializationError: *obj*, or something in it, cannot travel.
        """
        return self._encode(obj, name, parts, self._segment_pool)[0]

    def encode_callable(self, obj: Any, name: str, parts: Parts) -> Payload:
        """Return *obj* as `encode` does; later payloads only name the classes that it defines."""
        # What an engine's store would hold of it goes there as a part of the whole.
        segment_pool = self._segment_pool if isinstance(self._segment_pool, SegmentPool) else None
        payload, defined = self._encode(obj, name, parts, segment_pool)
        self._everywhere |= defined
        return payload

    def offenders(self, parts: Mapping[str, Any]) -> list[Offender]:
        """Return what in *parts* cannot travel, in the order of their distance."""
        return find_offenders(parts, self.dump, self._reducer(set(self._everywhere)))

    def dump(self, obj: Any) -> bytes:
        """Return *obj* as bytes alone; raises whatever goes wrong."""
        return self._dump(obj, None)[0].data

    def _encode(
        self, obj: Any, name: str, parts: Parts | None, segment_pool: SegmentPool | Store | None
    ) -> tuple[Payload, set[str]]:
        try:
            return self._dump(obj, segment_pool)
        except BaseException as exc:
            # SystemExit too, which an object raised while it was pickled: it is no wish to end.
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
        return Reducer(self.call_id, defined, returning=self.returning)

    def _dump(self, obj: Any, segment_pool: SegmentPool | Store | None) -> tuple[Payload, set[str]]:
        """Return *obj* as it travels, and the tokens of the classes that it defines there."""
        before = remember_answers({}), send_by_value(self._by_value)
        try:
            return self._dump_fitting(obj, segment_pool)
        finally:
            remember_answers(before[0])
            send_by_value(before[1])

    def _dump_fitting(
        self, obj: Any, segment_pool: SegmentPool | Store | None
    ) -> tuple[Payload, set[str]]:
        """Do so by the C pickler or, for what is too deep for that, in Python."""
        try:
            return self._dump_by(TravelPickler, obj, segment_pool)
        except RecursionError as exc:
            if self.serializer == "pickle" or not is_of_pickler(exc):
                raise
            return with_room(lambda: self._dump_by(DeepPickler, obj, segment_pool))

    def _dump_by(
        self, pickler: Any, obj: Any, segment_pool: SegmentPool | Store | None
    ) -> tuple[Payload, set[str]]:
        buffer, defined = io.BytesIO(), set(self._everywhere)
        segments: list[SharedSegment | BufferRef] = []
        take = (
            None if segment_pool is None else functools.partial(self._place, segment_pool, segments)
        )
        if (reducer := self._reducer(defined)) is None:
            StandardPickler(buffer, PROTOCOL, buffer_callback=take).dump(obj)
        else:
            pickler(buffer, reducer, take).dump(obj)
        return Payload(buffer.getvalue(), tuple(segments)), defined

    def _place(
        self,
        segment_pool: SegmentPool | Store,
        segments: list[SharedSegment | BufferRef],
        buffer: pickle.PickleBuffer,
    ) -> bool:
        """Return whether *buffer* shall be in the payload itself, and not beside it."""
        view = buffer.raw()
        if view.nbytes < PLACED_BYTES or len(segments) == MOST_SEGMENTS:
            return True
        was_met, segment = self._known_segment(view)
        if segment is None and (was_met or isinstance(segment_pool, SegmentPool)):
            segment = segment_pool.place(view)
        self._remember(view, segment)
        if segment is None and (self._known is None or isinstance(segment_pool, SegmentPool)):
            return True  # it may change before it is sent, or there is no memory to share
        segments.append(segment or BufferRef(view.nbytes, OutOfBandBytes(view)))
        return False

    def _known_segment(self, view: memoryview) -> tuple[bool, Any]:
        """Return whether *view* was met before, and where it was placed, if it was."""
        if self._known is None:
            return False, None
        owner, segment = self._known.get(id(view.obj), (None, None))
        if owner is None or segment is None or owner() is not view.obj:
            return False, None
        return True, segment()

    def _remember(self, view: memoryview, segment: SharedSegment | BufferRef | None) -> None:
        if self._known is None:
            return
        # What an engine's store holds is kept for the call: it costs as much as to send it.
        found: Callable[[], Any] = (
            weakref.ref(segment) if isinstance(segment, SharedSegment) else lambda: segment
        )
        with suppress(TypeError):  # of an object that cannot be referred to weakly
            self._known[id(view.obj)] = weakref.ref(view.obj), found
