"""What runs in the workers of an engine that is not ours: one function, bytes in, bytes out.

    engine's worker:  run_remote ──► is it the same Python? ──► is the call here? ──► OpenCall.run
                          │                  │ no                    │ no
    caller:               ▼ report           ▼ report that says so   ▼ CALL_IS_MISSING: send it

Engines carry a reference to that function and bytes of ours, so that no pickler of theirs ever
meets the user's objects, and all errors of engines are about the engine.

Guarantees:
    - Nothing is unpickled that another version of Python or of this library has made.
    - A report comes back whatever the user's objects do, `SystemExit` included.
"""

from __future__ import annotations

import functools
import pickle
import sys
import threading
from collections import OrderedDict
from typing import Any, Final, NamedTuple

from parallel_facade._errors import ConfigurationError
from parallel_facade._outcomes import Failure, Received, encode_unread
from parallel_facade._payload import Encoder
from parallel_facade._stores import Fetched
from parallel_facade._worker import THE_CALLABLE, OpenCall, WorkerRole

CALL_IS_MISSING: Final = b""
"""Comes back in place of a report, which is never empty: the worker does not know the call."""

MOST_OPEN_CALLS: Final = 8
"""Calls that a worker keeps decoded; engines never tell it when one has ended."""


class Versions(NamedTuple):
    """What both sides of a call must have in common.

    Attributes:
        python: Major and minor version: code is made for exactly one.
        parallel_facade: The release of this library.
        dill: The release of dill.
    """

    python: str
    parallel_facade: str
    dill: str

    def differences(self, others: Versions) -> list[str]:
        """Return for each thing that differs who has which."""
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


class Parcel:
    """Bytes that an engine need not copy into its message, at no station on their way.

    Args:
        data: The bytes, or a view of them.
    """

    def __init__(self, data: Any) -> None:
        self.data = data

    def __sizeof__(self) -> int:
        """Return the bytes that it holds, by which engines count what workers keep."""
        return object.__sizeof__(self) + len(self.data)

    def __bytes__(self) -> bytes:
        """Return a copy of what it holds."""
        return bytes(self.data)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Travel as a buffer beside the message, where the engine's pickler can do that."""
        if protocol < 5 or len(self.data) < PARCEL_BYTES:
            return bytes, (bytes(self.data),)
        # As a parcel once more: a scheduler that passes it on pickles it again.
        return Parcel, (pickle.PickleBuffer(self.data),)


PARCEL_BYTES: Final = 1 << 16
"""Fewer bytes are copied sooner than they are kept apart."""


_open_calls: OrderedDict[str, OpenCall] = OrderedDict()
_open_calls_lock = threading.Lock()  # guards _open_calls, where an engine's workers are threads


def run_remote(versions: tuple[str, ...], scope: str, call: Any, chunk: Any, *buffers: Any) -> Any:
    """Run an encoded chunk through an encoded call, as a plain function of an engine's worker.

    Args:
        versions: The caller's `Versions`.
        scope: The call's name, by which it is decoded once per worker.
        call: The call's payload; `None` for one that the worker has been sent before.
        chunk: The chunk's payload.
        *buffers: What the chunk's payload refers to, in order.

    Returns:
        A report as bytes, or `CALL_IS_MISSING`.
    """
    if differences := Versions(*versions).differences(versions_here()):
        return _refusal(f"the worker cannot run this call: {', '.join(differences)}")
    with WorkerRole():
        if (opened := _opened(scope, call)) is None:
            return CALL_IS_MISSING
        loans = tuple(Fetched(unwrapped(buffer)) for buffer in buffers)
        cargo, _ = opened.run(Received(unwrapped(chunk), loans))
        return Parcel(cargo.data)


def _opened(scope: str, payload: Any) -> OpenCall | None:
    with _open_calls_lock:
        if (opened := _open_calls.get(scope)) is None:
            if payload is None:
                return None
            opened = _open_calls[scope] = OpenCall(unwrapped(payload))
            if len(_open_calls) > MOST_OPEN_CALLS:
                _open_calls.popitem(last=False)[1].close()
        _open_calls.move_to_end(scope)
    return opened


def unwrapped(sent: Any) -> Any:
    """Return the bytes that were sent, in a parcel or as they are."""
    return sent.data if isinstance(sent, Parcel) else sent


def _refusal(reason: str) -> bytes:
    """Return the report of a chunk that is not touched."""
    error = ConfigurationError(f"{reason}\n\nHint: install the same versions on both sides.")
    return encode_unread(THE_CALLABLE, Failure(error), Encoder("", "pickle", returning=True))
