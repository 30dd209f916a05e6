"""What a task came to, as a value: what workers give back, and how it crosses a border.

    worker:  function ──► value or exception ──► Report ──encode──► bytes
    caller:  bytes ──decode──► Report: values in order, and a Failure for each item that raised

Guarantees:
    - A report can always be encoded: what cannot travel is its own item's failure.
    - A report can always be decoded: a value that cannot be rebuilt is its own item's failure.
    - An exception arrives as its own class, or as a `RemoteError` that says which it was.
"""

from __future__ import annotations

import pickle
import traceback
from contextlib import suppress
from typing import Any, Final, NamedTuple

from parallel_facade._errors import (
    RemoteError,
    RemoteTraceback,
    SerializationError,
    described,
    message_of,
)
from parallel_facade._exceptions import add_cause, is_like, portable
from parallel_facade._payload import Encoder, decode
from parallel_facade._plain import PROTOCOL

PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
"""Types that cannot fail to travel, so that a chunk of them is written at once."""

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


class Report(NamedTuple):
    """What the items of one chunk came to.

    Attributes:
        values: A value for each item that was run, in order; `None` where it failed. Shorter than
            the chunk if the run stopped at a failure.
        failures: What went wrong, by position in the chunk.
        unread: Which part of the task could not be rebuilt, so that nothing was run; then the
            one failure, at position 0, says why. Empty otherwise.
    """

    values: list[Any]
    failures: dict[int, Failure]
    unread: str = ""


class _SentFailure(NamedTuple):
    """A failure as it travels: the exception in its own payload, and what to say without it."""

    payload: bytes | None
    type_name: str
    message: str
    traceback: str


def encode_report(report: Report, encoder: Encoder) -> bytes:
    """Return *report* as bytes; its first byte says whether anything failed."""
    failures = {position: _sent(failure, encoder) for position, failure in report.failures.items()}
    if PLAIN.issuperset(map(type, report.values)):
        body: tuple[Any, ...] = (True, report.values, failures, report.unread)
    else:
        # One payload each: a value that cannot be rebuilt must not take its neighbours along.
        payloads = [
            None if position in failures else _payload_of(value, position, encoder, failures)
            for position, value in enumerate(report.values)
        ]
        body = (False, payloads, failures, report.unread)
    flag = SOME_FAILED if failures else ALL_SUCCEEDED
    return flag + pickle.dumps(body, PROTOCOL)


def has_failures(data: bytes) -> bool:
    """Return whether an encoded report holds a failure, without decoding it."""
    return data[:1] == SOME_FAILED


def decode_report(data: bytes) -> Report:
    """Return the report that *data* holds."""
    is_plain, values, sent, unread = pickle.loads(memoryview(data)[1:])
    failures = {position: _received(_SentFailure(*fields)) for position, fields in sent.items()}
    if not is_plain:
        values = [
            None if payload is None else _value_of(payload, position, failures)
            for position, payload in enumerate(values)
        ]
    return Report(values, failures, unread)


def _payload_of(
    value: Any, position: int, encoder: Encoder, failures: dict[int, _SentFailure]
) -> bytes | None:
    try:
        return encoder.encode(
            value, f"the result, a {type(value).__qualname__}", lambda: {"result": value}
        )
    except SerializationError as exc:
        failures[position] = _sent(Failure(exc, ""), encoder)
        return None


def _value_of(payload: bytes, position: int, failures: dict[int, Failure]) -> Any:
    try:
        return decode(payload)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        # Rebuilding runs the user's code; what it raises is told, not let loose here.
        error = SerializationError(
            f"the result could not be rebuilt: {described(exc)}", path="result"
        )
        error.__cause__ = exc
        failures[position] = Failure(error)
        return None


def captured(error: BaseException) -> Failure:
    """Return *error*, just caught in a worker, with its traceback as text."""
    tb = error.__traceback__
    # The first frame is the one that caught it, in this library. By the method of BaseException,
    # around what a class of the user's may define.
    BaseException.with_traceback(error, tb.tb_next if tb is not None else None)
    return Failure(error, describe(error))


def describe(error: BaseException) -> str:
    """Return the traceback of *error* as text, whatever its own code does."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as exc:
        return f"{type(error).__qualname__} (its traceback cannot be printed: {type(exc).__name__})"


def _sent(failure: Failure, encoder: Encoder) -> _SentFailure:
    error = failure.error
    cls = type(error)
    return _SentFailure(
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


def _received(sent: _SentFailure) -> Failure:
    if sent.payload is not None:
        try:
            return Failure(decode(sent.payload), sent.traceback)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            sent = sent._replace(message=f"{sent.message} (not rebuilt: {type(exc).__name__})")
    error = RemoteError(
        f"{sent.type_name}: {sent.message}",
        type_name=sent.type_name,
        remote_traceback=sent.traceback,
    )
    return Failure(error, sent.traceback)
