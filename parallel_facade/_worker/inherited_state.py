"""State of the caller's interpreter that tasks see as it was at the call, like decimal's precision.

    caller: read what is not as in a new interpreter ──with the call──► worker: write it

Guarantees:
    - A task sees the state of its own call, also in a worker that serves other calls in between.
    - What a task changes there is gone with its chunk.
    - A module that the caller has not loaded is not loaded for this.
"""

from __future__ import annotations

import functools
import logging
import sys
import types
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from parallel_facade._common.worker_role import is_worker_process
from parallel_facade._worker.module_settings import (
    read_csv,
    read_locale,
    read_namespaces,
    write_csv,
    write_locale,
    write_namespaces,
)

PRINT_DEFAULTS: Final = {
    "edgeitems": 3,
    "threshold": 1000,
    "floatmode": "maxprec",
    "precision": 8,
    "suppress": False,
    "linewidth": 75,
    "nanstr": "nan",
    "infstr": "inf",
    "sign": "-",
    "formatter": None,
    "legacy": False,
}
"""numpy.get_printoptions() in a new interpreter."""

ERROR_DEFAULTS: Final = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
"""numpy.geterr() in a new interpreter."""

RECURSION_LIMIT: Final = 1000
"""sys.getrecursionlimit() in a new interpreter."""


class Part(NamedTuple):
    """One kind of state.

    Attributes:
        module: The module that has it; without that module nobody has changed it.
        read: Returns the value; `None` for that of a new interpreter.
        write: Sets a value that `read` has returned.
    """

    module: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def read_state() -> dict[str, Any]:
    """Return the state of this thread and interpreter that is not as in a new interpreter."""
    found = {name: part.read() for name, part in PARTS.items() if part.module in sys.modules}
    return {name: value for name, value in found.items() if value is not None}


def write_state(state: dict[str, Any]) -> None:
    """Make the state of this thread and interpreter as the caller's was.

    What the caller has not changed is put back in our own worker processes, which may be forks of a
    caller that had changed it, and where an earlier call has changed it.
    """
    loaded, is_ours = sys.modules, is_worker_process()
    for name, part in PARTS.items():
        if name in state:
            part.write(state[name])
            _written.add(name)
        elif (is_ours or name in _written) and part.module in loaded and part.read() is not None:
            part.write(None)


_written: set[str] = set()


# ── decimal ───────────────────────────────────────────────────────────────────────────────────────


def _read_decimal() -> Any:
    import decimal

    context = decimal.getcontext()
    return None if _fields_of(context) == _usual_fields() else context.copy()


@functools.cache
def _usual_fields() -> tuple[Any, ...]:
    return _fields_of(_new_decimal())


def _new_decimal() -> Any:
    """Return the context of a new interpreter; a program may have changed `DefaultContext`."""
    import decimal

    traps = [decimal.DivisionByZero, decimal.Overflow, decimal.InvalidOperation]
    limits = {"prec": 28, "Emin": -999999, "Emax": 999999, "capitals": 1, "clamp": 0}
    return decimal.Context(**limits, rounding=decimal.ROUND_HALF_EVEN, flags=[], traps=traps)


def _fields_of(context: Any) -> tuple[Any, ...]:
    names = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
    return (*(getattr(context, name) for name in names), dict(context.traps))


def _write_decimal(context: Any) -> None:
    import decimal

    # A copy: the flags that a task raises must not be seen by the next one.
    decimal.setcontext(_new_decimal() if context is None else context.copy())
    decimal.getcontext().clear_flags()


# ── numpy ─────────────────────────────────────────────────────────────────────────────────────────


def _read_errors() -> Any:
    numpy = sys.modules["numpy"]
    found, handler = numpy.geterr(), numpy.geterrcall()
    return None if found == ERROR_DEFAULTS and handler is None else (found, handler)


def _write_errors(found: Any) -> None:
    import numpy as np

    state: tuple[Any, Any] = (ERROR_DEFAULTS, None) if found is None else found
    kinds, handler = state
    np.seterr(**kinds)
    np.seterrcall(handler)


def _read_print_options() -> Any:
    found = sys.modules["numpy"].get_printoptions()
    changed = {
        name: found[name]
        for name, default in PRINT_DEFAULTS.items()
        if name in found and found[name] != default
    }
    return changed or None


def _write_print_options(found: Any) -> None:
    import numpy as np

    known: Any = np.get_printoptions()
    options = {**PRINT_DEFAULTS, **(found or {})}
    np.set_printoptions(**{name: value for name, value in options.items() if name in known})


# ── limits of the interpreter ─────────────────────────────────────────────────────────────────────


def _read_recursion_limit() -> int | None:
    limit = sys.getrecursionlimit()
    return None if limit == RECURSION_LIMIT else limit


def _write_recursion_limit(limit: int | None) -> None:
    sys.setrecursionlimit(limit or RECURSION_LIMIT)


def _read_int_digits() -> int | None:
    limit = sys.get_int_max_str_digits()
    return None if limit == sys.int_info.default_max_str_digits else limit


def _write_int_digits(limit: int | None) -> None:
    sys.set_int_max_str_digits(sys.int_info.default_max_str_digits if limit is None else limit)


# ── socket ────────────────────────────────────────────────────────────────────────────────────────


def _read_socket_timeout() -> float | None:
    timeout: float | None = sys.modules["socket"].getdefaulttimeout()
    return timeout


def _write_socket_timeout(timeout: float | None) -> None:
    import socket

    socket.setdefaulttimeout(timeout)


# ── logging ───────────────────────────────────────────────────────────────────────────────────────


def _read_loggers() -> Any:
    """Return the class of new loggers, and the methods that the program put on `Logger`."""
    cls, values = logging.getLoggerClass(), list(vars(logging.Logger).values())
    if cls is logging.Logger and values == _usual_methods:
        return None
    added = {
        name: value
        for name, value in vars(logging.Logger).items()
        if type(value) is types.FunctionType and value.__module__ != logging.Logger.__module__
    }
    if cls is not logging.Logger or added:
        return cls, added
    _usual_methods[:] = values
    return None


_usual_methods: Final[list[Any]] = []
"""What `Logger` holds if the program has put nothing there; nearly every call finds it so."""


def _write_loggers(found: Any) -> None:
    cls, added = (logging.Logger, {}) if found is None else found
    for name, value in added.items():
        setattr(logging.Logger, name, value)
    logging.setLoggerClass(cls)


PARTS: Final[dict[str, Part]] = {
    "decimal": Part("decimal", _read_decimal, _write_decimal),
    "numpy errors": Part("numpy", _read_errors, _write_errors),
    "numpy print options": Part("numpy", _read_print_options, _write_print_options),
    "recursion limit": Part("sys", _read_recursion_limit, _write_recursion_limit),
    "int digits": Part("sys", _read_int_digits, _write_int_digits),
    "socket timeout": Part("socket", _read_socket_timeout, _write_socket_timeout),
    "loggers": Part("logging", _read_loggers, _write_loggers),
    "locale": Part("locale", read_locale, write_locale),
    "csv": Part("csv", read_csv, write_csv),
    "namespaces": Part("xml.etree.ElementTree", read_namespaces, write_namespaces),
}
"""What a call takes along, by name; `docs/explanation/what-travels.md` lists it for users."""
