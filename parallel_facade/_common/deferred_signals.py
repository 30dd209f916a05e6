"""Steps of the main thread that no signal handler may interrupt.

    handlers of the program ──one call of C──► `_defer`, which notes the signal
    the steps run
    handlers of the program ◄──one call of C── then they are called for what was noted

Python runs signal handlers between any two steps of the main thread, and they may raise. Other
threads are never interrupted, so there this does nothing.

Guarantees:
    - No handler of the program runs in the block; each that was due runs at its end.
    - The handlers are the program's own again, whatever happens in the block.

Assumes:
    - The block is short: Ctrl-C waits for its end.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import sys
from collections import deque
from collections.abc import Callable
from itertools import repeat
from threading import get_ident, main_thread
from typing import Any, Final

# The functions of C: those of `signal` are Python code, which a handler may interrupt.
_get: Final[Callable[[int], Any]] = _signal.getsignal
_set: Final[Callable[[int, Any], Any]] = _signal.signal
_NUMBERS: Final = tuple(sorted(map(int, _signal.valid_signals())))

_noted: deque[int] = deque()


def _defer(number: int, _: Any) -> None:
    _noted.append(number)


class _Handlers:
    """Which signals the program handles; it is looked up again when a handler changes."""

    def __init__(self) -> None:
        self._seen: list[Any] = []
        self._numbers: list[int] = []

    def numbers(self) -> list[int]:
        """Return the signals for which there is a handler in Python."""
        found = list(map(_get, _NUMBERS))
        if found != self._seen:
            self._numbers = [
                number
                for number, handler in zip(_NUMBERS, found, strict=True)
                if callable(handler) and handler is not _defer
            ]
            self._seen = found
        return self._numbers


_handlers: Final = _Handlers()


class DeferredSignals:
    """A block whose steps no signal handler interrupts."""

    __slots__ = ("_before", "_numbers")

    def __enter__(self) -> None:
        self._before: list[Any] = []
        if get_ident() != main_thread().ident:
            self._numbers: list[int] = []
            return
        self._numbers = _handlers.numbers()
        try:
            # What was replaced before an interrupt is in the list.
            self._before.extend(map(_set, self._numbers, repeat(_defer)))
        except BaseException:
            self._put_back()
            raise

    def __exit__(self, *exc_info: object) -> None:
        if self._before:
            self._put_back()
            if _noted:
                _run_noted(dict(zip(self._numbers, self._before, strict=True)))

    def _put_back(self) -> None:
        deque(map(_set, self._numbers, self._before), maxlen=0)


def _run_noted(handlers: dict[int, Any]) -> None:
    """Call the handlers for the signals that were noted, also if one raises."""
    number = _noted.popleft()
    try:
        handlers[number](number, sys._getframe(1))
    finally:
        if _noted:
            _run_noted(handlers)
