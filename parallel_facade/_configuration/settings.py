"""The settings, their valid values, and where each value comes from.

    call argument → with config(...) → configure(...) → environment → default

The first layer that has a value wins; `None` means "ask the next layer". The order is defined only
in `_layers`. Values are checked where they are given, so an error names the place.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final, Unpack

from parallel_facade._common.errors import ConfigurationError
from parallel_facade._common.plain_data import ATOMIC_TYPES
from parallel_facade._common.threads import ThreadVariable
from parallel_facade._configuration.backend_registry import (
    ADDRESSES,
    has_own_workers,
    nearest,
)
from parallel_facade._configuration.cpu_count import cpu_count
from parallel_facade._configuration.setting_table import SETTINGS, Config
from parallel_facade._configuration.setting_types import AllSettings

PREFIX: Final = "PARALLEL_FACADE_"

_configured: dict[str, Any] = {}
_configured_lock = threading.Lock()  # guards replacing _configured; readers take it as a whole
_scoped: ThreadVariable[Mapping[str, Any]] = ThreadVariable(
    "parallel_facade_config", MappingProxyType({})
)


def default_start_method() -> str:
    """Return the start method that is safe on this platform."""
    return "forkserver" if sys.platform == "linux" else "spawn"


def configure(**settings: Unpack[AllSettings]) -> None:
    """Set defaults for the whole process.

    Args:
        **settings: Any of the settings of `Config`; `None` removes a default set earlier.

    Raises:
        ConfigurationError: A setting is unknown or has a bad value; then nothing changes.

    >>> configure(backend="serial")
    >>> get_config().backend
    'serial'
    >>> configure(backend=None)
    """
    global _configured
    checked = check_settings(settings, "configure()")
    with _configured_lock:
        _configured = _without_none({**_configured, **checked})


def _without_none(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


@contextmanager
def config(**settings: Unpack[AllSettings]) -> Iterator[Config]:
    """Set defaults inside a ``with`` block, for this thread or async task only.

    Args:
        **settings: Any of the settings of `Config`; `None` keeps the value from outside the block.

    Raises:
        ConfigurationError: A setting is unknown or has a bad value.

    >>> with config(backend="thread", workers=3) as inside:
    ...     inside.backend, inside.workers
    ('thread', 3)
    """
    checked = _without_none(check_settings(settings, "config()"))
    token = _scoped.set({**_scoped.get(), **checked})
    try:
        yield get_config()
    finally:
        _scoped.reset(token)


def get_config() -> Config:
    """Return the settings that a call without options would use now.

    >>> get_config().serializer
    'dill'
    """
    return resolve({})


def settings_for_tasks() -> dict[str, Any]:
    """Return the settings configured in code here that also apply to calls made by tasks."""
    given = {**_configured, **_scoped.get()}
    return {name: given[name] for name in given if SETTINGS[name].holds_in_tasks}


def adopt_settings(settings: dict[str, Any]) -> None:
    """Apply *settings* of the caller in this context of a worker."""
    _scoped.set(settings)


def forget_settings() -> None:
    """Remove everything that was configured; for a worker that was forked from its caller."""
    global _configured
    _configured = {}
    _scoped.set({})


_forced: list[str] = []
"""Back-ends to which all calls go, whatever they ask for; the last entry counts."""


def force_backend(name: str) -> Callable[[], None]:
    """Send all calls to the back-end called *name*; return a function that ends this.

    For tests. Executors, back-ends and pools that are passed to a call as objects are still used.

    Raises:
        ConfigurationError: No back-end has that name.
    """
    _forced.append(check_setting("backend", name, "force_backend()"))
    return lambda: _forced.remove(name)


def is_forced() -> bool:
    """Return whether the back-end was forced, without knowing what a call needs."""
    return bool(_forced)


def settings_among(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of *names*, the arguments of a function, that are settings."""
    return {name: names[name] for name in SETTINGS if name in names}


def resolve(arguments: Mapping[str, Any]) -> Config:
    """Return the settings for a call, each from the first layer that has it."""
    kinds = tuple(map(type, arguments.values()))
    if _forced or _scoped.get() or not ATOMIC_TYPES.issuperset(kinds):
        # Not cached: an executor or a callable of the user must not be kept beyond the call.
        return _resolve(arguments)
    configured = _configured
    # The key is what the result depends on; `configured` by id, since each change makes a new dict.
    variables = tuple(map(_environment.get, _keys.values()))
    key = tuple(arguments.items()), kinds, id(configured), variables
    if (known := _resolved.get(key)) is None:
        if len(_resolved) >= MOST_RESOLVED:
            _resolved.clear()
        # `configured` is kept as well, so that no other dict can get its id.
        known = _resolved[key] = _resolve(arguments), configured
    return known[0]


