"""What a task came to, as a value: what workers give back, and how it crosses a border.

    worker:  function ──► value or exception ──encode──► parts of a report, as bytes
    caller:  parts ──decode──► Report: values in order, and a Failure for each item that raised

Guarantees:
    - A report can always be encoded: what cannot travel is its own item's failure.
    - A report can always be decoded: a value that cannot be rebuilt is its own item's failure.
    - An exception arrives as its own class, or as a `RemoteError` that says which it was.
"""

from __future__ import annotations

import pickle
import traceback
from array import array
from contextlib import suppress
from typing import Any, Final, NamedTuple

from parallel_facade._common.errors import (
    RemoteError,
    RemoteTraceback,
    SerializationError,
    described,
    message_of,
)
from parallel_facade._common.interrupt_safety import raise_if_handlers
from parallel_facade._common.plain_data import PROTOCOL
from parallel_facade._serialization.buffers.object_store import FetchedBuffer
from parallel_facade._serialization.buffers.shared_memory import MappedSegment
from parallel_facade._serialization.encoder import Encoder, Payload, decode
from parallel_facade._serialization.rules.exceptions import add_cause, is_like, portable
from parallel_facade._worker.breakpoints import with_breakpoint_hint

PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
"""Types that cannot fail to travel, so that they need no payload of their own."""

CALLS_THE_USER: Final = "parallel_facade._worker.run_chunk"
"""The module whose frames above the user's are left out of tracebacks."""

ALL_SUCCEEDED: Final = b"S"
SOME_FAILED: Final = b"F"


class Failure(NamedTuple):
    """A task raised.

    Attributes:
        error: The exception.
        traceback: Where it was raised, as text; empty if *error* itself still knows.
    """

    error: BaseException
    traceback: str = ""

    def to_raise(self) -> BaseException:
        """Return the exception, with the worker's traceback as its cause."""
        if self.traceback:
            add_cause(self.error, RemoteTraceback(self.traceback))
        return self.error


class ChunkReport(NamedTuple):
    """What the items of one chunk came to.

    Attributes:
        values: A value for each item that was run, in order; `None` where it failed. Shorter than
            the chunk if the run stopped at a failure.
        failures: What went wrong, by position in the chunk.
        unread: Which part of the task could not be rebuilt, so that nothing was run; then the
            one failure, at position 0, says why. Empty otherwise.
        seconds: How long it took to run them.
    """

    values: list[Any]
    failures: dict[int, Failure]
    unread: str = ""
    seconds: float = 0.0


class Received(NamedTuple):
    """A part of a report as it arrived.

    Attributes:
        data: The bytes.
        mapped_segments: The buffers that they refer to.
    """

    data: Any
    mapped_segments: tuple[MappedSegment | FetchedBuffer, ...] = ()


class SentFailure(NamedTuple):
    """A failure as it travels: the exception in its own payload, and what to say without it."""

    payload: bytes | None
    type_name: str
    message: str
    traceback: str


def encode_part(  # noqa: PLR0917 - each is a field of what travels
    prefix: tuple[str, bytes],
    values: list[Any],
    payloads: dict[int, bytes | tuple[bytes, int]],
    failures: dict[int, SentFailure],
    unread: str = "",
    seconds: float = 0.0,
) -> bytes:
    """Return consecutive outcomes as bytes; the first byte says whether anything failed.

    Args:
        prefix: The first values, as an array's type code and bytes; both empty for none.
        values: The outcomes behind those; `None` for what the next two hold.
        payloads: Values that are not `PLAIN`, by their place in *values*, each in a payload of its
            own: one that cannot be rebuilt must not take its neighbours along. With the number
            of segments that it refers to, if there are any.
        failures: What went wrong, by place in *values*.
        unread: As in `ChunkReport`.
        seconds: As in `ChunkReport`.
    """
    flag = SOME_FAILED if failures else ALL_SUCCEEDED
    return flag + pickle.dumps((prefix, values, payloads, failures, unread, seconds), PROTOCOL)


def encode_records(prefix: tuple[str, bytes], records: list[Any]) -> bytes:
    """Return as a part what a dead worker's log held.

    Args:
        prefix: As in `encode_part`.
        records: A plain value as it is, a payload as a tuple of one, a `SentFailure` as a tuple.
    """
    values: list[Any] = []
    payloads: dict[int, bytes | tuple[bytes, int]] = {}
    failures: dict[int, SentFailure] = {}
    for place, record in enumerate(records):
        is_plain = type(record) is not tuple
        values.append(record if is_plain else None)
        if not is_plain and len(record) == 1:
            payloads[place] = record[0]
        elif not is_plain:
            failures[place] = SentFailure(*record)
    return encode_part(prefix, values, payloads, failures)


def encode_unread(part: str, failure: Failure, encoder: Encoder) -> bytes:
    """Return the report of a chunk of which *part* could not be rebuilt."""
    return encode_part(("", b""), [], {}, {0: sent_failure(failure, encoder)}, part)


