"""Pickle with dill the types that pickle does not support: code objects and rare built-in types.

Guarantees:
    - dill pickles single objects and never walks data; the rules of this library handle the
      functions and classes that the objects refer to.
    - `dill.settings` is not changed: options are passed with each call.
"""

from __future__ import annotations

import builtins
import functools
import io
import pickle
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any, Final

from parallel_facade._common.dill_import import import_dill
from parallel_facade._common.plain_data import PROTOCOL, is_plain

Reduce = Callable[[Any], Any]
"""Returns an object's reduction, or `NotImplemented` to leave it to the pickler."""


def is_carried_by_dill(kind: type) -> bool:
    """Return whether dill supports objects of *kind* and pickle does not."""
    # By identity: a metaclass may define __eq__ and __hash__, which must not run here.
    return id(kind) in _ids_of(len(_dispatch()))


def dump_by_dill(obj: Any, reduce: Reduce) -> bytes:
    """Return *obj* as dill pickles it; *reduce* handles the functions and classes in it."""
    buffer = io.BytesIO()
    pickler = _code_pickler()(buffer, PROTOCOL, recurse=True, byref=False, fmode=0)
    pickler._reduce = reduce
    pickler.dump(obj)
    return buffer.getvalue()


def load_nested(payload: bytes) -> Any:
    """Return the object that dill wrote into a payload."""
    return pickle.loads(payload)


# ── code objects never change, so each is pickled and rebuilt only once ───────────────────────────

CACHED_CODE_BYTES: Final = 1 << 16
"""Larger payloads are not cached: code with megabytes of constants would stay forever."""

MOST_CACHED: Final = 1024
"""Limit of cached code objects on each side."""

_dumped: dict[int, tuple[weakref.ref[types.CodeType], bytes]] = {}  # by id: `==` ignores the file


def dump_code(code: types.CodeType, reduce: Reduce) -> bytes:
    """Return *code* as `dump_by_dill` does."""
    known, payload = _dumped.get(id(code), (None, b""))
    if known is not None and known() is code:
        return payload
    payload = dump_by_dill(code, reduce)
    if len(payload) <= CACHED_CODE_BYTES and _is_plain(code):
        if len(_dumped) >= MOST_CACHED:
            _dumped.clear()
        _dumped[id(code)] = weakref.ref(code), payload
    return payload


def _is_plain(code: types.CodeType) -> bool:
    """Return whether the pickle of *code* depends on *code* alone."""
    return all(
        _is_plain(one) if type(one) is types.CodeType else is_plain(one) for one in code.co_consts
    )


CODE_FIELDS: Final = (
    *("argcount", "posonlyargcount", "kwonlyargcount", "nlocals", "stacksize", "flags", "code"),
    *("consts", "names", "varnames", "filename", "name", "qualname", "firstlineno", "linetable"),
    *("exceptiontable", "freevars", "cellvars"),
)
"""Arguments of `types.CodeType`, in order, from Python 3.11 on; attributes begin with ``co_``."""


def reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    """Return how to rebuild *code* from its fields, for where dill cannot pickle it."""
    return new_code, tuple(getattr(code, f"co_{field}") for field in CODE_FIELDS)


def new_code(*fields: Any) -> types.CodeType:
    """Return the code that has *fields*, in the order of `CODE_FIELDS`."""
    return types.CodeType(*fields)


@functools.cache
def dill_carries_code() -> bool:
    """Return whether dill can pickle code: 0.4.1 reads a field that Python 3.15 does not have."""
    import_dill()
    import dill

    try:
        dill.dumps(dill_carries_code.__wrapped__.__code__, PROTOCOL)
    except AttributeError:
        return False
    return True


def load_code(payload: bytes) -> types.CodeType:
    """Return the code that `dump_code` wrote."""
    return _load_small_code(payload) if len(payload) <= CACHED_CODE_BYTES else load_nested(payload)


@functools.lru_cache(maxsize=MOST_CACHED)
def _load_small_code(payload: bytes) -> types.CodeType:
    code: types.CodeType = load_nested(payload)
    return code


# ── types that dill supports ──────────────────────────────────────────────────────────────────────


def _dispatch() -> dict[type, Any]:
    import_dill()
    import dill

    table: dict[type, Any] = dill.Pickler.dispatch
    return table


@functools.lru_cache(maxsize=1)
def _ids_of(_: int) -> frozenset[int]:
    """Return the ids of the types that only dill supports, for a table of the given length."""
    # The length is the cache's key, because users and dill may register types at any time.
    return frozenset(map(id, _dispatch().keys() - CARRIED_BY_PICKLE))


# Not read from pickle: importing dill adds dill's types to the table of pickle's Python version.
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
        type(typing.List[int]),  # noqa: UP006 - an alias of typing's own
        *((type(sentinel("any")),) if (sentinel := getattr(builtins, "sentinel", None)) else ()),
    }
)
"""Types in dill's table that pickle also supports, and handles faster."""


@functools.cache
def _code_pickler() -> Any:
    import dill

    class CodePickler(dill.Pickler):  # type: ignore[misc]  # dill has no types
        """dill's pickler, but the rules of this library handle functions and classes."""

        _reduce: Reduce

        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is types.CodeType and not dill_carries_code():
                return reduce_code(obj)
            return self._reduce(obj)

    return CodePickler
