"""Classes of `ctypes`: structures and unions by their fields, arrays and pointers by their parts.

`ctypes` derives descriptors and size from the fields. It derives them again when rebuilding.
"""

from __future__ import annotations

import sys
from typing import Any, Final

LAYOUT_NAMES: Final = frozenset(
    {"_type_", "_length_", "_pack_", "_anonymous_", "_align_", "_layout_", "_swappedbytes_"}
    | {"_flags_", "_argtypes_", "_restype_"}
)
"""Attributes that must be in the class body; `_fields_` may come later, and may name the class."""


def is_made_by_ctypes(cls: type) -> bool:
    """Return whether *cls* is a class of C data."""
    metaclass: Any = type(cls)
    return any(one.__module__ == "_ctypes" for one in metaclass.__mro__)


def split_ctypes(own: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Return those of the attributes *own* that creation needs, and the names not to send."""
    body = {name: own[name] for name in LAYOUT_NAMES if name in own}
    derived = {name for name, value in own.items() if type(value).__name__ == "CField"}
    return body, derived | body.keys()


def finish_ctypes(cls: Any, attributes: dict[str, Any]) -> dict[str, Any]:
    """Give *cls* its fields, once, and return the other *attributes*."""
    if "_fields_" not in cls.__dict__:
        # Through its metaclass, which computes the layout.
        cls._fields_ = attributes["_fields_"]
    return {name: value for name, value in attributes.items() if name != "_fields_"}


def reduce_metaclass(cls: type) -> tuple[Any, ...]:
    """Return how to find *cls*, a metaclass of `ctypes`, which has no name there."""
    import ctypes

    foreign: Any = ctypes
    bases = (ctypes.Structure, ctypes.Union, ctypes.Array, ctypes._Pointer, ctypes._SimpleCData)
    base = next(base for base in (*bases, foreign._CFuncPtr) if type(base) is cls)
    return type, (base,)


def reduce_derived(cls: Any) -> tuple[Any, ...] | None:
    """Return how to derive *cls* from another type, if it is an array, pointer or swapped type."""
    import ctypes

    foreign: Any = ctypes
    if issubclass(cls, foreign._SimpleCData):
        return _reduce_swapped(cls)
    element = getattr(getattr(cls, "_type_", None), "__name__", "")
    if issubclass(cls, foreign.Array) and cls.__name__ == f"{element}_Array_{cls._length_}":
        return array_of, (cls._type_, cls._length_)
    if issubclass(cls, foreign._Pointer) and cls.__name__ == f"LP_{element}":
        return foreign.POINTER, (cls._type_,)
    return None


def _reduce_swapped(cls: Any) -> tuple[Any, ...] | None:
    """Return how to find *cls* as the byte-swapped form of another type, if it is one."""
    for native, order in (("__ctype_le__", "__ctype_be__"), ("__ctype_be__", "__ctype_le__")):
        base = getattr(cls, native, cls)
        if base is not cls and getattr(base, order, None) is cls:
            return getattr, (base, order)
    return None


def array_of(element: Any, length: int) -> Any:
    """Return the array type of *length* elements."""
    return element * length


def is_library(kind: type) -> bool:
    """Return whether objects of *kind* are loaded C libraries."""
    ctypes = sys.modules.get("ctypes")
    return ctypes is not None and issubclass(kind, ctypes.CDLL)


def reduce_library(library: Any) -> tuple[Any, ...]:
    """Return how to load *library* again, because its handle is an address in this process."""
    functions = {
        name: {part: getattr(found, part) for part in DECLARED if getattr(found, part, None)}
        for name, found in vars(library).items()
        if isinstance(found, library._FuncPtr)
    }
    return type(library), (library._name,), functions, None, None, declare


DECLARED: Final = ("restype", "argtypes", "errcheck")
"""Attributes that a program sets on a library's function."""


def declare(library: Any, functions: dict[str, dict[str, Any]]) -> None:
    """Set on the functions of *library* the attributes in *functions*."""
    for name, parts in functions.items():
        for part, value in parts.items():
            setattr(getattr(library, name), part, value)
