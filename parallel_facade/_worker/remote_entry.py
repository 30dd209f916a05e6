"""The entry function for the workers of an engine that is not ours: bytes in, bytes out.

    engine's worker:  run_remote ──► is it the same Python? ──► is the call here? ──► LoadedCall.run
                          │                  │ no                    │ no
    caller:               ▼ report           ▼ report that says so   ▼ CALL_IS_MISSING: send it

An engine gets only a reference to that function and our own bytes. So its pickler never handles the
user's objects, and all its errors are about the engine.

Guarantees:
    - Bytes that another version of Python or of this library has made are never unpickled.
    - A report is returned whatever the user's objects do, `SystemExit` included.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from parallel_facade._common.call_ids import is_from_here
from parallel_facade._common.errors import ConfigurationError
from parallel_facade._common.worker_role import WorkerRole
from parallel_facade._serialization.buffers.object_store import (
    FetchedBuffer,
    OutOfBandBytes,
    unwrapped,
)
from parallel_facade._serialization.encoder import Encoder
from parallel_facade._worker.loaded_call import LoadedCall
from parallel_facade._worker.outcomes import Failure, Received, encode_unread
from parallel_facade._worker.run_chunk import THE_CALLABLE

CALL_IS_MISSING: Final = b""
"""Returned instead of a report, which is never empty, if the worker does not have the call."""

MOST_LOADED_CALLS: Final = 8
"""Calls that a worker keeps decoded; engines never notify it when a call has ended."""


class Versions(NamedTuple):
    """The versions that both sides of a call must have in common.

    Attributes:
        python: Major and minor version: bytecode is made for exactly one.
        parallel_facade: The release of this library.
        dill: The release of dill.
    """

    python: str
    parallel_facade: str
    dill: str

    def differences(self, others: Versions) -> list[str]:
        """Return, for each version that differs, which one is here and in the worker."""
        return [
            f"{name} {here or 'none'} here and {there or 'none'} in the worker"
            for name, here, there in zip(self._fields, self, others, strict=True)
            if here != there
        ]


@functools.cache
def versions_here() -> Versions:
    """Return the versions in this process."""
    from importlib.metadata import version

    major, minor = sys.version_info[:2]
    return Versions(f"{major}.{minor}", version("parallel-facade"), version("dill"))


_loaded_calls: OrderedDict[str, LoadedCall] = OrderedDict()
_loaded_calls_lock = threading.Lock()  # guards _loaded_calls; an engine's workers may be threads


def run_remote(
    versions: tuple[str, ...],
    is_private: bool,
    call_id: str,
    call: Any,
    chunk: Any,
    *buffers: Any,
    on_loaded: Callable[[], object] | None = None,
) -> Any:
    """Run an encoded chunk through an encoded call, as a plain function of an engine's worker.

    Args:
        versions: The caller's `Versions`.
        is_private: Whether this process runs one task at a time; see `Capabilities`.
        call_id: The id of the call, so that it is decoded once per worker.
        call: The call's payload; `None` if it was sent to the worker before.
        chunk: The chunk's payload.
        *buffers: The buffers that the chunk's payload refers to, in order.
        on_loaded: Called when the callable is there, before the arguments are rebuilt.

    Returns:
        A report as bytes, or `CALL_IS_MISSING`. If there are records to relay, a pair: the records
        and the report.
    """
    if differences := Versions(*versions).differences(versions_here()):
        return _refusal(f"the worker cannot run this call: {', '.join(differences)}")
    with WorkerRole(is_private=is_private, is_elsewhere=not is_from_here(call_id)):
        if (opened := _opened(call_id, call)) is None:
            return CALL_IS_MISSING
        mapped_segments = tuple(FetchedBuffer(unwrapped(buffer)) for buffer in buffers)
        records: list[bytes] = []
        payload, _ = opened.run(
            Received(unwrapped(chunk), mapped_segments),
            on_begin=on_loaded,
            send_record=records.append,
        )
        report = OutOfBandBytes(payload.data)
        return (records, report) if records else report


def is_loaded(call_id: str) -> bool:
    """Return whether this worker has rebuilt the callable of the call."""
    known = _loaded_calls.get(call_id)
    return known is not None and known.is_loaded


def _opened(call_id: str, payload: Any) -> LoadedCall | None:
    with _loaded_calls_lock:
        if (opened := _loaded_calls.get(call_id)) is None:
            if payload is None:
                return None
            opened = _loaded_calls[call_id] = LoadedCall(unwrapped(payload))
            if len(_loaded_calls) > MOST_LOADED_CALLS:
                _loaded_calls.popitem(last=False)[1].close()
        _loaded_calls.move_to_end(call_id)
    return opened


def _refusal(reason: str) -> bytes:
    """Return the report of a chunk that is not decoded."""
    error = ConfigurationError(f"{reason}\n\nHint: install the same versions on both sides.")
    return encode_unread(THE_CALLABLE, Failure(error), Encoder("", "pickle", returning=True))
