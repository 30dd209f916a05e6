"""Shows in the caller what tasks log, print and warn of, as if they had run there.

    caller                                               worker
    OutputRequest: levels, filters, streams ──with the call──► OutputCapture
    show_all ◄── in the thread that waits for the call ◄──── relayed record, sent at once

Guarantees:
    - A relayed record is shown before anybody gets the outcome of its item.
    - Output that the caller's loggers and filters reject is not sent. Output that arrives is
      checked again here, where the filters and handlers are.
    - A warning is shown as often as if all tasks had run here, not once for each worker.
    - Showing a record unpickles no object of the user.
"""

from __future__ import annotations

import functools
import logging
import operator
import pickle
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from parallel_facade._common.interrupt_safety import came_from_handler
from parallel_facade._common.plain_data import PROTOCOL
from parallel_facade._console.shown_warnings import ShownWarnings, category_called, filters_now
from parallel_facade._console.tqdm_bars import above_bars, as_line

STREAMS: Final = ("stdout", "stderr")

WarningFilter = tuple[str, str | None, tuple[str, str], str | None, int]
"""As in `warnings.filters`, with patterns as text, and the category by its module and name."""


class OutputRequest(NamedTuple):
    """The output that a caller wants from its tasks.

    Attributes:
        levels: Logger → level, for loggers with a level; the root logger is the empty name.
        disabled: The level given to `logging.disable`.
        filters: The filters of `warnings`, strongest first.
        streams: The streams of `STREAMS` that do not reach the caller from a worker by themselves.
    """

    levels: dict[str, int]
    disabled: int
    filters: list[WarningFilter]
    streams: tuple[str, ...]


def output_request_now(*, is_remote: bool, has_bar: bool) -> OutputRequest:
    """Return the output that this program wants now.

    Args:
        is_remote: Whether workers write to other terminals than this program does.
        has_bar: Whether there is a bar; workers on the same terminal would write into its line.
    """
    # A copy: another thread may make a logger meanwhile.
    loggers = list(logging.root.manager.loggerDict.items())
    levels = {name: level for name, one in loggers if (level := getattr(one, "level", 0))}
    levels[""] = logging.root.level
    return OutputRequest(
        levels,
        logging.root.manager.disable,
        _sent_filters.of(list(filters_now())),
        tuple(name for name in STREAMS if is_remote or has_bar or _is_replaced(name)),
    )


def packed_output_request(request: OutputRequest) -> bytes:
    """Return *request* as bytes."""
    return pickle.dumps(tuple(request), PROTOCOL)


@functools.lru_cache(maxsize=4)
def unpacked_output_request(data: bytes) -> OutputRequest:
    """Return the output that a caller wants: the same object for most calls of a worker."""
    return OutputRequest(*pickle.loads(data))


class _SentFilters:
    """The filters of the last call, which most programs never change, and how they were sent."""

    def __init__(self) -> None:
        self._last: tuple[list[Any], list[WarningFilter]] = [], []

    def of(self, filters: list[Any]) -> list[WarningFilter]:
        known, sent = self._last
        # By identity: the class of a category may define __eq__, which must not run here.
        if len(known) != len(filters) or not all(map(operator.is_, known, filters)):
            sent = [part for one in filters for part in _as_sent(*one)]
            self._last = filters, sent
        return sent


_sent_filters: Final = _SentFilters()


def _as_sent(
    action: str, message: Any, categories: Any, module: Any, line: int
) -> Iterator[WarningFilter]:
    texts = [getattr(one, "pattern", one) for one in (message, module)]
    for category in categories if isinstance(categories, tuple) else (categories,):
        yield action, texts[0], (category.__module__, category.__qualname__), texts[1], line


def filters_there(filters: list[WarningFilter]) -> list[Any]:
    """Return the *filters* with a category that is loaded in this process, for `warnings`."""
    found = []
    for action, message, names, module, line in filters:
        if (category := category_called(*names)) is not None:
            found.append((action, _pattern(message, re.I), category, _pattern(module, 0), line))
    return found


def _pattern(text: str | None, flags: int) -> re.Pattern[str] | None:
    return None if text is None else re.compile(text, flags)


def _is_replaced(stream: str) -> bool:
    return getattr(sys, stream) is not getattr(sys, f"__{stream}__")


# ── received records ──────────────────────────────────────────────────────────────────────────────

LOGGED: Final = "logged"
PRINTED: Final = "printed"
WARNED: Final = "warned"

_log = logging.getLogger("parallel_facade")


def ignore(record: bytes) -> None:
    """Discard *record*: nobody listens to it."""


def show_all(records: deque[bytes]) -> None:
    """Show the records in *records*, each once, even if other threads do so at the same time.

    Records that arrive meanwhile are left: a task may send more than can be shown.
    """
    if not records:
        return
    with above_bars() as has_bars:
        _show_first(len(records), records, has_bars=has_bars)


def _show_first(count: int, records: deque[bytes], *, has_bars: bool) -> None:
    for _ in range(count):
        try:
            record = records.popleft()
        except IndexError:  # another thread has shown it
            return
        _show(record, has_bars=has_bars)


def _show(record: bytes, *, has_bars: bool) -> None:
    """Log, print or warn as the task of *record* did."""
    kind, *fields = pickle.loads(record)
    if kind == PRINTED and has_bars:
        stream, text = fields
        fields = [stream, as_line(text, getattr(sys, stream))]
    try:
        _SHOWN_BY[kind](*fields)
    except Exception as exc:
        if came_from_handler(exc):
            raise
        # A closed stream, or a warning that a filter turns into an error, must not fail a task or
        # the call.
        _log.debug("a record of a task (%s) could not be shown", kind, exc_info=True)


def _show_record(fields: dict[str, Any]) -> None:
    logger = logging.getLogger(fields["name"])
    if logger.isEnabledFor(fields["levelno"]):
        logger.handle(logging.makeLogRecord(fields))


def _show_text(stream: str, text: str) -> None:
    if (target := getattr(sys, stream)) is not None:
        target.write(text)
        target.flush()


_shown_warnings: Final = ShownWarnings()

_SHOWN_BY: Final[dict[str, Callable[..., None]]] = {
    LOGGED: _show_record,
    PRINTED: _show_text,
    WARNED: _shown_warnings.show,
}
