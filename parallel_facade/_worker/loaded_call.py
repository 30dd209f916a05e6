"""A call as a worker knows it: its callable, rebuilt where names mean what they mean to the caller.

    call payload ──once per call──► OpenCall ─┐
    chunk payload ──────────────────────────► run ──► parts of a report

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

from parallel_facade._common.call_ids import is_made_here
from parallel_facade._common.errors import SerializationError, described
from parallel_facade._common.worker_role import is_worker_process, ready_since
from parallel_facade._configuration.settings import adopt_settings
from parallel_facade._console.capture import OutputCapture
from parallel_facade._console.replay import OutputRequest, unpacked_output_request
from parallel_facade._serialization.buffers.object_store import FetchedBuffer
from parallel_facade._serialization.buffers.shared_memory import MappedSegment, SegmentPool
from parallel_facade._serialization.encoder import Encoder, Payload, decode
from parallel_facade._serialization.modules import apply_changes as _changes
from parallel_facade._serialization.modules import call_globals as _namespaces
from parallel_facade._serialization.rules.builtin_values import LiveObjects
from parallel_facade._serialization.rules.classes import pinning_attributes
from parallel_facade._worker.outcome_recorder import OutcomeLog, OutcomeRecorder
from parallel_facade._worker.outcomes import Failure, Received, captured, encode_unread
from parallel_facade._worker.run_chunk import (
    THE_ARGUMENTS,
    THE_CALLABLE,
    Call,
    Chunk,
    item_now,
    run_recorded,
)
from parallel_facade._worker.timings import Stopwatch


class CallEnvironment(NamedTuple):
    """What a worker needs to know to decode a call.

    Attributes:
        call_id: The call's name.
        serializer: How to encode what goes back.
        import_path: The caller's `sys.path`, where its modules are found.
        folder: The caller's working directory, which relative paths mean.
        is_remote: Whether the worker has a `sys.path` of its own.
        output_request: What the caller wants to hear while tasks run; `None` for nothing.
        is_timed: Whether the caller makes a timeline.
        authkey: What lets the worker in at managers of `multiprocessing`, which the caller may have
            made; `None` for nothing.
        settings: What the caller has configured, for calls that tasks make.
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

    def apply(self) -> None:
        """Make names of modules and files mean here what they mean to the caller."""
        if self.is_remote:
            # Behind its own: where the two machines share no files, these lead nowhere.
            known = set(sys.path)
            sys.path += [entry for entry in self.import_path if entry not in known]
        elif sys.path != self.import_path:
            sys.path[:] = self.import_path
        with suppress(OSError):  # on another machine there may be no such folder
            if self.folder and os.getcwd() != self.folder:
                os.chdir(self.folder)
        if self.authkey is not None:
            from multiprocessing import process  # its managers are used here, where few are

            process.current_process().authkey = self.authkey


class LoadedCall:
    """A call as a worker knows it: decoded when its first chunk arrives."""

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
        # In the caller's own process, what a task says reaches it by itself.
        if (output_request := self._environment.output_request) is not None and not is_made_here(
            self.call_id
        ):
            self._output_request = unpacked_output_request(output_request)
        self._encoder = Encoder(
            self.call_id, self._environment.serializer, returning=True, segment_pool=segment_pool
        )
        self._call: Call | None = None
        self._decoding = threading.Lock()  # guards _call, where a worker has several threads
        self._live: list[Any] = []  # what only weak references of the callable refer to
        # Context variables that travelled are set here, and for this call alone.
        self._context = copy_context()
        if not is_made_here(self.call_id):
            self._context.run(adopt_settings, self._environment.settings or {})

    def run(  # noqa: PLR0917 - what each kind of worker has of these differs
        self,
        payload: Received,
        log: OutcomeLog | None = None,
        send_part: Callable[[Payload], object] | None = None,
        on_begin: Callable[[], object] | None = None,
        at_most: float = math.inf,
        send_record: Callable[[bytes], object] | None = None,
    ) -> tuple[Payload, int]:
        """Run the chunk in *payload*; return the last part of the report, and how many were run.

        Args:
            payload: The chunk, which is not kept.
            log: Where outcomes are safe from the end of this process; `None` for nowhere.
            send_part: Sends a part of the report at once.
            on_begin: Called when the callable is there, before the arguments are rebuilt.
            at_most: Begin no more items once so many were run.
            send_record: Sends a remark; `None` for nowhere.
        """
        recorder = OutcomeRecorder(self._encoder, log, send_part)
        stopwatch = Stopwatch(send_record if self._environment.is_timed else None, ready_since())
        try:
            with self._decoding:
                call = self._context.run(self.call)
        except BaseException as exc:
            return self._unread(THE_CALLABLE, exc)
        stopwatch.mark()
        # A copy: a context can be entered by one thread only.
        return self._context.copy().run(
            self._run_capturing, send_record, call, payload, recorder, on_begin, at_most, stopwatch
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

    def _run(  # noqa: PLR0917 - what `run` takes and has made
        self,
        call: Call,
        payload: Received,
        recorder: OutcomeRecorder,
        on_begin: Callable[[], object] | None,
        at_most: float,
        stopwatch: Stopwatch,
    ) -> tuple[Payload, int]:
        if on_begin is not None:
            on_begin()
        with _namespaces.as_main(self.call_id), LiveObjects():
            try:
                chunk = Chunk(*decode(*payload))
            except BaseException as exc:
                return self._unread(THE_ARGUMENTS, exc)
            recorder.enter()
            count, seconds = run_recorded(call, chunk, recorder, at_most, stopwatch)
            part = recorder.part(seconds)
            stopwatch.reported(chunk.first, count)
            return part, count

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
        """Return the call, decoding it on first use."""
        self._environment.apply()
        if self._call is None:
            with LiveObjects() as self._live:
                self._call = Call(*decode(self._payload, self._mapped_segments))
            self._payload, self._mapped_segments = b"", ()
        return self._call

    def close(self) -> None:
        """Forget the callable and its globals."""
        self._call = None
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
    """Return what to do about *exc*, if that is known."""
    if isinstance(exc, ImportError) and "subinterpreters" in str(exc):
        return "\n\nHint: this module runs in processes and threads only: use backend='process'."
    if not isinstance(exc, ModuleNotFoundError) or not exc.name:
        return ""
    package = exc.name.partition(".")[0]
    return (
        f"\n\nHint: the worker has no module {exc.name!r}. Install it there, or send its code "
        f"along: configure(by_value=[{package!r}])."
    )
