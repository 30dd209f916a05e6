"""A call in a worker: its callable, rebuilt where names mean the same as in the caller.

    call payload ──once per call──► LoadedCall ─┐
    chunk payload ────────────────────────────► run ──► parts of a report

Guarantees:
    - `LoadedCall.run` returns a report, whatever the user's objects do while they are rebuilt or
      run.
    - A call's callable is decoded once per worker, and dropped when the call ends.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, NamedTuple

from parallel_facade._common.call_ids import is_from_here
from parallel_facade._common.errors import SerializationError, described
from parallel_facade._common.worker_role import is_worker_process, ready_since
from parallel_facade._configuration.settings import adopt_settings
from parallel_facade._console.capture import OutputCapture
from parallel_facade._console.replay import OutputRequest, unpacked_output_request
from parallel_facade._serialization.buffers.object_store import FetchedBuffer
from parallel_facade._serialization.buffers.shared_memory import MappedSegment, SegmentPool
from parallel_facade._serialization.call_parts import ReceivedParts
from parallel_facade._serialization.encoder import Encoder, Payload, decode, decode_callable
from parallel_facade._serialization.modules import apply_changes as _changes
from parallel_facade._serialization.modules import call_globals as _namespaces
from parallel_facade._serialization.rules.builtin_values import LiveObjects
from parallel_facade._serialization.rules.class_making import pinning_attributes
from parallel_facade._worker.inherited_state import write_state
from parallel_facade._worker.outcome_recorder import OutcomeLog, OutcomeRecorder
from parallel_facade._worker.outcomes import Failure, Received, captured, encode_unread
from parallel_facade._worker.run_chunk import (
    THE_ARGUMENTS,
    THE_CALLABLE,
    THE_STATE,
    Call,
    Chunk,
    item_now,
    run_recorded,
)
from parallel_facade._worker.timings import Stopwatch

NO_PARTS = ReceivedParts(dict)


class CallEnvironment(NamedTuple):
    """What a worker needs to know to decode a call.

    Attributes:
        call_id: The id of the call.
        serializer: How to encode results.
        import_path: The caller's `sys.path`, to find its modules.
        folder: The caller's working directory, for relative paths.
        is_remote: Whether the worker has a `sys.path` of its own.
        output_request: Which output of tasks the caller wants; `None` for none.
        is_timed: Whether the caller makes a timeline.
        authkey: The key for managers of `multiprocessing`, which the caller may have made; `None`
            for none.
        settings: The caller's configuration, for calls that tasks make.
        state: The caller's `inherited_state`, as a payload; `None` if it is that of a new
            interpreter.
    """

    call_id: str
    serializer: str
    import_path: list[str]
    folder: str
    is_remote: bool = False
    output_request: bytes | None = None
    is_timed: bool = False
    authkey: bytes | None = None
    settings: dict[str, Any] | None = None
    state: bytes | None = None

    def apply(self) -> None:
        """Make names of modules and files mean the same here as in the caller."""
        if self.is_remote:
            # After its own entries: if the two machines share no files, these lead nowhere.
            known = set(sys.path)
            sys.path += [entry for entry in self.import_path if entry not in known]
        elif sys.path != self.import_path:
            sys.path[:] = self.import_path
        if self.folder and _working_folder() != self.folder:
            with suppress(OSError):  # the folder may not exist on another machine
                os.chdir(self.folder)
        if self.authkey is not None:
            from multiprocessing import process  # imported here, because few programs use managers

            process.current_process().authkey = self.authkey


def _working_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


class LoadedCall:
    """A call in a worker; it is decoded when its first chunk arrives."""

    def __init__(
        self,
        payload: bytes,
        mapped_segments: tuple[MappedSegment | FetchedBuffer, ...] = (),
        segment_pool: SegmentPool | None = None,
    ) -> None:
        environment, self._payload = decode(payload)
        self._mapped_segments = mapped_segments
        self._environment = CallEnvironment(*environment)
        self.call_id = self._environment.call_id
        self._output_request: OutputRequest | None = None
        # In the caller's own process, the output of a task needs no relay.
        if (output_request := self._environment.output_request) is not None and not is_from_here(
            self.call_id
        ):
            self._output_request = unpacked_output_request(output_request)
        self._encoder = Encoder(
            self.call_id, self._environment.serializer, returning=True, segment_pool=segment_pool
        )
        self._call: Call | None = None
        self._parts = NO_PARTS
        self._state: dict[str, Any] = {}
        self._decoding = threading.Lock()  # guards _call, if a worker has several threads
        self._live: list[Any] = []  # objects that the callable refers to only weakly
        # Context variables that travelled are set in this context, for this call alone.
        self._context = copy_context()
        if not is_from_here(self.call_id):
            self._context.run(adopt_settings, self._environment.settings or {})

    def run(  # noqa: PLR0917 - each kind of worker gives different ones of these
        self,
        payload: Received,
        log: OutcomeLog | None = None,
        send_part: Callable[[Payload], object] | None = None,
        on_begin: Callable[[], object] | None = None,
        at_most: float = math.inf,
        send_record: Callable[[bytes], object] | None = None,
        on_item: Callable[[], object] | None = None,
        part: tuple[int, int] | None = None,
    ) -> tuple[Payload, int]:
        """Run the chunk in *payload*; return the last part of the report, and how many were run.

        Args:
            payload: The chunk; it is not kept.
            log: Keeps outcomes safe if this process dies; `None` for no log.
            send_part: Sends a part of the report at once.
            on_begin: Called when the callable is ready, before the arguments are rebuilt.
            at_most: Begin no more items once this many were run.
            send_record: Sends a record to relay; `None` to relay none.
            on_item: Called before each item, if a chunk has several that are timed.
            part: The first of its items to run, and the first behind them; `None` for all.
        """
        recorder = OutcomeRecorder(self._encoder, log, send_part)
        stopwatch = Stopwatch(send_record if self._environment.is_timed else None, ready_since())
        try:
            with self._decoding:
                call = self._context.run(self.call)
        except BaseException as exc:
            return self._unread(THE_CALLABLE, exc)
        stopwatch.mark()
        # A copy: only one thread at a time can enter a context.
        return self._context.copy().run(
            self._run_capturing,
            *(send_record, call, payload, recorder, on_begin, at_most, stopwatch, on_item, part),
        )

    def _run_capturing(
        self, send_record: Callable[[bytes], object] | None, *what: Any
    ) -> tuple[Payload, int]:
        if send_record is None or self._output_request is None:
            return self._run(*what)
        with OutputCapture(
            self._output_request, send_record, item_now, is_alone=is_worker_process()
        ):
            return self._run(*what)

    def _run(  # noqa: PLR0917 - the arguments of `run`, and what it made
        self,
        call: Call,
        payload: Received,
        recorder: OutcomeRecorder,
        on_begin: Callable[[], object] | None,
        at_most: float,
        stopwatch: Stopwatch,
        on_item: Callable[[], object] | None,
        part: tuple[int, int] | None,
    ) -> tuple[Payload, int]:
        if on_begin is not None:
            on_begin()
        try:
            write_state(self._state)
        except BaseException as exc:
            return self._unread(THE_STATE, exc)
        with _namespaces.as_main(self.call_id), LiveObjects():
            try:
                chunk = Chunk(*self._parts.rebuild(lambda: decode(*payload)))
                if part is not None:
                    chunk = chunk.part(*part)
            except BaseException as exc:
                return self._unread(THE_ARGUMENTS, exc)
            recorder.enter()
            before_each = on_item if len(chunk.items) > 1 else None
            count, seconds = run_recorded(call, chunk, recorder, at_most, stopwatch, before_each)
            report = recorder.part(seconds)
            stopwatch.reported(chunk.first, count)
            return report, count

    def _unread(self, part: str, exc: BaseException) -> tuple[Payload, int]:
        error = SerializationError(
            f"{part} could not be rebuilt in the worker: {described(exc)}{_advice(exc)}", path=part
        )
        failure = Failure(error, captured(exc).traceback)
        return Payload(encode_unread(part, failure, self._encoder)), 0

    @property
    def is_loaded(self) -> bool:
        """Whether the call was decoded."""
        return self._call is not None

    def call(self) -> Call:
        """Return the call; decode it on first use."""
        self._environment.apply()
        if self._call is None:
            with LiveObjects() as self._live:
                fields, self._parts = decode_callable(self._payload, self._mapped_segments)
                call = Call(*fields)
                # After the call: it refers to what the call has brought along.
                if (state := self._environment.state) is not None:
                    self._state = self._parts.rebuild(lambda: decode(state))
                self._call = call
            self._payload, self._mapped_segments = b"", ()
        return self._call

    def close(self) -> None:
        """Drop the callable and its globals."""
        self._call = None
        self._parts = NO_PARTS
        self._live = []
        _namespaces.forget(self.call_id)
        _changes.forget(self.call_id)


def run_initializer(payload: bytes) -> None:
    """Run the initializer in *payload*; the globals that it sets stay for the worker's life."""
    opened = LoadedCall(payload)
    initializer = opened.call().func
    defined_in = getattr(getattr(initializer, "func", initializer), "__module__", "")
    with (
        _namespaces.as_main(opened.call_id),
        _namespaces.pinning(opened.call_id, defined_in),
        pinning_attributes(opened.call_id),
    ):
        initializer()
    opened.close()


def _advice(exc: BaseException) -> str:
    """Return a hint on what to do about *exc*; empty if there is none."""
    if isinstance(exc, ImportError) and "subinterpreters" in str(exc):
        return "\n\nHint: this module runs in processes and threads only: use backend='process'."
    if not isinstance(exc, ModuleNotFoundError) or not exc.name:
        return ""
    package = exc.name.partition(".")[0]
    return (
        f"\n\nHint: the worker has no module {exc.name!r}. Install it there, or send its code "
        f"along: configure(by_value=[{package!r}])."
    )
