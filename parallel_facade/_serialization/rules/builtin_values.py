"""Built-in values that pickle refuses, such as views and weak references.

Guarantees:
    - A view or a weak reference refers to the same object that travels beside it, if one does.
    - An object that a payload only refers to weakly lives as long as the list of `LiveObjects`.
"""

from __future__ import annotations

import ast
import functools
import gc
import inspect
import itertools
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from parallel_facade._serialization.rules.mapped_memory import is_numpy_array, reduce_mapped_view


class _Live(threading.local):
    kept: list[Any] | None = None


_live_here = _Live()


class LiveObjects:
    """A block that gives a list of objects rebuilt in it that may have only weak references."""

    def __enter__(self) -> list[Any]:
        self._before, _live_here.kept = _live_here.kept, []
        return _live_here.kept

    def __exit__(self, *exc_info: object) -> None:
        _live_here.kept = self._before


def reduce_memoryview(view: memoryview, *, returning: bool) -> Any:
    """Return how to rebuild *view*: over the same memory if that is shared, else over a copy."""
    if (mapped := reduce_mapped_view(view, returning=returning)) is not NotImplemented:
        return mapped
    contents = view.tobytes() if view.readonly else bytearray(view.tobytes())
    return new_memoryview, (contents, view.format, view.shape)


def new_memoryview(contents: Any, item: str, shape: tuple[int, ...]) -> memoryview:
    """Return a view of *contents* with the given item format and shape."""
    view = memoryview(contents)
    if (view.format, view.shape) == (item, shape):
        return view
    return view.cast(item, shape) if 0 not in shape else view.cast(item)  # type: ignore[call-overload,no-any-return]


def reduce_proxy(proxy: types.MappingProxyType[Any, Any]) -> tuple[Any, ...]:
    """Return how to rebuild *proxy* over the mapping that it shows."""
    return types.MappingProxyType, (_shown(proxy),)


def reduce_view(view: Any) -> tuple[Any, ...]:
    """Return how to rebuild *view*, a view of the keys, values or items of a dictionary."""
    return new_view, (_shown(view), type(view).__name__.removeprefix("dict_"))


def new_view(mapping: dict[Any, Any], part: str) -> Any:
    """Return the view of *mapping* that its method *part* returns."""
    return getattr(mapping, part)()


def _shown(view: Any) -> Any:
    # A view has no attribute with the dictionary itself; the garbage collector knows it.
    return gc.get_referents(view)[0]


def reduce_weakref(reference: weakref.ref[Any]) -> tuple[Any, ...]:
    """Return how to rebuild *reference*, without its callback."""
    referent = reference()
    return (dead_reference, ()) if referent is None else (new_weakref, (weakref.ref, referent))


def reduce_weakproxy(proxy: Any) -> tuple[Any, ...]:
    """Return how to rebuild *proxy*; raise `ReferenceError` if its object no longer exists."""
    return new_weakref, (weakref.proxy, proxy.__reduce_ex__.__self__)


WEAK_COLLECTIONS: Final = (
    weakref.WeakSet,
    weakref.WeakValueDictionary,
    weakref.WeakKeyDictionary,
)


def refuse_finalizer(*, returning: bool) -> Any:
    """Refuse to return a finalizer, for example of a temporary folder: it runs where it was made.

    A finalizer that is sent to a worker does nothing there. The caller's finalizer still guards
    the caller's object.
    """
    if returning:
        raise pickle.PicklingError(
            "an object that is deleted with its owner, like a temporary folder, cannot be returned"
        )
    return NotImplemented


def reduce_count(counter: Any) -> tuple[Any, ...]:
    """Return how to rebuild *counter*, an `itertools.count` of plain numbers, at its number.

    Python 3.14 pickles none any more; only its repr says where it stands.
    """
    numbers = ast.literal_eval(repr(counter).removeprefix("count"))
    return itertools.count, numbers if isinstance(numbers, tuple) else (numbers,)


def reduce_weak_collection(collection: Any) -> tuple[Any, ...]:
    """Return how to rebuild a weak set or dictionary."""
    return new_weak_collection, (type(collection), list(_members(collection)))


def _members(collection: Any) -> Any:
    return collection.items() if hasattr(collection, "items") else collection


def new_weak_collection(kind: Callable[[Any], Any], members: list[Any]) -> Any:
    """Return a weak set or dictionary of *members*."""
    keep_alive(members)
    return kind(members)


