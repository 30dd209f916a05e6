"""A worker's progress and outcomes, in memory that outlives the worker.

    worker:  begin(task) ── enter() ── outcome ── outcome ──►  shared memory  ──► caller, when the
                                                                                 worker has died

    ┌───────┬──────────────────────────┬──────────────────────────────┐
    │ words │ slots: 8 bytes per value │ records: marshalled outcomes │
    └───────┴──────────────────────────┴──────────────────────────────┘

A chunk's first outcomes are in slots as long as they are all small integers, or all floats: one
store for each. From the first other outcome on, outcomes are records.

Guarantees:
    - Noting an outcome costs a store into memory, no message.
    - A task that was not begun did not run, and neither did any item after the first one without
      an outcome. An outcome is either complete or absent.

Assumes:
    - One worker writes. The caller reads once the worker's process has exited. If it reads
      earlier, it may get no snapshot.
"""

from __future__ import annotations

import io
import marshal
import mmap
import os
from contextlib import suppress
from typing import Any, Final, NamedTuple

from parallel_facade._worker.outcome_recorder import BLOCK

WORD_BYTES: Final = 8
(
    *(TASK, PHASE, PARTS, SENT, SLOT_CODE, SLOTS, RECORD_BYTES, UNSET, STOP, LIMITED, LIMIT),
    WORDS,
) = range(12)
"""Indexes of the words: the task's number; its phase; parts that were sent; the outcomes in them;
the slots' type, as a character, or 0; the number of slots; bytes of records; the value of an unset
slot; the stop signal, which says that there is a limit; the number of the task that it is for; how
many of its items may begin, while no later task may. WORDS is the number of words."""

PREPARING, RUNNING, SENDING = range(3)
"""Phases: the arguments are rebuilt; the items run; outcomes are sent, between items."""

EACH_BYTE: Final = 0x0101_0101_0101_0101
"""Or-ed into a number, it makes no byte of the number zero."""

RECORDS_AT_MOST: Final = 1 << 15
"""Bytes; an outcome that does not fit is sent at once."""
RECORDS_AT: Final = (WORDS + BLOCK) * WORD_BYTES

SLOT_CODES: Final[dict[type, str]] = {int: "q", float: "d"}


class ChangedError(Exception):
    """The journal changed while it was read."""


class JournalSnapshot(NamedTuple):
    """How far a worker came with its last task.

    Attributes:
        task: The task's number.
        is_running: Whether it had the arguments, and ran the items.
        parts: How many parts of the report it had sent.
        sent: How many outcomes were in those parts.
        slots: The first outcomes after the parts, as an array's type code and bytes.
        records: The outcomes after the slots.
    """

    task: int
    is_running: bool
    parts: int
    sent: int
    slots: tuple[str, bytes]
    records: list[Any]

    @property
    def outcomes(self) -> int:
        """How many outcomes there are, in the parts and after them."""
        return self.sent + len(self.slots[1]) // WORD_BYTES + len(self.records)

    @property
    def has_outcomes(self) -> bool:
        """Whether there are any outcomes after the parts."""
        return bool(self.slots[1] or self.records)


