"""Place a call on a back-end: packed and sent, or as the one that workers have kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from parallel_facade._dispatch.codecs import Codec, PayloadCodec
from parallel_facade._worker.run_chunk import Call
from parallel_facade.backends.base import Backend
from parallel_facade.backends.kept_calls import KeptCall

KEPT_BYTES: Final = 1 << 16
"""A larger callable is not kept: it would hold memory for a call that may never come."""


def place_call(
    backend: Backend, codec: Codec, call: Call, has_plain_items: Callable[[], bool]
) -> Any:
    """Return the handle of *call* on *backend*.

    Args:
        backend: Runs it.
        codec: Packs it.
        call: The call.
        has_plain_items: Returns whether none of its items brings code along, which might differ
            from that of an earlier call.
    """
    kept_calls = backend.kept_calls
    if kept_calls is None:
        return backend.put(codec.pack_call(call))
    how = footprint = None
    if isinstance(codec, PayloadCodec) and has_plain_items():
        how = codec.how(call)
    if how is not None and isinstance(codec, PayloadCodec):
        if (kept := kept_calls.find(call.func, how)) is not None:
            codec.resume(kept.call_id, call)
            return kept.handle.again()
        footprint = kept_calls.footprint_of(call.func)
    packed = codec.pack_call(call)
    handle = backend.put(packed)
    if (
        how is not None
        and footprint is not None
        and isinstance(codec, PayloadCodec)
        and codec.size_of(packed) < KEPT_BYTES
    ):
        kept_calls.note(KeptCall(footprint, how, codec.call_id, handle))
    else:
        kept_calls.note(None)
    return handle
