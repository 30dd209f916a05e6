"""Instances whose class computes attributes: `__getattr__` or `__getattribute__`.

pickle asks an instance for `__getnewargs__` and, before it has any contents, for `__setstate__`.
A wrapper answers with what the wrapped object has, or asks itself without end for the wrapped
object. So these instances are taken apart and put together past their own attribute access.
"""

from __future__ import annotations

import copyreg
import pickle
import struct
import types
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

DEFAULTS: Final = ("__reduce__", "__reduce_ex__", "__getstate__")
"""Methods of `object` that a class defines if it pickles its instances in a way of its own."""

OWN_WAYS: Final = ("__setstate__", "__getnewargs__", "__getnewargs_ex__")


def has_dynamic_attributes(kind: type) -> bool:
    """Return whether *kind* computes attributes, and leaves pickling to `object`."""
    anything: Any = object
    computes = type(kind.__getattribute__) is types.FunctionType or any(
        "__getattr__" in one.__dict__ for one in kind.__mro__
    )
    return (
        computes
        and {name for one in kind.__mro__ for name in vars(one)}.isdisjoint(OWN_WAYS)
        and all(getattr(kind, name) is getattr(anything, name) for name in DEFAULTS)
        and not issubclass(kind, type | types.ModuleType)
    )


def reduce_dynamic(obj: Any) -> tuple[Any, ...]:
    """Return how to rebuild *obj* from its contents.

    Raises:
        pickle.PicklingError: A base that is written in C keeps contents that cannot be reached.
    """
    kind = type(obj)
    if _has_hidden_state(kind):
        raise pickle.PicklingError(f"cannot pickle {kind.__qualname__!r} object")
    elements = list.__iter__(obj) if issubclass(kind, list) else None
    entries = iter(dict.items(obj)) if issubclass(kind, dict) else None
    return copyreg.__newobj__, (kind,), _contents(obj), elements, entries, fill_dynamic  # type: ignore[attr-defined]


def _has_hidden_state(kind: type) -> bool:
    """Return whether objects of *kind* are larger than their attributes, as `object` checks it.

    The sizes are those of ``object_getstate_default`` in CPython's Objects/typeobject.c.
    """
    if issubclass(kind, list | dict):
        return False
    size = object.__basicsize__ + POINTER_BYTES * len(copyreg._slotnames(kind))  # type: ignore[attr-defined]
    if kind.__dictoffset__ and not kind.__flags__ & MANAGED_DICT:
        size += POINTER_BYTES
    size += POINTER_BYTES * (kind.__weakrefoffset__ > 0)
    return kind.__itemsize__ != 0 or kind.__basicsize__ > size


POINTER_BYTES: Final = struct.calcsize("P")
MANAGED_DICT: Final = 1 << 4
"""Of the flags of a type: its objects have their dictionary in front of them."""


def _contents(obj: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the attributes of *obj*: those in its dictionary, and those in slots."""
    own: dict[str, Any] = {}
    with suppress(AttributeError):
        own = object.__getattribute__(obj, "__dict__")
    return own, dict(_slots(obj))


def _slots(obj: Any) -> Iterator[tuple[str, Any]]:
    for name in copyreg._slotnames(type(obj)):  # type: ignore[attr-defined]
        with suppress(AttributeError):  # nothing was put into it
            yield name, object.__getattribute__(obj, name)


def fill_dynamic(obj: Any, contents: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Give *obj* its attributes."""
    own, slots = contents
    if own:
        object.__getattribute__(obj, "__dict__").update(own)
    for name, value in slots.items():
        object.__setattr__(obj, name, value)
