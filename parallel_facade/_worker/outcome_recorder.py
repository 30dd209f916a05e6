"""Encodes the outcomes of one chunk as they come; each is safe before the next item runs.

    value ──► slot or record in the log (memory that outlives the worker)
      └─────► kept for the report ──► last part of the report
                    └── the log is full ──► a part of the report, sent at once

Guarantees:
    - When `add` or `fail` returns, the outcome is in the log, in a part that was sent, or both.

Assumes:
    - After each `open`, *place* counts up from 0.
    - Values of the type that `add` returned are set into the slots that it returned.
"""

from __future__ import annotations

import marshal
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from parallel_facade._serialization.buffers.shared_memory import SharedSegment
from parallel_facade._serialization.encoder import Encoder, Payload
from parallel_facade._worker.outcomes import (
    PLAIN,
    SentFailure,
    captured,
    encode_part,
    encode_result,
    sent_failure,
)

BLOCK: Final = 1 << 14
"""Items with outcomes in the log at once; a longer chunk is reported in parts. More: each worker's
log needs 8 more bytes for each item. Fewer: more messages for long chunks of tiny items."""

SLOT_BYTES: Final = 8

GO_ON: Final = b"\0"
"""Replaces a log's stop signal if there is no log."""

Slots = tuple[type | None, Any]
"""A type, and the slots for values of that type; `None` if values go into no slots."""

NO_SLOTS: Final[Slots] = (None, None)


class OutcomeLog(Protocol):
    """Memory that outlives the worker; see `backends.process.journal`."""

    @property
    @abstractmethod
    def stop(self) -> Sequence[int]:
        """Its only element is zero if every item may begin; this is cheaper to check."""

    @abstractmethod
    def may_begin(self, place: int) -> bool:
        """Return whether the item at *place* of the chunk may begin."""

    def enter(self) -> None:
        """Note that the items run now."""

    def open_slots(self, kind: type, count: int) -> Any:
        """Return *count* slots for values of type *kind*."""

    @abstractmethod
    def write(self, record: bytes) -> bool:
        """Note an outcome, and return whether there was room for it."""

    def sending(self) -> None:
        """Note that all outcomes so far are about to be sent."""

    def sent(self, count: int) -> None:
        """Note that all outcomes so far, of *count* items, were sent."""


class OutcomeRecorder:
    """Collects the outcomes of one chunk.

    Args:
        encoder: Encodes values that are not plain.
        log: Keeps outcomes safe; `None` for no log.
        send_part: Sends a part of the report at once; `None` if there is no log to fill up.
    """

    def __init__(
        self,
        encoder: Encoder,
        log: OutcomeLog | None = None,
        send_part: Callable[[Payload], object] | None = None,
    ) -> None:
        self._encoder = encoder
        self._log = log
        self._send_part = send_part
        self._kind: type | None = None
        self._slots: Any = None
        self._count = 0
        self.stop: Sequence[int] = GO_ON if log is None else log.stop
        """Its only element is zero if every item may begin; this is cheaper to check."""
        self._clear()

    def _clear(self) -> None:
        self._prefix: tuple[str, bytes] = ("", b"")
        self._values: list[Any] = []
        self._payloads: dict[int, bytes | tuple[bytes, int]] = {}
        self._segments: list[SharedSegment] = []
        self._failures: dict[int, SentFailure] = {}

    def enter(self) -> None:
        """Note that the items run now."""
        if self._log is not None:
            self._log.enter()

    def open(self, count: int) -> None:
        """Make room for the outcomes of the next *count* items."""
        self._count = count

    def add(self, place: int, value: Any) -> Slots:
        """Take the value of the item at *place*; return the slots for the next values."""
        cls = type(value)
        if place == 0 and self._log is not None and (cls is int or cls is float):
            self._kind, self._slots = cls, self._log.open_slots(cls, self._count)
            try:
                self._slots[0] = value
            except ValueError:  # an integer of more than 64 bits
                self._end_slots(0)
            else:
                return self._kind, self._slots
        self._end_slots(place)
        position = len(self._values)
        if cls in PLAIN:
            self._values.append(value)
            if self._log is not None:
                self._record(value)
            return NO_SLOTS
        encoded = encode_result(value, self._encoder)
        self._values.append(None)
        if isinstance(encoded, SentFailure):
            self._failures[position] = encoded
            self._record(tuple(encoded))
        elif encoded.segments:
            self._payloads[position] = encoded.data, len(encoded.segments)
            self._segments += encoded.segments
            self.flush()
        else:
            self._payloads[position] = encoded.data
            self._record((encoded.data,))
        return NO_SLOTS

    def may_begin(self, place: int) -> bool:
        """Return whether the item at *place* of the chunk may begin."""
        return self._log is None or self._log.may_begin(place)

    @property
    def slots(self) -> Slots:
        """The slots for the next values."""
        return (self._kind, self._slots)

    @property
    def has_failed(self) -> bool:
        """Whether a failure was taken since the last part was sent."""
        return bool(self._failures)

    def leave_slots(self) -> None:
        """Release the slots in a fork of this process, so that nothing sets them there."""
        if self._slots is not None:
            self._slots.release()

    def fail(self, place: int, error: BaseException) -> Slots:
        """Take the exception of the item at *place*; return the slots for the next values."""
        self._end_slots(place)
        failure = sent_failure(captured(error), self._encoder)
        self._failures[len(self._values)] = failure
        self._values.append(None)
        self._record(tuple(failure))
        return NO_SLOTS

    def close(self, count: int) -> None:
        """End what `open` began; *count* of its items were run."""
        if self._kind is not None:
            self._end_slots(count)

    def flush(self) -> None:
        """Send the outcomes that were not sent."""
        if self._send_part is not None and self._log is not None:
            self._log.sending()
            self._send_part(self.part())
            self._log.sent(len(self._prefix[1]) // SLOT_BYTES + len(self._values))
            self._clear()

    def part(self, seconds: float = 0.0) -> Payload:
        """Return all outcomes that were not sent, encoded.

        Args:
            seconds: How long the whole chunk took, if this is the last part.
        """
        data = encode_part(
            self._prefix, self._values, self._payloads, self._failures, seconds=seconds
        )
        return Payload(data, tuple(self._segments))

    def _end_slots(self, count: int) -> None:
        """Keep the values of the first *count* slots; no more slots will be set."""
        if self._kind is not None:
            self._prefix = (self._slots.format, bytes(self._slots[:count]))
            self._slots.release()
            self._kind = self._slots = None

    def _record(self, outcome: Any) -> None:
        if self._log is None:
            return
        try:
            record = marshal.dumps(outcome)
        except ValueError:  # of more than 2 GiB
            self.flush()
            return
        if not self._log.write(record):
            self.flush()
