"""Objects to bytes and back: data by the C pickler, code by dill, identity by us.

    object ──► TravelPickler (C) ──► payload ──► pickle.loads ──► object
                  │ function, class, method, cell, module: reducers of ours
                  └ what only dill carries (code, locks, files, …): dill, inside the payload

Guarantees:
    - dill is never asked to walk data; `dill.settings`, `pickle` and `copyreg` are never changed.
    - A reducer that the user registered with `copyreg` goes before ours.
    - Whatever goes wrong is a `SerializationError` that names the part.
"""

from __future__ import annotations

import copyreg
import functools
import io
import itertools
import os
import pickle
import secrets
import threading
import types
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from parallel_facade import _classes, _functions
from parallel_facade._errors import SerializationError
from parallel_facade._identity import token_for
from parallel_facade._importable import (
    NEVER_IMPORTED,
    find_path,
    is_importable,
    is_importable_module,
)
from parallel_facade._methods import reduce_method
from parallel_facade._typevars import KINDS, reduce_typevar

PROTOCOL: Final = 5
_process_tag = secrets.token_hex(4)
_scope_numbers = itertools.count()

decode: Callable[[bytes], Any] = pickle.loads
"""Returns the object that a payload holds; raises whatever the object's own code raises."""


def new_scope() -> str:
    """Return a name for one call, unique among all processes that talk to each other."""
    # The pid too: after a fork the tag and the counter go on alike in both processes.
    return f"{_process_tag}-{os.getpid()}-{next(_scope_numbers)}"


class Encoder:
    """Turns the objects of one call into payloads.

    Args:
        scope: The call's name, from `new_scope`.
        serializer: ``"dill"``, or ``"pickle"`` for the standard library alone.
        returning: Whether the payloads go back to the side that owns the received classes.
    """

    def __init__(self, scope: str, serializer: str, *, returning: bool = False) -> None:
        self.scope = scope
        self.serializer = serializer
        self.returning = returning
        self._everywhere: frozenset[str] = frozenset()

    def encode(self, obj: Any, path: str) -> bytes:
        """Return *obj* as a payload.

        Args:
            obj: What shall travel.
            path: What *obj* is in the user's words, for the error message.

        Raises:
            SerializationError: *obj*, or something in it, cannot travel.
        """
        return self._encode(obj, path)[0]

    def encode_callable(self, obj: Any, path: str) -> bytes:
        """Return *obj* as `encode` does; later payloads only name the classes that it defines."""
        payload, defined = self._encode(obj, path)
        self._everywhere |= defined
        return payload

    def _encode(self, obj: Any, path: str) -> tuple[bytes, set[str]]:
        defined = set(self._everywhere)
        try:
            return self._dump(obj, defined), defined
        except Exception as exc:
            if self.serializer != "pickle" and (rescued := self._dump_by_dill(obj)) is not None:
                return rescued, set(self._everywhere)
            raise SerializationError(
                f"cannot send {path}: {type(exc).__name__}: {exc}\n\nHint: {self._hint()}",
                path=path,
            ) from exc

    def _hint(self) -> str:
        if self.serializer == "pickle":
            return (
                "serializer='dill' carries lambdas, closures, local classes and what the main "
                "script defines too."
            )
        return (
            "leave the part out in __getstate__, create it in the worker with "
            "Pool(initializer=...), or use backend='thread'."
        )

    def _dump(self, obj: Any, defined: set[str]) -> bytes:
        buffer = io.BytesIO()
        if self.serializer == "pickle":
            StandardPickler(buffer, PROTOCOL).dump(obj)
        else:
            TravelPickler(buffer, self.scope, defined, returning=self.returning).dump(obj)
        return buffer.getvalue()

    def _dump_by_dill(self, obj: Any) -> bytes | None:
        """Return *obj* as dill writes it, since dill accepts some objects that pickle refuses."""
        try:
            return dump_by_dill(obj, Reducer(self.scope, set(self._everywhere), self.returning))
        except Exception:
            return None