MOST_RESOLVED: Final = 256
"""Calls whose settings are cached: most calls of a program have the same settings."""

_resolved: dict[Any, tuple[Config, Any]] = {}


def _resolve(arguments: Mapping[str, Any]) -> Config:
    layers = _layers(check_settings(arguments, "the call"))
    values = {name: _first_given(name, layers)[0] for name in SETTINGS}
    if values["workers"] is None and not has_own_workers(values["backend"]):
        values["workers"] = usable_cpus()
    return Config(**values)


usable_cpus = functools.cache(cpu_count)
"""Counted once, because it reads files, which would cost more than a small call."""


def sources() -> dict[str, str]:
    """Return for each setting the layer that its value comes from now."""
    layers = _layers({})
    return {name: _first_given(name, layers)[1] for name in SETTINGS}


def _layers(arguments: Mapping[str, Any]) -> list[tuple[str, Callable[[str], Any]]]:
    """Return the layers that a value may come from, strongest first."""
    forced = {"backend": _forced[-1]} if _forced and _is_name(arguments.get("backend")) else {}
    return [
        ("forced", forced.get),
        ("call", arguments.get),
        ("with config(...)", _scoped.get().get),
        ("configure(...)", _configured.get),
        ("environment", _from_environment),
        ("default", lambda name: SETTINGS[name].default),
    ]


def _is_name(backend: object) -> bool:
    return backend is None or isinstance(backend, str)


def _first_given(name: str, layers: list[tuple[str, Callable[[str], Any]]]) -> tuple[Any, str]:
    for source, lookup in layers:
        if (value := lookup(name)) is not None:
            return value, source
    return None, "default"


def _from_environment(name: str) -> Any:
    _warn_of_unknown_variables()
    variable = PREFIX + name.upper()
    text = os.environ.get(variable)
    return None if not text else _parsed(variable, name, text)


_environment: Any = getattr(os.environ, "_data", os.environ)
"""The dictionary inside `os.environ`. Asking `os.environ` itself for a missing variable takes 2
microseconds, and each call looks for a dozen variables."""

_keys: Final[dict[str, Any]] = {
    name: PREFIX + name.upper()
    if _environment is os.environ
    else os.environ.encodekey(PREFIX + name.upper())
    for name in SETTINGS
}


@functools.lru_cache(maxsize=256)
def _parsed(variable: str, name: str, text: str) -> Any:
    setting = SETTINGS[name]
    try:
        return setting.check(setting.parse(text))
    except ConfigurationError as exc:
        raise ConfigurationError(f"environment variable {variable}={text!r}: {exc}") from None
    except (ValueError, TypeError):
        raise ConfigurationError(
            f"environment variable {variable}={text!r} is not valid; expected {setting.expected}"
        ) from None


@functools.cache
def _warn_of_unknown_variables() -> None:
    known = [PREFIX + name.upper() for name in SETTINGS]
    known += sorted(name for name in ADDRESSES if name.startswith(PREFIX))
    for variable in os.environ:
        if variable.startswith(PREFIX) and variable not in known:
            warnings.warn(
                f"unknown environment variable {variable}{nearest(variable, known)}; "
                f"known: {', '.join(known)}",
                stacklevel=2,
            )


def check_settings(settings: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Check *settings* and return them; `None` stays `None`.

    Raises:
        ConfigurationError: Names the setting, its value, *place* and the valid values.
    """
    return {
        name: None if value is None else check_setting(name, value, place)
        for name, value in settings.items()
    }


def check_setting(name: str, value: Any, place: str) -> Any:
    """Check *value* for the setting *name*, given at *place*, and return the value to use."""
    if (setting := SETTINGS.get(name)) is None:
        known = list(SETTINGS)
        raise ConfigurationError(
            f"no setting is called {name!r}{nearest(name, known)} in {place}; "
            f"known: {', '.join(known)}"
        )
    try:
        return setting.check(value)
    except ConfigurationError as exc:
        raise ConfigurationError(f"backend={value!r} in {place}: {exc}") from None
    except (ValueError, TypeError, OverflowError):
        raise ConfigurationError(
            f"{name}={value!r} in {place} is not valid; expected {setting.expected}"
        ) from None