class Journal:
    """The memory, as mapped by one of the two processes."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, RECORDS_AT + RECORDS_AT_MOST)
        self._bytes = memoryview(self._memory)
        self._words = self._bytes[: WORDS * WORD_BYTES].cast("Q")
        self._slots = self._bytes[WORDS * WORD_BYTES : RECORDS_AT]
        self._records = self._bytes[RECORDS_AT:]
        self.stop: memoryview[int] = self._bytes[STOP * WORD_BYTES : STOP * WORD_BYTES + 1]
        """Its one element is zero unless there is a limit, or a task has overwritten it."""
        self._secret = self._words[UNSET]
        self._end = 0

    @classmethod
    def new(cls, fd: int) -> Journal:
        """Return a journal in new memory, for the caller."""
        journal = cls(fd)
        # The value of an unset slot: 64 bits that no real value is likely to have.
        journal._secret = journal._words[UNSET] = _random_word() | EACH_BYTE
        return journal

    # ── the worker's side ─────────────────────────────────────────────────────────────────────

    def begin(self, task: int) -> None:
        """Note that the task with this number begins: now its arguments are rebuilt."""
        self._words[PHASE] = PREPARING
        self._words[PARTS] = self._words[SENT] = 0
        self._erase()
        self._words[TASK] = task

    def enter(self) -> None:
        """Note that the items run now."""
        self._words[PHASE] = RUNNING

    def open_slots(self, kind: type, count: int) -> memoryview:
        """Return *count* slots for values of type *kind*, to be set one after another."""
        code = SLOT_CODES[kind]
        unset = bytes(self._bytes[UNSET * WORD_BYTES : (UNSET + 1) * WORD_BYTES])
        slots: Any = self._slots[: count * WORD_BYTES]
        slots[:] = unset * count
        self._words[SLOTS] = count
        self._words[SLOT_CODE] = ord(code)
        view: memoryview = slots.cast(code)
        return view

    def write(self, record: bytes) -> bool:
        """Note an outcome, and return whether there was room for it."""
        end = self._end + len(record)
        if end > RECORDS_AT_MOST:
            return False
        self._records[self._end : end] = record
        self._words[RECORD_BYTES] = self._end = end
        return True

    def sending(self) -> None:
        """Note that all outcomes so far are about to be sent."""
        self._words[PHASE] = SENDING

    def sent(self, count: int) -> None:
        """Note that all outcomes so far, of *count* items, were sent as one more part.

        The order matters, because the worker may die between any two of these lines. Until the
        part is counted, the caller has one part more than the journal counts, and ignores the
        outcomes in the journal.
        """
        self._erase()
        self._words[PARTS] += 1
        self._words[SENT] += count
        self._words[PHASE] = RUNNING

    def _erase(self) -> None:
        self._words[SLOT_CODE] = 0
        self._words[RECORD_BYTES] = self._end = 0

    def may_begin(self, place: int) -> bool:
        """Return whether the item at *place* of the task may begin."""
        words = self._words
        if words[STOP] != self._secret or words[TASK] < words[LIMITED]:
            return True
        return bool(words[TASK] == words[LIMITED] and place < words[LIMIT])

    # ── the caller's side ─────────────────────────────────────────────────────────────────────

    def read(self) -> JournalSnapshot:
        """Return how far the worker came.

        Raises:
            ChangedError: The worker is alive, and what it wrote meanwhile does not match what was
                read.
        """
        words = self._words
        task, parts, sent = words[TASK], words[PARTS], words[SENT]
        is_running = words[PHASE] != PREPARING
        code = chr(words[SLOT_CODE]) if words[SLOT_CODE] else ""
        slots = _set_slots(self._words, self._slots) if code else b""
        records = bytes(self._records[: words[RECORD_BYTES]])
        # While these are the same, outcomes were only added, if anything changed.
        if (task, parts) != (words[TASK], words[PARTS]):
            raise ChangedError
        return JournalSnapshot(task, is_running, parts, sent, (code, slots), _unmarshalled(records))

    @property
    def is_sending(self) -> bool:
        """Whether outcomes are between the journal and the channel, and cannot be counted."""
        return bool(self._words[PHASE] == SENDING)

    def limit(self, task: int, items: int) -> None:
        """Tell the worker to begin no more than *items* items of *task*, and no later task.

        The order matters: the worker may look between any two of these lines.
        """
        self._words[LIMIT] = items
        self._words[LIMITED] = task
        self._words[STOP] = self._secret

    def lift_limit(self) -> None:
        """Let the worker begin everything again."""
        self._words[STOP] = 0

    def close(self) -> None:
        """Release the memory."""
        for view in (self._words, self._slots, self._records, self.stop, self._bytes):
            view.release()
        self._memory.close()


def _set_slots(words: memoryview, slots: memoryview) -> bytes:
    """Return the bytes of the slots that are set, which are the first ones."""
    count = words[SLOTS]
    values = slots[: count * WORD_BYTES].cast("Q").tolist()
    with suppress(ValueError):  # all of them are set
        count = values.index(words[UNSET])
    return bytes(slots[: count * WORD_BYTES])


def _unmarshalled(data: bytes) -> list[Any]:
    source = io.BytesIO(data)
    found = []
    while source.tell() < len(data):
        found.append(marshal.load(source))
    return found


def new_memory() -> int:
    """Return a descriptor of unnamed memory for a journal."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("parallel_facade-journal", os.MFD_CLOEXEC)
    else:
        import tempfile  # here, since a system without memory files is rare

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, RECORDS_AT + RECORDS_AT_MOST)
    return fd


def _random_word() -> int:
    return int.from_bytes(os.urandom(WORD_BYTES), "little")