def have_failures(parts: list[Any]) -> bool:
    """Return whether an encoded report holds a failure, without decoding it."""
    return any(as_received(part).data[:1] == SOME_FAILED for part in parts)


def as_received(part: Any) -> Received:
    return part if isinstance(part, Received) else Received(part)


def first_traceback(parts: list[Any]) -> str:
    """Return the traceback of the first failure in an encoded report, without decoding that."""
    for part in parts:
        *_, failures, _, _ = pickle.loads(memoryview(as_received(part).data)[1:])
        for failure in failures.values():
            sent = SentFailure(*failure)
            return sent.traceback or f"{sent.type_name}: {sent.message}"
    return ""


def decode_report(parts: list[Any], known: int = 0) -> ChunkReport:
    """Return the report that *parts* hold together.

    Args:
        parts: As bytes, or `Received`.
        known: Outcomes, from the first, that are known already: they are not rebuilt once more.
    """
    report = ChunkReport([], {})
    for part in map(as_received, parts):
        prefix, values, payloads, failures, unread, seconds = pickle.loads(
            memoryview(part.data)[1:]
        )
        report.values.extend(_numbers(*prefix))
        first = len(report.values)
        report.values.extend(values)
        for place, failure in failures.items():
            if first + place >= known:
                report.failures[first + place] = _received(SentFailure(*failure))
        _rebuild(report, first, payloads, part.mapped_segments, known)
        if unread or seconds:
            report = report._replace(unread=unread, seconds=seconds)
    return report


def _rebuild(
    report: ChunkReport,
    first: int,
    payloads: dict[int, Any],
    mapped_segments: tuple[MappedSegment | FetchedBuffer, ...],
    known: int,
) -> None:
    """Put the values in *payloads*, by place behind *first*, into *report*."""
    for place, sent in payloads.items():
        payload, count = sent if isinstance(sent, tuple) else (sent, 0)
        lent, mapped_segments = mapped_segments[:count], mapped_segments[count:]
        position = first + place
        if position >= known:
            report.values[position] = _value_of(payload, lent, position, report.failures)


def _numbers(code: str, data: bytes) -> list[Any]:
    numbers: array[Any] = array(code or "b")
    numbers.frombytes(data)
    return numbers.tolist()


def encode_result(value: Any, encoder: Encoder) -> Payload | SentFailure:
    """Return *value* as it travels, or the failure that it cannot."""
    try:
        return encoder.encode(
            value, f"the result, a {type(value).__qualname__}", lambda: {"result": value}
        )
    except SerializationError as exc:
        return sent_failure(Failure(exc, ""), encoder)


def _value_of(
    payload: bytes,
    mapped_segments: tuple[MappedSegment | FetchedBuffer, ...],
    position: int,
    failures: dict[int, Failure],
) -> Any:
    try:
        return decode(payload, mapped_segments)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        raise_if_handlers(exc)
        # Rebuilding runs the user's code; what it raises is told, not let loose here.
        error = SerializationError(
            f"the result could not be rebuilt: {described(exc)}", path="result"
        )
        error.__cause__ = exc
        failures[position] = Failure(error)
        return None


def captured(error: BaseException) -> Failure:
    """Return *error*, just caught in a worker, with its traceback as text."""
    error = with_breakpoint_hint(error)
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_globals.get("__name__") == CALLS_THE_USER:
        tb = tb.tb_next
    # By the method of BaseException, around what a class of the user's may define.
    BaseException.with_traceback(error, tb)
    return Failure(error, describe(error))


def describe(error: BaseException) -> str:
    """Return the traceback of *error* as text, whatever its own code does."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as exc:
        return f"{type(error).__qualname__} (its traceback cannot be printed: {type(exc).__name__})"


def sent_failure(failure: Failure, encoder: Encoder) -> SentFailure:
    """Return *failure* as it travels, having seen that the exception can be rebuilt."""
    error = failure.error
    cls = type(error)
    return SentFailure(
        _proven(error, encoder),
        f"{cls.__module__}.{cls.__qualname__}",
        message_of(error),
        failure.traceback,
    )


def _proven(error: BaseException, encoder: Encoder) -> bytes | None:
    """Return a payload of *error* that was seen to rebuild it, or `None`."""

    def payload_of(travelling: Any) -> bytes | None:
        with suppress(BaseException):
            payload = encoder.dump(travelling)
            if is_like(decode(payload), error):
                return payload
        return None

    def can_travel(obj: Any) -> bool:
        with suppress(BaseException):
            decode(encoder.dump(obj))
            return True
        return False

    return payload_of(error) or payload_of(portable(error, can_travel))


def _received(sent: SentFailure) -> Failure:
    if sent.payload is not None:
        try:
            return Failure(decode(sent.payload), sent.traceback)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            raise_if_handlers(exc)
            sent = sent._replace(message=f"{sent.message} (not rebuilt: {type(exc).__name__})")
    error = RemoteError(
        f"{sent.type_name}: {sent.message}",
        type_name=sent.type_name,
        remote_traceback=sent.traceback,
    )
    return Failure(error, sent.traceback)