class StandardPickler(pickle.Pickler):
    """The standard library's pickler with the bound-method recipe, and nothing of dill."""

    def reducer_override(self, obj: Any) -> Any:
        """Reduce bound methods; leave all else to pickle."""
        if type(obj) is types.MethodType and types.MethodType not in copyreg.dispatch_table:
            return reduce_method(obj)
        if isinstance(obj, types.FunctionType | type) and obj.__module__ in NEVER_IMPORTED:
            raise pickle.PicklingError(f"{obj!r} belongs to the main script, not to a module")
        if type(obj) is types.FunctionType:
            return _reduce_importable(obj)
        return NotImplemented


class Reducer:
    """Decides how each function, class and special object of one payload travels."""

    def __init__(self, scope: str, defined: set[str], returning: bool) -> None:
        self.scope = scope
        self.defined = defined
        self.returning = returning
        self.function_cells: set[int] = set()
        self.shells: set[int] = set()  # functions and classes whose contents are sent elsewhere

    def reduce(self, obj: Any) -> Any:
        """Return the reduction of *obj*, or `NotImplemented` to leave it to the pickler."""
        kind = type(obj)
        handler = HANDLERS.get(kind)
        if handler is None:
            if kind in dill_only_types():
                return load_nested, (dump_by_dill(obj, self),)
            if not issubclass(kind, type):
                return NotImplemented
            handler = _reduce_class
        if kind in copyreg.dispatch_table:
            return NotImplemented
        return handler(self, obj)


class TravelPickler(pickle.Pickler):
    """The C pickler, asking a `Reducer` about everything that is not plain data."""

    def __init__(
        self, buffer: io.BytesIO, scope: str, defined: set[str], *, returning: bool
    ) -> None:
        super().__init__(buffer, PROTOCOL)
        self._reduce = Reducer(scope, defined, returning).reduce

    def reducer_override(self, obj: Any) -> Any:
        """Reduce *obj* by the rules of this library."""
        return self._reduce(obj)


@functools.cache
def dill_only_types() -> frozenset[type]:
    """Return the types that dill carries and pickle does not."""
    import dill

    return frozenset(dill.Pickler.dispatch) - CARRIED_BY_PICKLE


# Not asked of pickle itself: when dill is imported, it adds its types to the table of pickle's
# Python version.
CARRIED_BY_PICKLE: Final[frozenset[type]] = frozenset(
    {
        type(None),
        type(NotImplemented),
        type(...),
        bool,
        int,
        float,
        bytes,
        bytearray,
        str,
        tuple,
        list,
        dict,
        set,
        frozenset,
        range,
        slice,
        pickle.PickleBuffer,
        type(str.join),
        type(str.__init__),
        type(dict.fromkeys),
        type(list[int]),
    }
)
"""Types in dill's table that pickle does as well, and faster."""


@functools.cache
def _code_pickler() -> Any:
    import dill

    class CodePickler(dill.Pickler):  # type: ignore[misc]  # dill has no types
        """dill's pickler, leaving functions and classes to the rules of this library."""

        _travel: Reducer

        def reducer_override(self, obj: Any) -> Any:
            kind = type(obj)
            if kind is types.ModuleType and not is_importable_module(obj):
                return NotImplemented
            if kind in HANDLERS or issubclass(kind, type):
                return self._travel.reduce(obj)
            return NotImplemented

    return CodePickler


def dump_by_dill(obj: Any, reducer: Reducer) -> bytes:
    """Return *obj* written by dill, with the functions and classes in it by *reducer*."""
    buffer = io.BytesIO()
    pickler = _code_pickler()(buffer, PROTOCOL, recurse=True, byref=False, fmode=0)
    pickler._travel = reducer
    pickler.dump(obj)
    return buffer.getvalue()


def load_nested(payload: bytes) -> Any:
    """Return what dill wrote into a payload."""
    return pickle.loads(payload)


def _reduce_importable(function: types.FunctionType) -> Any:
    found = find_path(function)
    if found is None or found[1] == function.__qualname__:
        return NotImplemented
    # A private function of a class: pickle would look for its name, which is not its attribute's.
    return function_at, found


