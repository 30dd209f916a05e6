"""What a worker does and has done, in memory that outlives it.

    worker:  begin(task) ── enter() ── outcome ── outcome ──►  shared memory  ──► caller, when the
                                                                                 worker has died

    ┌───────┬────────────────────────┬──────────────────────────────┐
    │ words │ slots: 8 bytes a value │ records: marshalled outcomes │
    └───────┴────────────────────────┴──────────────────────────────┘

A chunk's first outcomes are slots for as long as they are all small integers, or all floats: one
store each. From the first that is not, they are records.

Guarantees:
    - To note an outcome costs a store into memory, no message.
    - A task that was not begun was not run, and neither was an item behind the first without an
      outcome. An outcome is either whole or not there.

Assumes:
    - One worker writes. The caller reads once the worker's process has ended; or before, and then
      it may have to do without.
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
TASK, PHASE, PARTS, SENT, SLOT_CODE, SLOTS, RECORD_BYTES, UNSET, STOP, WORDS = range(10)
"""The task's number; what is done with it; parts that were sent; the outcomes in them; the slots'
type, as a character, or 0; how many there are; bytes of records; what an unset slot holds; whether
no further item shall be begun; how many words."""

PREPARING, RUNNING, SENDING = range(3)
"""Phases: the arguments are rebuilt; the items are run; outcomes are sent, in between."""

EACH_BYTE: Final = 0x0101_0101_0101_0101
"""Makes no byte of a number zero."""

RECORDS_AT_MOST: Final = 1 << 15
"""Bytes; what does not fit is sent at once."""
RECORDS_AT: Final = (WORDS + BLOCK) * WORD_BYTES

SLOT_CODES: Final = {int: "q", float: "d"}


class ChangedError(Exception):
    """What was read of a journal is of two different moments."""


class JournalSnapshot(NamedTuple):
    """How far a worker came with its last task.

    Attributes:
        task: The task's number.
        is_running: Whether it had the arguments, and ran the items.
        parts: How many parts of the report it had sent.
        sent: How many outcomes were in those.
        slots: The first outcomes after those, as an array's type code and bytes.
        records: The outcomes behind those.
    """

    task: int
    is_running: bool
    parts: int
    sent: int
    slots: tuple[str, bytes]
    records: list[Any]

    @property
    def outcomes(self) -> int:
        """How many there are, in the parts and behind them."""
        return self.sent + len(self.slots[1]) // WORD_BYTES + len(self.records)

    @property
    def has_outcomes(self) -> bool:
        """Whether there are any behind the parts."""
        return bool(self.slots[1] or self.records)


class Journal:
    """The memory, as one of the two processes has it."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, RECORDS_AT + RECORDS_AT_MOST)
        self._bytes = memoryview(self._memory)
        self._words = self._bytes[: WORDS * WORD_BYTES].cast("Q")
        self._slots = self._bytes[WORDS * WORD_BYTES : RECORDS_AT]
        self._records = self._bytes[RECORDS_AT:]
        self.stop = self._bytes[STOP * WORD_BYTES : STOP * WORD_BYTES + 1]
        """Its one element is zero unless `is_stopped`, or a task has written over the journal."""
        self._secret = self._words[UNSET]
        self._end = 0

    @classmethod
    def new(cls, fd: int) -> Journal:
        """Return a journal in new memory, as the caller has it."""
        journal = cls(fd)
        # What an unset slot holds: 64 bits that no value is likely to have.
        journal._secret = journal._words[UNSET] = _random_word() | EACH_BYTE
        return journal

    # ── the worker's side ─────────────────────────────────────────────────────────────────────

    def begin(self, task: int) -> None:
        """Note that the task with this number is taken up: now its arguments are rebuilt."""
        self._words[PHASE] = PREPARING
        self._words[PARTS] = self._words[SENT] = 0
        self._erase()
        self._words[TASK] = task

    def enter(self) -> None:
        """Note that the items are run now."""
        self._words[PHASE] = RUNNING

    def open_slots(self, kind: type, count: int) -> memoryview:
        """Return *count* slots for values of type *kind*, to be set one after the other."""
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

        In this order, as the worker may die between any two of these lines: before the part is
        counted, the caller has one more than the journal knows of, and does not look at the
        outcomes.
        """
        self._erase()
        self._words[PARTS] += 1
        self._words[SENT] += count
        self._words[PHASE] = RUNNING

    def _erase(self) -> None:
        self._words[SLOT_CODE] = 0
        self._words[RECORD_BYTES] = self._end = 0

    # ── the caller's side ─────────────────────────────────────────────────────────────────────

    def read(self) -> JournalSnapshot:
        """Return how far the worker came.

        Raises:
            ChangedError: The worker lives, and wrote meanwhile what does not fit to what was read.
        """
        words = self._words
        task, parts, sent = words[TASK], words[PARTS], words[SENT]
        is_running = words[PHASE] != PREPARING
        code = chr(words[SLOT_CODE]) if words[SLOT_CODE] else ""
        slots = self._set_slots() if code else b""
        records = bytes(self._records[: words[RECORD_BYTES]])
        # As long as these are the same, outcomes were added only, if anything.
        if (task, parts) != (words[TASK], words[PARTS]):
            raise ChangedError
        return JournalSnapshot(task, is_running, parts, sent, (code, slots), _unmarshalled(records))

    @property
    def is_sending(self) -> bool:
        """Whether outcomes are between the journal and the channel, and cannot be counted."""
        return bool(self._words[PHASE] == SENDING)

    @property
    def is_stopped(self) -> bool:
        """Whether no further item shall be begun."""
        return bool(self._words[STOP] == self._secret)

    def pause(self) -> None:
        """Have the worker begin no further item."""
        self._words[STOP] = self._secret

    def resume(self) -> None:
        """Let it begin items again."""
        self._words[STOP] = 0

    def _set_slots(self) -> bytes:
        count = self._words[SLOTS]
        slots = self._slots[: count * WORD_BYTES].cast("Q").tolist()
        with suppress(ValueError):  # all of them are set
            count = slots.index(self._words[UNSET])
        return bytes(self._slots[: count * WORD_BYTES])

    def close(self) -> None:
        """Give the memory back."""
        for view in (self._words, self._slots, self._records, self.stop, self._bytes):
            view.release()
        self._memory.close()


def _unmarshalled(data: bytes) -> list[Any]:
    source = io.BytesIO(data)
    found = []
    while source.tell() < len(data):
        found.append(marshal.load(source))
    return found


def new_memory() -> int:
    """Return a descriptor of memory without a name, for a journal."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("parallel_facade-journal", os.MFD_CLOEXEC)
    else:
        import tempfile  # a system without memory files is rare

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, RECORDS_AT + RECORDS_AT_MOST)
    return fd


def _random_word() -> int:
    return int.from_bytes(os.urandom(WORD_BYTES), "little")
