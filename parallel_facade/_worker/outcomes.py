"""The outcomes of tasks as values, and how they travel from worker to caller.

    worker:  function ──► value or exception ──encode──► parts of a report, as bytes
    caller:  parts ──decode──► ChunkReport: values in order, and a Failure for each item that raised

Guarantees:
    - A report can always be encoded: a value that cannot travel is a failure of its own item.
    - A report can always be decoded: a value that cannot be rebuilt is a failure of its own item.
    - An exception arrives as its own class, or as a `RemoteError` that names the class.
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
"""Types that cannot fail to travel, so values of them need no payload of their own."""

CALLS_THE_USER: Final = "parallel_facade._worker.run_chunk"
"""The module that calls the user's code; tracebacks leave out its frames above the user's."""

ALL_SUCCEEDED: Final = b"S"
SOME_FAILED: Final = b"F"


class Failure(NamedTuple):
    """The exception of a task.

    Attributes:
        error: The exception.
        traceback: Where it was raised, as text; empty if *error* still has its traceback.
    """

    error: BaseException
    traceback: str = ""

    def to_raise(self) -> BaseException:
        """Return the exception, with the worker's traceback as its cause."""
        if self.traceback:
            add_cause(self.error, RemoteTraceback(self.traceback))
        return self.error


class ChunkReport(NamedTuple):
    """The outcomes of the items of one chunk.

    Attributes:
        values: A value for each item that was run, in order; `None` for a failed item. Shorter
            than the chunk if the run stopped early.
        failures: The failures, by position in the chunk.
        unread: The part of the task that could not be rebuilt, so that nothing was run; then the
            only failure, at position 0, says why. Empty otherwise.
        seconds: How long it took to run the items.
    """

    values: list[Any]
    failures: dict[int, Failure]
    unread: str = ""
    seconds: float = 0.0


class Received(NamedTuple):
    """A part of a report, or a chunk, as it arrived.

    Attributes:
        data: The bytes.
        mapped_segments: The buffers that the bytes refer to.
    """

    data: Any
    mapped_segments: tuple[MappedSegment | FetchedBuffer, ...] = ()


class SentFailure(NamedTuple):
    """A failure as it travels: the exception in its own payload, and text for use without it."""

    payload: bytes | None
    type_name: str
    message: str
    traceback: str


def encode_part(  # noqa: PLR0917 - each is a field of the message
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
        values: The outcomes after those; `None` for outcomes in the next two.
        payloads: Values that are not `PLAIN`, by position in *values*, each in a payload of its
            own: a value that cannot be rebuilt must not affect its neighbours. With the number of
            segments that it refers to, if there are any.
        failures: The failures, by position in *values*.
        unread: As in `ChunkReport`.
        seconds: As in `ChunkReport`.
    """
    flag = SOME_FAILED if failures else ALL_SUCCEEDED
    return flag + pickle.dumps((prefix, values, payloads, failures, unread, seconds), PROTOCOL)


def encode_records(prefix: tuple[str, bytes], records: list[Any]) -> bytes:
    """Return the outcomes in a worker's log as a part of a report.

    Args:
        prefix: As in `encode_part`.
        records: A plain value as it is, a payload as a 1-tuple, a `SentFailure` as a tuple.
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
    """Return the report of a chunk that did not run because *part* could not be rebuilt."""
    return encode_part(("", b""), [], {}, {0: sent_failure(failure, encoder)}, part)


def have_failures(parts: list[Any]) -> bool:
    """Return whether an encoded report holds a failure, without decoding it."""
    return any(as_received(part).data[:1] == SOME_FAILED for part in parts)


def count_outcomes(parts: list[Any]) -> int | None:
    """Return how many outcomes an encoded report holds, without rebuilding them.

    `None` if the chunk may have ended at its last outcome, because that is a failure, or if it
    could not be rebuilt.
    """
    count = 0
    for part in parts:
        prefix, values, _, failures, unread, _ = pickle.loads(
            memoryview(as_received(part).data)[1:]
        )
        if unread or len(values) - 1 in failures:
            return None
        count += len(_numbers(*prefix)) + len(values)
    return count


def as_received(part: Any) -> Received:
    return part if isinstance(part, Received) else Received(part)


def first_traceback(parts: list[Any]) -> str:
    """Return the traceback of the first failure in an encoded report, without rebuilding it."""
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
        known: How many outcomes, from the first, are known already and are not rebuilt again.
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
    """Put the values in *payloads*, by position after *first*, into *report*."""
    for place, sent in payloads.items():
        payload, count = sent if isinstance(sent, tuple) else (sent, 0)
        mapped, mapped_segments = mapped_segments[:count], mapped_segments[count:]
        position = first + place
        if position >= known:
            report.values[position] = _value_of(payload, mapped, position, report.failures)


def _numbers(code: str, data: bytes) -> list[Any]:
    numbers: array[Any] = array(code or "b")
    numbers.frombytes(data)
    return numbers.tolist()


def encode_result(value: Any, encoder: Encoder) -> Payload | SentFailure:
    """Return *value* as it travels; if it cannot travel, return the failure."""
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
        # Rebuilding runs the user's code; its exception is reported instead of raised here.
        error = SerializationError(
            f"the result could not be rebuilt: {described(exc)}", path="result"
        )
        error.__cause__ = exc
        failures[position] = Failure(error)
        return None


def captured(error: BaseException) -> Failure:
    """Return the failure for *error*, just caught in a worker, with its traceback as text."""
    error = with_breakpoint_hint(error)
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_globals.get("__name__") == CALLS_THE_USER:
        tb = tb.tb_next
    # Call the method of BaseException, because a class of the user may override it.
    BaseException.with_traceback(error, tb)
    return Failure(error, describe(error))


def describe(error: BaseException) -> str:
    """Return the traceback of *error* as text, even if the error's own code fails."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as exc:
        return f"{type(error).__qualname__} (its traceback cannot be printed: {type(exc).__name__})"


def sent_failure(failure: Failure, encoder: Encoder) -> SentFailure:
    """Return *failure* as it travels; its payload is tested to rebuild the exception."""
    error = failure.error
    cls = type(error)
    return SentFailure(
        _proven(error, encoder),
        f"{cls.__module__}.{cls.__qualname__}",
        message_of(error),
        failure.traceback,
    )


def _proven(error: BaseException, encoder: Encoder) -> bytes | None:
    """Return a payload that is tested to rebuild *error*, or `None`."""

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