def function_at(module: str, path: str) -> Any:
    """Return what stands at the dotted *path* of *module*."""
    return functools.reduce(getattr, path.split("."), import_module(module))


def _reduce_function(reducer: Reducer, function: types.FunctionType) -> Any:
    if is_importable(function):
        return _reduce_importable(function)
    reducer.function_cells.update(map(id, function.__closure__ or ()))
    if id(function) in reducer.shells:
        reducer.shells.discard(id(function))
        return _functions.reduce_shell(function, reducer.scope)
    return _functions.reduce_function(function, reducer.scope)


def _reduce_class(reducer: Reducer, cls: type) -> Any:
    if _goes_by_name(cls):
        return NotImplemented
    if reducer.returning and _classes.came_from_caller(cls):
        return _classes.reduce_to_token(cls)
    if id(cls) in reducer.shells:
        reducer.shells.discard(id(cls))
        return _classes.reduce_shell(cls)
    if token_for(cls) in reducer.defined:
        return _classes.reduce_to_token(cls)
    return _reduce_family(reducer, cls)


def _reduce_family(reducer: Reducer, cls: type) -> Any:
    """Send *cls* with the classes that it is made from, whose methods may mention it."""
    metaclass: type = type(cls)
    makers = [*reversed(cls.__mro__[1:]), *reversed(metaclass.__mro__)]
    family = [
        one
        for one in dict.fromkeys(makers)
        if not _goes_by_name(one) and token_for(one) not in reducer.defined
    ] + [cls]
    functions = [
        function
        for one in family
        for function in _classes.methods_of(one)
        if not is_importable(function)
    ]
    reducer.defined.update(map(token_for, family))
    reducer.shells.update(map(id, [*family[:-1], *functions]))
    return _classes.reduce_family(cls, family, functions, reducer.scope)


def _goes_by_name(cls: type) -> bool:
    return cls.__module__ == "builtins" or is_importable(cls)


def _reduce_cell(reducer: Reducer, cell: types.CellType) -> Any:
    # A function fills its own cells once it exists; until then they may not lead back to it.
    if id(cell) in reducer.function_cells:
        return _functions.new_cell, ()
    try:
        contents = (cell.cell_contents,)
    except ValueError:
        return _functions.new_cell, ()
    return _functions.new_cell, (), contents, None, None, _functions.fill_cell


def _reduce_module(reducer: Reducer, module: types.ModuleType) -> Any:
    if is_importable_module(module):
        return import_module, (module.__name__,)
    return load_nested, (dump_by_dill(module, reducer),)


def _reduce_lru_cache(_: Reducer, wrapper: Any) -> Any:
    return NotImplemented if is_importable(wrapper) else _functions.reduce_lru_cache(wrapper)


def _reduce_lock(_: Reducer, lock: Any) -> Any:
    # dill's copy of a reentrant lock is locked, by nobody: its first user would wait for ever.
    if not repr(lock).startswith("<unlocked"):
        raise pickle.PicklingError(f"a lock that is held cannot travel: {lock!r}")
    return (threading.RLock if type(lock) is RLOCK else threading.Lock), ()


RLOCK: Final = type(threading.RLock())

HANDLERS: Final[dict[type, Callable[[Reducer, Any], Any]]] = {
    type: _reduce_class,
    types.FunctionType: _reduce_function,
    types.MethodType: lambda _, method: reduce_method(method),
    types.CellType: _reduce_cell,
    types.ModuleType: _reduce_module,
    types.MappingProxyType: lambda _, proxy: (types.MappingProxyType, (dict(proxy),)),
    **dict.fromkeys(KINDS, lambda _, obj: reduce_typevar(obj)),
    RLOCK: _reduce_lock,
    type(threading.Lock()): _reduce_lock,
    property: lambda _, prop: (property, (prop.fget, prop.fset, prop.fdel, prop.__doc__)),
    classmethod: lambda _, method: (classmethod, (method.__func__,)),
    staticmethod: lambda _, method: (staticmethod, (method.__func__,)),
    functools._lru_cache_wrapper: _reduce_lru_cache,
}
