"""Captures the output of a task while it runs: log records, printed text, warnings.

    logging.root ──► Handler ─┐
    sys.stdout, sys.stderr ───┼──► OutputCapture of the task ──► relayed record ──► caller
    warnings.showwarning ─────┘        └ outside of tasks: as if nothing had been replaced

Guarantees:
    - Each replacement is made once per process, and acts like the original outside of tasks.
    - Output of a thread that a task has started is captured like the task's own, if the worker has
      a process to itself. Otherwise it is not, so that other callers' output is not sent.
    - Handlers that a forked worker inherits from the caller are not called: the caller calls them.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final, Self

from parallel_facade._common.plain_data import PROTOCOL, is_plain
from parallel_facade._common.threads import ThreadVariable
from parallel_facade._console.replay import LOGGED, PRINTED, WARNED, OutputRequest, filters_there

LINE_BYTES: Final = 1 << 13
"""Text of more than this length is sent at once, even if its line has not ended."""


class OutputCapture:
    """A block that sends what a task logs, prints and warns of to its caller.

    Args:
        output_request: The output that the caller wants.
        send: Sends a relayed record.
        item_now: Returns the index of the item that the current thread runs; `None` if it runs no
            item.
        is_alone: Whether this process runs nothing else at the same time.
    """

    def __init__(
        self,
        output_request: OutputRequest,
        send: Callable[[bytes], object],
        item_now: Callable[[], int | None],
        *,
        is_alone: bool,
    ) -> None:
        self.output_request = output_request
        self._send = send
        self._item_now = item_now
        self._is_alone = is_alone
        self._unended: dict[str, str] = {}  # stream → text of an unfinished line
        self._writing = threading.RLock()  # guards _unended; an RLock, as a `__del__` may print

    def __enter__(self) -> Self:
        global _of_process
        _process_output.replace(self.output_request)
        self._token = _of_context.set(self)
        if self._is_alone:
            _of_process = self
        return self

    def __exit__(self, *exc_info: object) -> None:
        global _of_process
        _of_context.reset(self._token)
        if self._is_alone:
            _of_process = None
        for stream in list(self._unended):
            self._end_line(stream)

    def log(self, record: logging.LogRecord) -> None:
        """Send a log record, with the traceback as text."""
        fields = {**vars(record), "msg": record.getMessage(), "args": None, "exc_info": None}
        if record.exc_info and not record.exc_text:
            fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
        fields["item"], fields["worker"] = self._item_now(), os.getpid()
        # Values that any process can rebuild; for all others, their repr().
        sendable = {name: one if is_plain(one) else repr(one) for name, one in fields.items()}
        self._send_record(LOGGED, sendable)

    def write(self, stream: str, text: str) -> None:
        """Send text; an unfinished line at its end waits for the rest."""
        with self._writing:
            text = self._unended.pop(stream, "") + text
            end = max(text.rfind("\n"), text.rfind("\r")) + 1
            if len(text) - end > LINE_BYTES:
                end = len(text)
            if text[end:]:
                self._unended[stream] = text[end:]
        if end:
            self._send_record(PRINTED, stream, text[:end])

    def warn(self, text: str, category: type[Warning], file: str, line: int) -> None:
        """Send a warning."""
        names = category.__module__, category.__qualname__
        self._send_record(WARNED, text, names, file, line, _module_of(file))

    def _end_line(self, stream: str) -> None:
        with self._writing:
            text = self._unended.pop(stream, "")
        if text:
            self._send_record(PRINTED, stream, text)

    def _send_record(self, *record: Any) -> None:
        self._send(pickle.dumps(record, PROTOCOL))


def _module_of(file: str) -> str:
    """Return the name of the module in *file*; if it is unknown, a name as `warnings` makes it."""
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == file:
            return name
    return file.removesuffix(".py")


# ── the current task ──────────────────────────────────────────────────────────────────────────────

_of_context: ThreadVariable[OutputCapture | None] = ThreadVariable(
    "parallel_facade_output_capture", None
)
_of_process: OutputCapture | None = None
"""The capture of the task that this process runs, for threads that the task has started."""


def _current() -> OutputCapture | None:
    return _of_context.get() or _of_process


# ── replacements of the handlers and streams of the process ───────────────────────────────────────


class Handler(logging.Handler):
    """Sends the records that reach the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send *record*; outside of tasks, do what `logging` does without handlers."""
        if (capture := _current()) is not None:
            try:
                capture.log(record)
            except Exception:  # as in every handler: a bad format must not fail the task
                self.handleError(record)
        elif logging.lastResort is not None and len(logging.root.handlers) == 1:
            logging.lastResort.handle(record)


class Stream(io.TextIOBase):
    """A standard stream that sends its text to the caller, if the caller wants it.

    Args:
        name: The name of the stream.
        original: The stream that this object replaces.
    """

    def __init__(self, name: str, original: Any) -> None:
        super().__init__()
        self._stream_name = name
        self._original = original

    def write(self, text: str) -> int:
        """Send *text* to the caller, or write it to the original stream."""
        capture = _current()
        if capture is None or self._stream_name not in capture.output_request.streams:
            self._original.write(text)
        else:
            capture.write(self._stream_name, text)
        return len(text)

    def flush(self) -> None:
        """Flush the original stream."""
        self._original.flush()

    def writable(self) -> bool:
        """Return `True`."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor of the original stream."""
        return int(self._original.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the original stream."""
        return str(self._original.encoding)

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """The error handling of the original stream."""
        return str(self._original.errors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def _stop_capturing() -> None:
    """Stop capturing: a process that a task has forked has no channel to the caller."""
    global _of_process
    _of_process = None
    _of_context.set(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stop_capturing)


class _ProcessOutput:
    """Makes the handlers, levels, filters and streams of this process serve the current task."""

    def __init__(self) -> None:
        self._handler = Handler()
        self._lock = threading.RLock()  # guards all below
        self._request: OutputRequest | None = None
        self._levels: dict[logging.Logger, int] = {}  # as in the caller
        self._filters: list[Any] | None = None  # as in the caller; `None` if a category was missing
        self._inherited: list[tuple[logging.Logger, logging.Handler]] = []
        self.show_otherwise: list[Callable[..., object]] = []
        """The replaced ``warnings.showwarning``, last."""

    def note_inherited(self) -> None:
        loggers = [logging.root, *logging.root.manager.loggerDict.values()]
        self._inherited.extend(
            (logger, handler)
            for logger in loggers
            if isinstance(logger, logging.Logger)
            for handler in logger.handlers
        )

    def replace(self, output_request: OutputRequest) -> None:
        """Make this process capture the output that *output_request* asks for."""
        with self._lock:
            if self._handler not in logging.root.handlers:
                logging.root.addHandler(self._handler)
            if warnings.showwarning is not _show_warning:
                self.show_otherwise.append(warnings.showwarning)
                warnings.showwarning = _show_warning
            _replace_streams(output_request)
            if output_request is not self._request or not self._is_as_set(output_request):
                self._request = output_request
                self._suspend_inherited()
                self._set_levels(output_request)
                self._set_filters(output_request)

    def _suspend_inherited(self) -> None:
        while self._inherited:
            logger, handler = self._inherited.pop()
            logger.removeHandler(handler)
            logger.propagate = True

    def _is_as_set(self, output_request: OutputRequest) -> bool:
        """Return whether no task has changed the state that *output_request* asked for."""
        return (
            logging.root.manager.disable == output_request.disabled
            and warnings.filters == self._filters
            and all(logger.level == level for logger, level in self._levels.items())
        )

    def _set_levels(self, output_request: OutputRequest) -> None:
        logging.disable(output_request.disabled)
        wanted = {logging.getLogger(name): level for name, level in output_request.levels.items()}
        for logger in self._levels.keys() - wanted.keys():
            logger.setLevel(logging.NOTSET)
        for logger, level in wanted.items():
            if logger.level != level:
                logger.setLevel(level)
        self._levels = wanted

    def _set_filters(self, output_request: OutputRequest) -> None:
        wanted = filters_there(output_request.filters)
        if warnings.filters != wanted:
            warnings.resetwarnings()
            warnings.filters[:] = wanted  # type: ignore[index]
        # The next call may find another filter, if a task imports its category.
        self._filters = wanted if len(wanted) == len(output_request.filters) else None


_process_output: Final = _ProcessOutput()


def note_inherited() -> None:
    """Note the handlers that the process has at its start: they belong to the caller."""
    _process_output.note_inherited()


def _replace_streams(output_request: OutputRequest) -> None:
    for name in output_request.streams:
        original = getattr(sys, name)
        if original is not None and not isinstance(original, Stream):
            setattr(sys, name, Stream(name, original))


def _show_warning(  # noqa: PLR0917 - as in `warnings`
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    capture = _current()
    if capture is None or file is not None:
        _process_output.show_otherwise[-1](message, category, filename, lineno, file, line)
    else:
        capture.warn(str(message), category, filename, lineno)
