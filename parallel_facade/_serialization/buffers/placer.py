"""Decide which buffers of a payload are placed beside it, and place each as seldom as possible."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from parallel_facade._serialization.buffers.object_store import BufferRef, OutOfBandBytes, Store
from parallel_facade._serialization.buffers.shared_memory import (
    PLACED_BYTES,
    SegmentPool,
    SharedSegment,
)

MOST_SEGMENTS: Final = 200
"""Limit in one payload; a message carries 253 descriptors. Further buffers are in the bytes."""


class BufferPlacer:
    """Places the buffers of one call's payloads."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], Callable[[], Any]]] | None = None

    def deduplicate(self) -> None:
        """From now on, place a buffer of many objects only once: nothing changes the objects."""
        self._known = {}

    def place(
        self,
        segment_pool: SegmentPool | Store,
        segments: list[SharedSegment | BufferRef],
        buffer: pickle.PickleBuffer,
    ) -> bool:
        """Return whether *buffer* stays in the payload; if not, add it to *segments*."""
        view = buffer.raw()
        if view.nbytes < PLACED_BYTES or len(segments) == MOST_SEGMENTS:
            return True
        is_repeated, segment = self._segment_for(view)
        if segment is None and (is_repeated or isinstance(segment_pool, SegmentPool)):
            segment = segment_pool.place(view)
        self._remember(view, segment)
        if segment is None and (self._known is None or isinstance(segment_pool, SegmentPool)):
            return True  # it may change before it is sent, or there is no memory to share
        segments.append(segment or BufferRef(view.nbytes, OutOfBandBytes(view)))
        return False

    def _segment_for(self, view: memoryview) -> tuple[bool, Any]:
        """Return whether *view* was met before, and its segment if it was placed."""
        if self._known is None:
            return False, None
        owner, segment = self._known.get(id(view.obj), (None, None))
        if owner is None or segment is None or owner() is not view.obj:
            return False, None
        return True, segment()

    def _remember(self, view: memoryview, segment: SharedSegment | BufferRef | None) -> None:
        if self._known is None:
            return
        # A buffer reference is kept for the whole call: storing costs as much as sending.
        found: Callable[[], Any] = (
            weakref.ref(segment) if isinstance(segment, SharedSegment) else lambda: segment
        )
        with suppress(TypeError):  # the object does not support weak references
            self._known[id(view.obj)] = weakref.ref(view.obj), found