def new_weakref(kind: Callable[[Any], Any], referent: Any) -> Any:
    """Return a weak reference or proxy to *referent*."""
    keep_alive(referent)
    return kind(referent)


def dead_reference() -> Any:
    """Return a weak reference whose object no longer exists."""
    return weakref.ref(_DeadReferent())


class _DeadReferent:
    """A class whose instances nothing keeps alive."""


def keep_alive(referent: Any) -> None:
    """Keep *referent* alive with the list of the current `LiveObjects`; outside, do nothing."""
    if _live_here.kept is not None:
        _live_here.kept.append(referent)


DESCRIPTOR_TYPES: Final = (property, classmethod, staticmethod, functools.partialmethod)


def reduce_descriptor(descriptor: Any) -> tuple[Any, ...]:
    """Return how to rebuild a property, class, static or partial method, or one of a subclass."""
    kind = type(descriptor)
    base: Any = next(one for one in DESCRIPTOR_TYPES if issubclass(kind, one))
    keywords: dict[str, Any] = {}
    if base is functools.partialmethod:
        args, keywords = (descriptor.func, *descriptor.args), descriptor.keywords
    else:
        parts = ("fget", "fset", "fdel", "__doc__") if base is property else ("__func__",)
        args = tuple(getattr(descriptor, part) for part in parts)
    state = {} if kind is base else dict(getattr(descriptor, "__dict__", {}))
    made = new_descriptor, (kind, base, args, keywords)
    return (*made, state, None, None, fill_descriptor) if state else made


def new_descriptor(kind: Any, base: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Return a descriptor of *kind*, made in the same way as its standard-library class *base*."""
    # Python versions differ in which of the two uses the arguments; both must get them.
    descriptor = base.__new__(kind, *args, **keywords)
    base.__init__(descriptor, *args, **keywords)
    return descriptor


def fill_descriptor(descriptor: Any, state: dict[str, Any]) -> None:
    """Give *descriptor* its own attributes."""
    descriptor.__dict__.update(state)


def is_array_with_attributes(kind: type) -> bool:
    """Return whether *kind* is a user's NumPy array class, whose attributes NumPy drops."""
    return (
        is_numpy_array(kind)
        and not kind.__module__.startswith("numpy")
        and kind.__reduce__ is sys.modules["numpy"].ndarray.__reduce__
        and kind.__dictoffset__ != 0
    )


def reduce_array(array: Any) -> tuple[Any, ...]:
    """Return how to rebuild *array* with its attributes."""
    make, args, *state = array.__reduce__()
    return make, args, (state, vars(array)), None, None, fill_array


def fill_array(array: Any, contents: tuple[list[Any], dict[str, Any]]) -> None:
    """Give *array* its elements and attributes."""
    state, attributes = contents
    for one in state:
        array.__setstate__(one)
    vars(array).update(attributes)


LAZY_IMPORT: Final[Any] = getattr(types, "LazyImportType", type("NoLazyImport", (), {}))
"""The type of a global after ``lazy import`` and before its first use (Python 3.15 and later)."""


def resolved(value: Any) -> Any:
    """Return *value*, or the imported object if *value* is a lazy import that succeeds."""
    if type(value) is LAZY_IMPORT:
        with suppress(Exception):  # the task gets the error if it uses the name
            return value.resolve()
    return value


def reduce_lazy_import(value: Any) -> tuple[Any, ...]:
    """Return how to rebuild the object that *value* imports, or else the lazy import itself."""
    if (found := resolved(value)) is not value:
        return resolved, (found,)
    # Only its repr says what it imports.
    return new_lazy_import, tuple(repr(value).split("'")[1].rpartition(".")[::2])


def new_lazy_import(package: str, name: str) -> Any:
    """Return a lazy import of *name*, from *package* unless that is empty."""
    space: dict[str, Any] = {}
    exec(f"lazy from {package} import {name}" if package else f"lazy import {name}", space)
    return space[name]


def reduce_context_manager(manager: Any) -> tuple[Any, ...]:
    """Return how to make *manager*, of a `contextlib.contextmanager` function, again."""
    if inspect.getgeneratorstate(manager.gen) != inspect.GEN_CREATED:
        raise pickle.PicklingError("a context manager that was entered cannot travel")
    return type(manager), (manager.func, manager.args, manager.kwds)
