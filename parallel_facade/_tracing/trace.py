"""The timeline of the calls that are made in a block."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from parallel_facade._common.errors import ConfigurationError
from parallel_facade._dispatch import call_trace as _call_trace
from parallel_facade._dispatch.call_trace import CallTrace
from parallel_facade._tracing.chrome_events import events_of
from parallel_facade._tracing.report import TraceReport, report_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PathLike = str | os.PathLike[str]


class Trace:
    """The timeline of the calls that are made in its block; use `trace` to create it.

    >>> from parallel_facade import pmap, trace
    >>> with trace() as timeline:
    ...     _ = pmap(abs, [-1], backend="serial")
    >>> type(timeline).__name__, timeline.report().calls
    ('Trace', 1)
    """

    def __init__(self, file: PathLike | None = None) -> None:
        self._file = None if file is None else Path(os.fspath(file)).absolute()
        self._calls: list[CallTrace] = []
        self._began = 0.0

    def __enter__(self) -> Self:
        if self._began:
            raise ConfigurationError(
                "a trace can be used for one block only\n\nHint: make another: call trace() again."
            )
        if self._file is not None:
            # Now, so that a file that cannot be written is reported before everything runs.
            self._file.open("a").close()
        self._began = time.time()
        _call_trace.listeners.append(self._add_call)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        _call_trace.listeners.remove(self._add_call)
        for call in self._calls:
            call.note_end()  # a call that still runs is recorded up to here
        if self._file is None:
            return
        try:
            self._write(self._file)
        except OSError as exc:
            if error is None:
                raise
            error.add_note(f"and the timeline could not be written: {exc}")

    def _write(self, file: Path) -> None:
        """Write the file in one step, where possible: another trace may write the same file."""
        text = json.dumps(self.events())
        beside = file.with_name(f".{file.name}.{os.urandom(4).hex()}")
        try:
            if not file.is_file():  # a device, a pipe
                raise OSError
            beside.write_text(text, encoding="utf-8")
            beside.replace(file)
        except OSError:
            beside.unlink(missing_ok=True)
            file.write_text(text, encoding="utf-8")

    def _add_call(self, call: CallTrace) -> None:
        self._calls.append(call)

    def events(self) -> dict[str, Any]:
        """Return the content of the file: the timeline in the trace-event format.

        >>> from parallel_facade import pmap, trace
        >>> with trace() as timeline:
        ...     _ = pmap(abs, [-1], backend="serial")
        >>> {event["name"] for event in timeline.events()["traceEvents"] if event["ph"] == "X"}
        {'pack the callable', 'pack', 'abs: item 0', 'rebuild', 'run', 'return', 'unpack'}
        """
        return events_of(self._calls, self._began)

    def report(self) -> TraceReport:
        """Return a report on where the time went, and what to do about it; `print` shows it.

        >>> from parallel_facade import pmap, trace
        >>> with trace() as timeline:
        ...     _ = pmap(abs, [-1, -2], backend="serial")
        >>> timeline.report().calls
        1
        """
        return report_of(self._calls)

    def plot(self, file: PathLike | None = None) -> Figure:
        """Return a picture of the timeline: a lane for the caller, and a lane for each worker.

        Args:
            file: Where to save the picture, in any format that matplotlib knows by its ending;
                `None` does not save it. A notebook shows the returned figure.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.

        >>> from parallel_facade import pmap, trace
        >>> with trace() as timeline:
        ...     _ = pmap(abs, [-1, -2], backend="serial")
        >>> timeline.plot().get_axes()[0].get_xlabel()
        'seconds'
        """
        from parallel_facade._tracing.plot import plot

        try:
            figure = plot(self._calls, self._began, self.report().advice)
        except ModuleNotFoundError as exc:
            exc.add_note("Hint: pip install 'parallel-facade[plot]'")
            raise
        if file is not None:
            figure.savefig(file, dpi=150)
        return figure


def trace(file: PathLike | None = None) -> Trace:
    """Record what ran where and when, in a ``with`` block.

    The timeline contains all calls that this process begins in the block, in any thread. Calls that
    a task makes are parts of the task. If a call still runs when the block ends, the timeline
    contains those of its chunks that have ended.

    Args:
        file: Where to write the timeline at the end of the block, in the trace-event format, which
            https://ui.perfetto.dev and ``chrome://tracing`` open; `None` writes no file.

    Raises:
        OSError: The file cannot be written; raised when the block begins.

    >>> from parallel_facade import pmap, trace
    >>> with trace() as timeline:
    ...     _ = pmap(lambda x: x * x, range(100), backend="thread", workers=2)
    >>> timeline.report().items
    100
    """
    return Trace(file)


# Tracebacks and help() show the name under which users import these.
for _public in (Trace, trace):
    _public.__module__ = "parallel_facade"
